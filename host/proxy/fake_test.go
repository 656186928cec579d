package proxy

import (
	"bytes"
	"context"
	"crypto/subtle"
	"fmt"
	"maps"
	"strings"
	"sync"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
)

// sealMark begins a record section that fakeFilter has sealed.
const sealMark = "SEALED"

// A fakeFilter is a test double of the engine: it marks and XORs the record section of each
// batch. It protects nothing; it makes visible which batches went through which side.
type fakeFilter struct {
	mu   sync.Mutex
	seal func(ctx context.Context, topic string, partition int32) error               // nil: everything is sealed
	open func(ctx context.Context, topic string, partition int32, offset int64) error // nil: everything opens
	skip bool                                                                         // what does not open is passed over
	over map[abi.Status]uint64                                                        // batches passed over
}

func (f *fakeFilter) onSeal(fn func(ctx context.Context, topic string, partition int32) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seal = fn
}

func (f *fakeFilter) onOpen(fn func(ctx context.Context, topic string, partition int32, offset int64) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.open = fn
}

// Pass passes the topics whose names begin with "plain".
func (f *fakeFilter) Pass(topic string, _ int32, _ []byte) bool {
	return strings.HasPrefix(topic, "plain")
}

func (f *fakeFilter) SealTo(ctx context.Context, dst []byte, topic string, partition int32, records []byte) ([]byte, error) {
	f.mu.Lock()
	refuse := f.seal
	f.mu.Unlock()
	if refuse != nil {
		if err := refuse(ctx, topic, partition); err != nil {
			return nil, fmt.Errorf("topic %s, partition %d: %w", topic, partition, err)
		}
	}
	if size, err := kafka.BatchSize(records); err != nil || size != len(records) {
		return nil, abi.StatusMalformed
	}
	h, err := kafka.ParseBatchHeader(records)
	if err != nil {
		return nil, err
	}
	at := len(dst)
	out := append(append(dst, make([]byte, kafka.BatchHeaderSize)...), sealMark...)
	out = append(out, mask(records[kafka.BatchHeaderSize:])...)
	h.BatchLength += int32(len(sealMark))
	h.Put(out[at:])
	kafka.SetBatchCRC(out[at:])
	return out, nil
}

func (f *fakeFilter) OpenTo(ctx context.Context, dst []byte, topic string, partition int32, records []byte) ([]byte, error) {
	f.mu.Lock()
	refuse, skip := f.open, f.skip
	f.mu.Unlock()
	out := dst
	for len(records) > 0 {
		size, err := kafka.BatchSize(records)
		if err != nil {
			return append(out, records...), nil
		}
		h, err := kafka.ParseBatchHeader(records)
		if err != nil {
			return out, err
		}
		if h.IsControl() {
			out = append(out, records[:size]...)
			records = records[size:]
			continue
		}
		if refuse != nil {
			if err := refuse(ctx, topic, partition, h.BaseOffset); err != nil {
				if skip {
					if out, err = f.passOver(out, records[:size], err); err != nil {
						return out, err
					}
					records = records[size:]
					continue
				}
				return out, fmt.Errorf("topic %s, partition %d, offset %d: %w", topic, partition, h.BaseOffset, err)
			}
		}
		section := records[kafka.BatchHeaderSize:size]
		if !bytes.HasPrefix(section, []byte(sealMark)) {
			return out, abi.StatusPlaintext
		}
		at := len(out)
		h.BatchLength -= int32(len(sealMark))
		out = append(out, make([]byte, kafka.BatchHeaderSize)...)
		out = append(out, mask(section[len(sealMark):])...)
		h.Put(out[at:])
		kafka.SetBatchCRC(out[at:])
		records = records[size:]
	}
	return out, nil
}

// skipping has what does not open be passed over from now on.
func (f *fakeFilter) skipping() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.skip = true
}

func (f *fakeFilter) passOver(out, batch []byte, cause error) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.over == nil {
		f.over = map[abi.Status]uint64{}
	}
	status, _ := judge(cause)
	f.over[status]++
	return kafka.AppendSkip(out, batch)
}

func (f *fakeFilter) Skipped() map[abi.Status]uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.over)
}

var pad = bytes.Repeat([]byte{0x5a}, 4096)

func mask(b []byte) []byte {
	out := make([]byte, len(b))
	for at := 0; at < len(b); at += len(pad) {
		subtle.XORBytes(out[at:], b[at:], pad)
	}
	return out
}
