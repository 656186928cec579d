package broker

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// data is an action on the first batch that the consumer is served.
func data(name, detected string, f func(e *editor, at place, batch []byte) []byte) *action {
	return &action{name: name, key: kafka.KeyFetch, client: consumerClient, detected: detected,
		answer: onBatches(func(e *editor, at place, batches [][]byte) ([][]byte, bool) {
			edited := f(e, at, slices.Clone(batches[0]))
			if edited == nil {
				return nil, false
			}
			return append([][]byte{edited}, batches[1:]...), true
		}, nil)}
}

func outside(a *action, why string) *action {
	a.outside = why
	return a
}

// A kid in a place of another topic: the agent refuses its root, or, where the root is in use
// already, its tag fails. Where the policy is to skip, the log says the second.
const (
	unopened   = "batch cannot be opened"
	passedOver = "batches that cannot be opened are passed over"
)

func dataActions() []*action {
	unauthentic := is(abi.StatusUnauthentic)
	malformed := is(abi.StatusMalformed)
	return []*action{
		data("flip a bit", unauthentic, func(e *editor, at place, b []byte) []byte {
			return value(b, func(v []byte) {
				v[wire.PackedHeaderSize+e.rng.IntN(len(v)-wire.PackedHeaderSize)] ^= 1 << e.rng.IntN(8)
			})
		}),
		data("flip a bit under the checksum", is(abi.StatusCorrupt), func(e *editor, at place, b []byte) []byte {
			b[len(b)-1-e.rng.IntN(len(b)-kafka.BatchHeaderSize)] ^= 1
			return b
		}),
		data("swap topic", unopened, func(e *editor, at place, b []byte) []byte {
			return moved(e.seen.other(func(o place, _ []byte, _ wire.PackedHeader) bool { return o.topic != at.topic }), b)
		}),
		data("swap partition", unauthentic, func(e *editor, at place, b []byte) []byte {
			return moved(e.seen.other(func(o place, _ []byte, _ wire.PackedHeader) bool {
				return o.topic == at.topic && o.partition != at.partition
			}), b)
		}),
		data("replay at a new offset", is(abi.StatusReplayed), func(e *editor, at place, b []byte) []byte {
			return moved(e.seen.other(func(o place, old []byte, _ wire.PackedHeader) bool {
				return o == at && kafka.BaseOffset(old) < kafka.BaseOffset(b)
			}), b)
		}),
		outside(data("change timestamps", "", func(e *editor, at place, b []byte) []byte {
			return header(b, func(h *kafka.BatchHeader) { h.BaseTimestamp += 3600_000; h.MaxTimestamp += 3600_000 })
		}), nothing+": the client sees the sealed timestamps"),
		outside(data("claim LogAppendTime", "", func(e *editor, at place, b []byte) []byte {
			e.seen.mu.Lock()
			e.seen.times[at] = true
			e.seen.mu.Unlock()
			return header(b, func(h *kafka.BatchHeader) { h.Attributes |= kafka.AttrLogAppendTime; h.MaxTimestamp += 3600_000 })
		}), "a broker that says LogAppendTime sets the timestamps (C7)"),
		splice("splice kid", unopened, 2, 10), splice("splice leaf", unauthentic, 10, 13), splice("splice salt", unauthentic, 17, 25),
		splice("splice ciphertext", unauthentic, wire.PackedHeaderSize, -1),
		data("splice nrec", unauthentic, func(e *editor, at place, b []byte) []byte {
			return resized(b, int32(len(recordsOf(b))+1))
		}),
		data("count what is not there", malformed, func(e *editor, at place, b []byte) []byte {
			return header(b, func(h *kafka.BatchHeader) { h.NumRecords = 1 << 30 })
		}),
		data("claim an oversized record", malformed, func(e *editor, at place, b []byte) []byte {
			b = append(b[:kafka.BatchHeaderSize], "\xfe\xff\xff\xff\x0f"...)
			return header(b, func(*kafka.BatchHeader) {})
		}),
		outside(data("claim an oversized batch", "", func(e *editor, at place, b []byte) []byte {
			binary.BigEndian.PutUint32(b[8:], 0x7fffff00)
			return b
		}), denial),
		data("inject plaintext", is(abi.StatusPlaintext), func(e *editor, at place, b []byte) []byte {
			return rebuilt(b, []kafka.Record{{Value: []byte("injected by the broker")}})
		}),
		data("inject plaintext in a stub", unauthentic, func(e *editor, at place, b []byte) []byte {
			records := recordsOf(b)
			if len(records) < 2 {
				return nil
			}
			records[1].Value = []byte("injected by the broker")
			return rebuilt(b, records)
		}),
		data("attach a key", unauthentic, func(e *editor, at place, b []byte) []byte {
			records := recordsOf(b)
			if records == nil {
				return nil
			}
			records[0].Key = []byte("attached")
			return rebuilt(b, records)
		}),
		data("attach a header", unauthentic, func(e *editor, at place, b []byte) []byte {
			records := recordsOf(b)
			if records == nil {
				return nil
			}
			records[0].Headers, records[0].NumHeaders = kafka.AppendHeader(nil, "attached", []byte("by the broker")), 1
			return rebuilt(b, records)
		}),
		data("control bit on a sealed batch", malformed, func(e *editor, at place, b []byte) []byte {
			return header(b, func(h *kafka.BatchHeader) { h.Attributes |= kafka.AttrControl })
		}),
		data("plaintext in a control batch", malformed, func(e *editor, at place, b []byte) []byte {
			b = rebuilt(b, []kafka.Record{{Key: []byte{0, 0, 0, 1}, Value: []byte("injected by the broker, long enough")}})
			return header(b, func(h *kafka.BatchHeader) { h.Attributes |= kafka.AttrControl | kafka.AttrTransactional })
		}),
		outside(data("abort marker in the place of data", "", func(e *editor, at place, b []byte) []byte {
			last := binary.BigEndian.Uint32(b[23:])
			b = rebuilt(b, []kafka.Record{{Key: []byte{0, 0, 0, 0}, Value: make([]byte, 6)}})
			return header(b, func(h *kafka.BatchHeader) {
				h.Attributes |= kafka.AttrControl | kafka.AttrTransactional
				h.LastOffsetDelta, h.ProducerID, h.ProducerEpoch, h.BaseSequence = int32(last), -1, -1, -1
			})
		}), "commit and abort markers are not protected (§3): it is a drop"),
		{name: "cut the last batch short", key: kafka.KeyFetch, client: consumerClient, outside: denial,
			answer: onBatches(func(e *editor, at place, b [][]byte) ([][]byte, bool) {
				last := b[len(b)-1]
				b[len(b)-1] = last[:kafka.BatchHeaderSize+(len(last)-kafka.BatchHeaderSize)/2]
				return b, true
			}, nil)},
		{name: "reorder batches", several: true, key: kafka.KeyFetch, client: consumerClient, outside: offsets,
			answer: onBatches(func(e *editor, at place, b [][]byte) ([][]byte, bool) {
				if len(b) < 2 {
					return nil, false
				}
				b[0], b[1] = b[1], b[0]
				return b, true
			}, nil)},
		{name: "exchange the offsets of two batches", several: true, key: kafka.KeyFetch, client: consumerClient, outside: offsets,
			answer: onBatches(func(e *editor, at place, b [][]byte) ([][]byte, bool) {
				if len(b) < 2 {
					return nil, false
				}
				first, second := slices.Clone(b[1]), slices.Clone(b[0])
				base := kafka.BaseOffset(b[0])
				binary.BigEndian.PutUint64(first, uint64(base))
				binary.BigEndian.PutUint64(second, uint64(base)+uint64(binary.BigEndian.Uint32(first[23:]))+1)
				return append([][]byte{first, second}, b[2:]...), true
			}, nil)},
		{name: "hide a batch", several: true, key: kafka.KeyFetch, client: consumerClient, outside: denial,
			answer: onBatches(func(e *editor, at place, b [][]byte) ([][]byte, bool) { return b[1:], len(b) > 1 }, nil)},
		{name: "duplicate a stored batch", detected: is(abi.StatusReplayed),
			store: func(w *world, at place) bool {
				old := w.seen.other(func(o place, _ []byte, _ wire.PackedHeader) bool { return o == at })
				return old != nil && w.append(at, old)
			}},
		{name: "duplicate a stored batch after a restart", detected: is(abi.StatusReplayed), script: duplicateAfterRestart},
		{name: "keep a batch back until its epoch is over", detected: is(abi.StatusReplayed), script: keepBackPastTheEnd},
		{name: "store plaintext", detected: is(abi.StatusPlaintext),
			store: func(w *world, at place) bool {
				old := w.seen.other(func(o place, _ []byte, _ wire.PackedHeader) bool { return o == at })
				return old != nil && w.append(at, rebuilt(old, []kafka.Record{{Value: []byte("injected by the broker")}}))
			}},
	}
}

// duplicateAfterRestart appends once more what a process that has ended delivered.
func duplicateAfterRestart(tr *traffic, at place) bool {
	records, err := tr.send(at, 2)
	if err != nil || !eventually(3*time.Second, func() bool { return tr.arrived(records) }) {
		return false
	}
	old := tr.w.seen.sealed(at)
	return tr.w.restartConsumer() && tr.w.append(at, old)
}

// keepBackPastTheEnd shows a batch for the first time where its epoch has ended: no map says
// that it was there before.
func keepBackPastTheEnd(tr *traffic, at place) bool {
	w := tr.w
	topic := w.makeTopics(1, fmt.Sprintf("kept-%d", w.log.size()))[0]
	at = place{topic, 0}
	if _, err := tr.send(at, 2); err != nil {
		return false
	}
	batch := w.seen.sealed(at)
	h, _ := sealedHeader(batch)
	if !eventually(20*time.Second, func() bool {
		return slices.ContainsFunc(w.consumer.Agent.Snapshot().Held, func(k keyring.KidView) bool { return k.Kid == h.Kid && k.EndsNoted })
	}) || !w.append(at, batch) {
		return false
	}
	mark := w.log.size()
	defer tr.consumeWith(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().At(2)}}))()
	return eventually(10*time.Second, func() bool { return w.log.says(mark, is(abi.StatusReplayed), "topic="+topic+" ") })
}

// splice puts bytes [from, to) of another sealed value into the first.
func splice(name, detected string, from, to int) *action {
	return data(name, detected, func(e *editor, at place, b []byte) []byte {
		own, ok := sealedValue(b)
		if !ok {
			return nil
		}
		end := func(v []byte) []byte {
			if to < 0 {
				return v[from:]
			}
			return v[from:to]
		}
		other := e.seen.other(func(_ place, o []byte, _ wire.PackedHeader) bool {
			v, _ := sealedValue(o)
			return string(end(v)) != string(end(own))
		})
		if other == nil {
			return nil
		}
		from2, _ := sealedValue(other)
		records := recordsOf(b)
		records[0].Value = slices.Concat(own[:from], end(from2), own[from+len(end(own)):])
		return rebuilt(b, records)
	})
}

func sealedValue(batch []byte) ([]byte, bool) {
	if _, ok := sealedHeader(batch); !ok {
		return nil, false
	}
	return recordsOf(batch)[0].Value, true
}

// value changes the sealed value of a batch in place.
func value(batch []byte, f func(v []byte)) []byte {
	v, ok := sealedValue(batch)
	if !ok {
		return nil
	}
	f(v)
	kafka.SetBatchCRC(batch)
	return batch
}

// header changes the header of a batch, whose length and checksum then hold again.
func header(batch []byte, f func(h *kafka.BatchHeader)) []byte {
	h, err := kafka.ParseBatchHeader(batch)
	if err != nil {
		return nil
	}
	h.BatchLength = int32(len(batch) - kafka.BatchLengthEnd)
	f(&h)
	h.Put(batch)
	kafka.SetBatchCRC(batch)
	return batch
}

// rebuilt is a batch with the header of b and other records.
func rebuilt(b []byte, records []kafka.Record) []byte {
	out := slices.Clone(b[:kafka.BatchHeaderSize])
	for i := range records {
		records[i].OffsetDelta = int32(i)
		out = records[i].Append(out)
	}
	return header(out, func(h *kafka.BatchHeader) {
		h.NumRecords, h.LastOffsetDelta = int32(len(records)), int32(len(records)-1)
	})
}

// resized gives a sealed batch another number of records, inside and outside.
func resized(b []byte, n int32) []byte {
	records := recordsOf(b)
	if records == nil || len(records[0].Value) < wire.PackedOverhead {
		return nil
	}
	records[0].Value = slices.Clone(records[0].Value)
	binary.BigEndian.PutUint32(records[0].Value[13:], uint32(n))
	for int32(len(records)) < n {
		records = append(records, kafka.Record{Value: []byte{}})
	}
	return rebuilt(b, records)
}

// moved is a stored batch at the offset of another one; nil where there is none.
func moved(stored, to []byte) []byte {
	if stored == nil {
		return nil
	}
	binary.BigEndian.PutUint64(stored, uint64(kafka.BaseOffset(to)))
	return stored
}

// batchOf is a batch of one record.
func batchOf(value []byte) []byte {
	h := kafka.BatchHeader{Magic: kafka.BatchMagic}
	b := make([]byte, kafka.BatchHeaderSize)
	h.Put(b)
	return rebuilt(b, []kafka.Record{{Value: value}})
}
