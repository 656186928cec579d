package filter

import "github.com/wasm-e2ee/wasm-e2ee/abi/wire"

// placeCache is the number of partition contexts kept, a power of two: a hash costs more than
// everything else that is the same for each batch.
const placeCache = 64

// A place is a partition with its context.
type place struct {
	topic     string
	partition int32
	pctx      [wire.PctxSize]byte
	codec     uint8 // that of the batch which was opened last
}

// place returns a partition with its context (PROTOCOL.md §2.3), valid until the next call.
func (f *Filter) place(topic []byte, partition int32) *place {
	p := &f.places[(uint32(partition)+uint32(len(topic))*7+uint32(topic[len(topic)-1]))%placeCache]
	if p.partition != partition || p.topic != string(topic) {
		*p = place{topic: string(topic), partition: partition, pctx: wire.Pctx(topic, partition)}
	}
	return p
}
