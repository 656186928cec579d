package broker

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pierrec/lz4/v4"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// marker is in every key, value and header that the producers' clients send.
const marker = "never in the clear"

// A leaf names what is used for one batch only (PROTOCOL.md §2.4).
type leaf struct {
	kid   abi.Kid
	index uint32
}

// A controlRecord is a record of a control topic as its author wrote it.
type controlRecord struct {
	partition  int32
	key, value []byte
}

// Observations are what the broker sees, and what of it must never be.
type observations struct {
	entitled func(topic string, node wire.NodeID) bool

	mu       sync.Mutex
	faults   []string
	requests int
	leaves   map[leaf][wire.SaltSize]byte
	grants   []controlRecord
	bundles  []controlRecord
	prekeys  map[wire.PrekeyID]wire.NodeID // of genuine bundles
	wraps    int                           // checked
	batches  map[place][][]byte            // data as stored, by offset
	times    map[place]bool                // LogAppendTime was claimed there
	made     map[place][]byte              // the latest data batch, as produced
	gone     map[wire.NodeID]revoked
	written  map[wire.Type][]controlRecord // the other kinds of control records, by agents and issuers
}

// revoked is from when on a node gets nothing.
type revoked struct {
	seq uint64 // of the state that revokes it
	at  uint64 // everybody can have read it, Unix ms
}

func newObservations(entitled func(string, wire.NodeID) bool) *observations {
	return &observations{entitled: entitled, leaves: map[leaf][wire.SaltSize]byte{}, prekeys: map[wire.PrekeyID]wire.NodeID{},
		batches: map[place][][]byte{}, times: map[place]bool{}, made: map[place][]byte{},
		gone: map[wire.NodeID]revoked{}, written: map[wire.Type][]controlRecord{}}
}

func (o *observations) fault(format string, args ...any) {
	if len(o.faults) < 20 {
		o.faults = append(o.faults, fmt.Sprintf(format, args...))
	}
}

// request looks at one request on its way to the broker.
func (o *observations) request(e *editor, x exchange, frame, body []byte) {
	var batches []struct {
		at    place
		bytes []byte
	}
	var err error
	if x.key == kafka.KeyProduce {
		var q *kafka.ProduceRequest
		if q, err = kafka.ParseProduceRequest(x.version, body); err == nil {
			for _, t := range q.Topics {
				name := t.Name
				if x.version >= 13 {
					name = e.name(t.ID)
				}
				for _, p := range t.Partitions {
					for _, b := range split(slices.Clone(p.Records)) {
						batches = append(batches, struct {
							at    place
							bytes []byte
						}{place{name, p.Index}, b})
					}
				}
			}
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.requests++
	if bytes.Contains(frame, []byte(marker)) {
		o.fault("plaintext in a %s request of %s", kafka.APIName(x.key), x.client)
	}
	if err != nil {
		o.fault("a Produce request that does not parse: %v", err)
	}
	for _, b := range batches {
		o.produced(b.at, b.bytes)
	}
}

func (o *observations) produced(at place, batch []byte) {
	records := recordsOf(inflated(batch))
	if len(records) == 0 {
		o.fault("topic %s: a batch that does not parse was produced", at.topic)
		return
	}
	switch at.topic {
	case keyring.RosterTopic, keyring.GrantsTopic:
		for _, r := range records {
			o.published(controlRecord{at.partition, r.Key, r.Value})
		}
	default:
		h, err := wire.ParsePackedHeader(records[0].Value)
		if err != nil {
			o.fault("topic %s: a value that is not sealed was produced", at.topic)
			return
		}
		l := leaf{h.Kid, h.Leaf}
		if _, used := o.leaves[l]; used {
			o.fault("kid %x: leaf %d sealed two batches", h.Kid, h.Leaf)
		}
		o.leaves[l] = h.Salt
		o.made[at] = inflated(batch)
	}
}

// published keeps what an agent wrote to a control topic and checks whom grants are for.
func (o *observations) published(r controlRecord) {
	switch wire.Type(r.key[0]) {
	case wire.TypePrekeyBundle:
		if b, err := wire.ParsePrekeyBundle(r.value); err == nil {
			o.bundles = append(o.bundles, r)
			o.prekeys[wire.PrekeyIDOf(b.KEMPub[:])] = b.Node
		}
	case wire.TypeEpochGrant:
		g, err := wire.ParseGrant(r.value)
		if err != nil {
			o.fault("a grant that does not parse: %v", err)
			return
		}
		o.grants = append(o.grants, r)
		for _, w := range g.Wraps {
			o.wraps++
			if gone, ok := o.gone[w.Node]; ok && (g.Header.AuthoritySeq >= gone.seq || g.Header.Start >= gone.at) {
				o.fault("node %v is revoked, and granted an epoch that starts %d ms later", w.Node, int64(g.Header.Start-gone.at))
			}
			if o.prekeys[w.Prekey] != w.Node {
				o.fault("a grant is wrapped for prekey %v, which node %v never published", w.Prekey, w.Node)
			}
			for _, t := range g.Header.Topics {
				if !o.entitled(t.Name, w.Node) {
					o.fault("topic %s: node %v is granted what it is not entitled to", t.Name, w.Node)
				}
			}
		}
	case wire.TypeKeyShare:
		k, err := wire.ParseKeyShare(r.value)
		if err != nil {
			o.fault("a key share that does not parse: %v", err)
			return
		}
		o.wraps++
		if o.prekeys[k.Prekey] != k.Recipient {
			o.fault("a key is shared to prekey %v, which node %v never published", k.Prekey, k.Recipient)
		}
		if !o.entitled(k.Topic, k.Recipient) {
			o.fault("topic %s: a key is shared with node %v, which is not entitled to it", k.Topic, k.Recipient)
		}
		if gone, ok := o.gone[k.Recipient]; ok && uint64(time.Now().UnixMilli()) >= gone.at {
			o.fault("node %v is revoked, and a key is shared with it", k.Recipient)
		}
		o.keepLocked(r)
	default:
		o.keepLocked(r)
	}
}

func (o *observations) keepLocked(r controlRecord) {
	if t := wire.Type(r.key[0]); r.value != nil {
		o.written[t] = append(o.written[t], r)
	}
}

// of returns the records of a kind that agents and issuers wrote, the oldest first.
func (o *observations) of(t wire.Type) []controlRecord {
	o.mu.Lock()
	defer o.mu.Unlock()
	var out []controlRecord
	for _, r := range o.written[t] {
		out = append(out, controlRecord{r.partition, slices.Clone(r.key), slices.Clone(r.value)})
	}
	return out
}

// sealed is the latest batch that was produced to a partition.
func (o *observations) sealed(at place) []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.made[at])
}

// served keeps data batches as the broker serves them, before anything is edited.
func (o *observations) served(at place, batches [][]byte) {
	if strings.HasPrefix(at.topic, "_") {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, b := range batches {
		known := slices.ContainsFunc(o.batches[at], func(k []byte) bool { return kafka.BaseOffset(k) == kafka.BaseOffset(b) })
		if !known && len(o.batches[at]) < 64 {
			o.batches[at] = append(o.batches[at], slices.Clone(b))
		}
	}
}

// other returns a stored batch for which ok holds.
func (o *observations) other(ok func(at place, batch []byte, h wire.PackedHeader) bool) []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	for at, batches := range o.batches {
		for _, b := range batches {
			if h, parsed := sealedHeader(b); parsed && ok(at, b, h) {
				return slices.Clone(b)
			}
		}
	}
	return nil
}

// latest returns the latest record of list for which ok holds.
func (o *observations) latest(list *[]controlRecord, ok func(r controlRecord) bool) *controlRecord {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, r := range slices.Backward(*list) {
		if ok == nil || ok(r) {
			return &controlRecord{r.partition, slices.Clone(r.key), slices.Clone(r.value)}
		}
	}
	return nil
}

// recordsOf reads the records of an uncompressed batch; nil where it is none.
func recordsOf(batch []byte) (records []kafka.Record) {
	h, err := kafka.ParseBatchHeader(batch)
	if err != nil || h.Codec() != kafka.CodecNone {
		return nil
	}
	for rest := batch[kafka.BatchHeaderSize:]; len(rest) > 0; {
		var r kafka.Record
		if rest, err = kafka.NextRecord(rest, &r); err != nil {
			return nil
		}
		records = append(records, r)
	}
	return records
}

// inflated is a batch whose stubs, if they were compressed, no longer are (PROTOCOL.md §2.4).
func inflated(batch []byte) []byte {
	h, err := kafka.ParseBatchHeader(batch)
	if err != nil || h.Codec() != kafka.CodecLZ4 {
		return batch
	}
	section, err := io.ReadAll(lz4.NewReader(bytes.NewReader(batch[kafka.BatchHeaderSize:])))
	if err != nil {
		return batch
	}
	return header(append(slices.Clone(batch[:kafka.BatchHeaderSize]), section...), func(h *kafka.BatchHeader) { h.Attributes &^= kafka.AttrCodec })
}

// sealedHeader reads the header of a sealed batch's value.
func sealedHeader(batch []byte) (wire.PackedHeader, bool) {
	records := recordsOf(batch)
	if len(records) == 0 {
		return wire.PackedHeader{}, false
	}
	h, err := wire.ParsePackedHeader(records[0].Value)
	return h, err == nil
}

// first returns the earliest record of list for which ok holds. An edit holds no lock of o.
func (o *observations) first(list *[]controlRecord, ok func(r controlRecord) bool) *controlRecord {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, r := range *list {
		if ok(r) {
			return &controlRecord{r.partition, slices.Clone(r.key), slices.Clone(r.value)}
		}
	}
	return nil
}
