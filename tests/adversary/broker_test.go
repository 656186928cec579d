package adversary_test

import (
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// A place is one partition of one data topic.
type place struct {
	topic     string
	partition int32
}

// A value is one sealed batch as the broker stores it, and what the simulation knows of it.
type value struct {
	place
	base    int64
	records int64
	header  wire.PackedHeader
	bytes   []byte
	batch   []byte // the whole packed batch, for those who consume it
	marker  bool   // a transaction's marker follows
	step    int
	from    *node
}

// A partition is what a data partition stores: values (indices into broker.values), and
// markers of transactions, which are offsets without a value.
type partition struct {
	values []int
	end    int64 // the next offset
}

// A grant is one epoch's header as it was written, with all of its wraps.
type grant struct {
	header *wire.GrantHeader
	wraps  []wire.Wrap
	kids   map[string]abi.Kid // by topic
	from   *node
	step   int // when it was written, and the roster read
}

// A broker keeps every byte for ever.
type broker struct {
	roster     []keyring.Record
	grants     [keyring.GrantPartitions][]keyring.Record
	epochs     []*grant
	values     []*value
	partitions map[place]*partition
	byKid      map[abi.Kid]*grant
}

func (b *broker) at(p place) *partition {
	if b.partitions[p] == nil {
		b.partitions[p] = &partition{}
	}
	return b.partitions[p]
}

// append stores a batch's value, and a marker behind it where it ends a transaction.
func (b *broker) append(v *value) {
	p := b.at(v.place)
	v.base = p.end
	p.end += v.records
	if v.marker {
		p.end++
	}
	p.values = append(p.values, len(b.values))
	b.values = append(b.values, v)
}

// ends are the end offsets of a topic.
func (b *broker) ends(topic string) map[int32]int64 {
	out := map[int32]int64{}
	for i := range int32(partitions) {
		out[i] = b.at(place{topic, i}).end
	}
	return out
}

// scan is what a reader of [from, to) sees: the kids of the values there, and whether it
// starts with a stub.
func (b *broker) scan(p place, from, to int64) (kids map[abi.Kid]bool, inside bool) {
	kids = map[abi.Kid]bool{}
	for _, i := range b.at(p).values {
		v := b.values[i]
		if v.base >= from && v.base < to {
			kids[v.header.Kid] = true
		}
		inside = inside || v.base < from && from < v.base+v.records
	}
	return kids, inside
}

// A committer is how a kind of client commits (PROTOCOL.md §2.8.4).
type committer int

const (
	commitsPosition  committer = iota // the next offset, markers behind it included
	commitsNextValue                  // the offset after the last record; a marker stays uncommitted
	commitsLastValue                  // the last record's own offset: one less than it should
	committers
)

// A group reads topics, at most up to lag behind, and commits in its way.
type group struct {
	name      string
	topics    []string
	kind      committer
	lag       int // steps
	members   []*node
	next      map[place]int // of partition.values
	committed map[place]int64
	history   map[place][]commit
}

// A commit is what a group had committed from a step on.
type commit struct {
	step   int
	offset int64
}

// committedAt is the group's committed offset after a step, 0 (the log's start) before the first.
func (g *group) committedAt(p place, step int) int64 {
	offset := int64(0)
	for _, c := range g.history[p] {
		if c.step > step {
			break
		}
		offset = c.offset
	}
	return offset
}

// A bundle is a prekey's public life: when its bundle was written and until when it is good.
type bundle struct {
	step     int
	id       wire.PrekeyID
	notAfter time.Time
}
