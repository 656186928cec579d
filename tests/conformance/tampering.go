package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
	"github.com/wasm-e2ee/wasm-e2ee/tests/reference"
)

// tamper opens what edit makes of a sealed batch at each position below its length, with
// the outer section compressed as the module does and not at all. Each outcome that is not
// a refusal goes to accept, beside the client's batch, for its judgement.
func tamper(ctx context.Context, m *module, edit func(b []byte, at int) []byte,
	accept func(at int, in []byte, o outcome, client []byte) error) error {
	in, err := m.ready(ctx)
	if err != nil {
		return err
	}
	defer in.close(ctx)
	b := client(30, 4)
	framed, err := in.sealed(ctx, b)
	if err != nil {
		return err
	}
	plain, err := uncompressed(b)
	if err != nil {
		return err
	}
	for _, sealed := range [][]byte{framed, plain} {
		if o, err := in.open(ctx, sealed); err != nil || o.status != abi.StatusOK {
			return fmt.Errorf("untouched: %s, %w", describe(o.status), err)
		}
		for at := range sealed {
			edited := edit(bytes.Clone(sealed), at)
			if edited == nil {
				continue
			}
			o, err := in.open(ctx, edited)
			if err != nil {
				return fmt.Errorf("position %d: %w", at, err)
			}
			if o.status == abi.StatusOK {
				if err := accept(at, edited, o, b); err != nil {
					return fmt.Errorf("position %d of %d: %w", at, len(sealed), err)
				}
			} else if o.status < abi.StatusMalformed && o.status != abi.StatusNeedRoot || o.status >= abi.StatusNotConfigured {
				return fmt.Errorf("position %d of %d: %s", at, len(sealed), describe(o.status))
			}
		}
	}
	return nil
}

var errAccepted = errors.New("accepted")

// rejoin sets length and CRC as whoever tampers with a batch would.
func rejoin(b []byte) []byte {
	h, err := kafka.ParseBatchHeader(b)
	if err != nil {
		return nil
	}
	return reference.Join(h, b[kafka.BatchHeaderSize:])
}

func flippedBytesRefused(ctx context.Context, m *module) error {
	flip := func(b []byte, at int) []byte { b[at] ^= 1 << (at % 8); return b }
	return tamper(ctx, m, flip, func(at int, in []byte, o outcome, client []byte) error {
		switch {
		case at < 8, at >= 12 && at < 16: // base offset and leader epoch are the broker's, outside the CRC
			return same(o.batch[16:], client[16:])
		case at < 12: // a longer batchLength makes it a batch that was cut: no record may be left
			return cutLeavesNothing(in, o)
		}
		return errAccepted
	})
}

// flippedUnderChecksum allows what is the broker's: offsets, leader epoch, timestamps,
// producer fields and the transactional bit. What is delivered is the client's in any case.
func flippedUnderChecksum(ctx context.Context, m *module) error {
	flip := func(b []byte, at int) []byte { b[at] ^= 1 << (at % 8); return rejoin(b) }
	return tamper(ctx, m, flip, func(at int, _ []byte, o outcome, client []byte) error {
		if len(o.batch) != len(client) || !bytes.Equal(o.batch[57:], client[57:]) || !bytes.Equal(o.batch[23:27], client[23:27]) {
			return fmt.Errorf("records changed: %w", errAccepted)
		}
		h, err := kafka.ParseBatchHeader(o.batch)
		if err != nil {
			return err
		}
		if !h.LogAppendTime() && !bytes.Equal(o.batch[27:43], client[27:43]) {
			return fmt.Errorf("timestamps changed: %w", errAccepted)
		}
		return nil
	})
}

func cutLeavesNothing(in []byte, o outcome) error {
	if len(o.batch) > kafka.BatchHeaderSize || !bytes.Equal(o.batch, in[:len(o.batch)]) {
		return fmt.Errorf("%d bytes of a batch that was cut are left: %w", len(o.batch), errAccepted)
	}
	return nil
}

// cutsRefused ends the batch early, as a broker may at the end of a response.
func cutsRefused(ctx context.Context, m *module) error {
	cut := func(b []byte, at int) []byte { return b[:at] }
	return tamper(ctx, m, cut, func(_ int, in []byte, o outcome, _ []byte) error { return cutLeavesNothing(in, o) })
}

// cutsUnderChecksum ends the record section early in a batch that holds together.
func cutsUnderChecksum(ctx context.Context, m *module) error {
	cut := func(b []byte, at int) []byte {
		if at <= kafka.BatchHeaderSize {
			return nil
		}
		return rejoin(b[:at])
	}
	return tamper(ctx, m, cut, func(int, []byte, outcome, []byte) error { return errAccepted })
}

func elsewhereRefused(ctx context.Context, m *module) error {
	in, err := m.ready(ctx)
	if err != nil {
		return err
	}
	defer in.close(ctx)
	other := abi.Root{Kid: abi.Kid{0xD0}, Root: testRoot, Topic: "other"}
	if err := in.expect(ctx, abi.StatusOK, abi.FuncInstallRoot, other.Append(nil)); err != nil {
		return err
	}
	sealed, err := in.sealed(ctx, client(2, 10))
	if err != nil {
		return err
	}
	relabelled := rejoin(bytes.Replace(sealed, testKid[:], other.Kid[:], 1))
	for _, at := range []struct {
		batch     []byte
		topic     string
		partition int32
	}{
		{sealed, testTopic, testPartition + 1}, {sealed, testTopic, 0}, {sealed, "other", testPartition},
		{sealed, testTopic + "2", testPartition}, {relabelled, "other", testPartition}, {relabelled, testTopic, testPartition},
	} {
		o, err := in.batch(ctx, abi.FuncOpenBatch, at.batch, len(at.batch), at.topic, at.partition, testNow)
		if err != nil {
			return err
		}
		if o.status != abi.StatusUnauthentic {
			return fmt.Errorf("%s, partition %d: %s, want %s", at.topic, at.partition, describe(o.status), describe(abi.StatusUnauthentic))
		}
	}
	return nil
}
