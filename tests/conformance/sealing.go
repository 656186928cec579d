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

func sealedIsPacked(ctx context.Context, m *module) error {
	in, err := m.ready(ctx)
	if err != nil {
		return err
	}
	defer in.close(ctx)
	for _, count := range []int{1, 2, 64, 65, 1000, 8193} {
		for _, size := range []int{0, 10, 200} {
			b := client(count, size)
			sealed, err := in.sealed(ctx, b)
			if err != nil {
				return err
			}
			s := reference.Seal{Root: testRoot, Topic: testTopic, Partition: testPartition}
			opened, err := s.Open(sealed)
			if err != nil {
				return fmt.Errorf("%d records of %d bytes: the reference does not open what was sealed: %w", count, size, err)
			}
			if err := same(opened, b); err != nil {
				return err
			}
			o, err := in.open(ctx, sealed)
			if err != nil {
				return err
			}
			if o.status != abi.StatusOK || o.result.Kid != testKid || o.result.Records != uint32(count) {
				return fmt.Errorf("what was sealed does not open: %s, %+v", describe(o.status), o.result)
			}
			if err := same(o.batch, b); err != nil {
				return err
			}
		}
	}
	return nil
}

func leavesInOrder(ctx context.Context, m *module) error {
	in, err := m.configured(ctx, testConfig)
	if err != nil {
		return err
	}
	defer in.close(ctx)
	if err := in.expect(ctx, abi.StatusOK, abi.FuncInstallLease, lease(8, 21).Append(nil)); err != nil {
		return err
	}
	for leaf := uint32(8); leaf < 16; leaf++ {
		o, err := in.seal(ctx, client(1, 10))
		if err != nil {
			return err
		}
		if o.status != abi.StatusOK || o.result.Leaf != leaf || o.result.Kid != testKid {
			return fmt.Errorf("%s, kid %x, leaf %d, want leaf %d", describe(o.status), o.result.Kid, o.result.Leaf, leaf)
		}
	}
	o, err := in.seal(ctx, client(1, 10))
	if err == nil && o.status != abi.StatusNeedLease {
		err = fmt.Errorf("after the last leaf: %s", describe(o.status))
	}
	return err
}

// salt seals a batch and returns the salt that the module drew.
func (in *instance) salt(ctx context.Context) ([8]byte, error) {
	sealed, err := in.sealed(ctx, client(1, 10))
	if err != nil {
		return [8]byte{}, err
	}
	s := reference.Seal{Root: testRoot, Topic: testTopic, Partition: testPartition}
	_, err = s.Open(sealed)
	return s.Salt, err
}

func saltsDiffer(ctx context.Context, m *module) error {
	in, err := m.ready(ctx)
	if err != nil {
		return err
	}
	defer in.close(ctx)
	seen := map[[8]byte]bool{}
	for range 50 {
		salt, err := in.salt(ctx)
		if err != nil {
			return err
		}
		if seen[salt] {
			return fmt.Errorf("salt %x came twice", salt)
		}
		seen[salt] = true
	}
	return nil
}

func instancesDiffer(ctx context.Context, m *module) error {
	var salts [2][8]byte
	for i := range salts {
		in, err := m.ready(ctx)
		if err != nil {
			return err
		}
		salts[i], err = in.salt(ctx)
		in.close(ctx)
		if err != nil {
			return err
		}
	}
	if salts[0] == salts[1] {
		return errors.New("two instances drew one salt")
	}
	return nil
}

func defaultBatchFits(ctx context.Context, m *module) error {
	in, err := m.ready(ctx)
	if err != nil {
		return err
	}
	defer in.close(ctx)
	// Null keys, one timestamp: what rdkafka_performance sends by default.
	var records []kafka.Record
	for i := range int32(9000) {
		records = append(records, kafka.Record{OffsetDelta: i, Value: bytes.Repeat([]byte{'x'}, 100)})
	}
	b := reference.Join(kafka.BatchHeader{LastOffsetDelta: 8999, NumRecords: 9000}, reference.Section(records...))
	sealed, err := in.sealed(ctx, b)
	if err != nil {
		return err
	}
	const limit = 1_048_588 // message.max.bytes of a broker
	if len(sealed) > limit {
		return fmt.Errorf("9000 records of 100 bytes grew from %d to %d bytes, beyond %d", len(b), len(sealed), limit)
	}
	return nil
}

// smallBufferAsks gives sealing every capacity from the batch's own size to what it wants.
func smallBufferAsks(ctx context.Context, m *module) error {
	in, err := m.ready(ctx)
	if err != nil {
		return err
	}
	defer in.close(ctx)
	b := client(3, 10)
	o, err := in.once(ctx, abi.FuncSealBatch, b, len(b), testTopic, testPartition, testNow)
	if err != nil {
		return err
	}
	if o.status != abi.StatusNeedSpace {
		return fmt.Errorf("no room to grow: %s", describe(o.status))
	}
	want := int(o.result.Length)
	if bound := len(b) + 82 + 10*2; want > bound {
		return fmt.Errorf("wants %d bytes, beyond the bound of %d", want, bound)
	}
	for capacity := len(b); capacity <= want; capacity++ {
		o, err := in.once(ctx, abi.FuncSealBatch, b, capacity, testTopic, testPartition, testNow)
		if err != nil {
			return err
		}
		fits := o.status == abi.StatusOK && o.result.Leaf == 0
		asks := o.status == abi.StatusNeedSpace && int(o.result.Length) == want
		if capacity < want && !asks || capacity == want && !fits {
			return fmt.Errorf("%d bytes, wanting %d: %s, %+v", capacity, want, describe(o.status), o.result)
		}
	}
	return nil
}
