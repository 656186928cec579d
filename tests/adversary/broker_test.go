package adversary_test

import (
	"crypto/hkdf"
	"crypto/sha256"
	"slices"
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
	time    time.Time // by its producer's clock
	from    *node
}

// A partition is what a data partition stores: values (indices into broker.values), and
// markers of transactions, which are offsets without a value.
type partition struct {
	values []int
	start  int64 // of the log: what is below has been deleted there, and the thief has it all the same
	end    int64 // the next offset
}

// A grant is one epoch's header as it was written, with all of its wraps.
type grant struct {
	header *wire.GrantHeader
	wraps  []wire.Wrap
	kids   map[string]abi.Kid // by topic
	from   *node
	step   int      // when it was written, and the roster read
	secret [32]byte // es, as it was drawn
}

// A bundle is a prekey's public life, and the seed as it was drawn.
type bundle struct {
	*wire.PrekeyBundle
	of   *node
	seed [32]byte
}

// An event is what a record of the roster says: one of these.
type event struct {
	credential *wire.Credential
	state      *wire.AuthorityState
	bundle     *bundle
	request    *wire.EpochRequest
}

// An appended is a record of the grants topic and the broker's time.
type appended struct {
	keyring.Record
	time time.Time
}

// A broker keeps every byte for ever.
type broker struct {
	roster     []keyring.Record
	events     []event // of roster, one each
	grants     [keyring.GrantPartitions][]appended
	shares     []*wire.KeyShare
	epochs     []*grant
	values     []*value
	partitions map[place]*partition
	byKid      map[abi.Kid]*grant
	bundles    map[wire.PrekeyID]*bundle
	identities map[wire.PublicKey][32]byte // seeds, as they were drawn
}

func newBroker() *broker {
	return &broker{partitions: map[place]*partition{}, byKid: map[abi.Kid]*grant{}, bundles: map[wire.PrekeyID]*bundle{},
		identities: map[wire.PublicKey][32]byte{}}
}

func (b *broker) at(p place) *partition {
	if b.partitions[p] == nil {
		b.partitions[p] = &partition{}
	}
	return b.partitions[p]
}

// publish appends a record to the roster.
func (b *broker) publish(f *fleet, rec keyring.Record) {
	var e event
	var err error
	switch wire.Type(rec.Key[0]) {
	case wire.TypeCredential:
		e.credential, err = wire.ParseCredential(rec.Value)
	case wire.TypeAuthorityState:
		e.state, err = wire.ParseAuthorityState(rec.Value)
	case wire.TypePrekeyBundle:
		var p *wire.PrekeyBundle
		if p, err = wire.ParsePrekeyBundle(rec.Value); err == nil {
			e.bundle = b.bundles[wire.PrekeyIDOf(p.KEMPub[:])]
		}
	case wire.TypeEpochRequest:
		e.request, err = wire.ParseEpochRequest(rec.Value)
	}
	f.must(err)
	b.roster = append(b.roster, rec)
	b.events = append(b.events, e)
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

// retain moves the start of a topic's logs to the first value that is not older than a step.
func (b *broker) retain(topic string, step int) {
	for i := range int32(partitions) {
		p := b.at(place{topic, i})
		for _, v := range p.values {
			if b.values[v].step >= step {
				break
			}
			p.start = max(p.start, b.values[v].base+b.values[v].records)
		}
	}
}

// ends are the end offsets of a topic.
func (b *broker) ends(topic string) map[int32]int64 {
	out := map[int32]int64{}
	for i := range int32(partitions) {
		out[i] = b.at(place{topic, i}).end
	}
	return out
}

// from are the values of a partition that reach an offset or stand behind it.
func (b *broker) from(p place, offset int64) []int {
	values := b.at(p).values
	i, _ := slices.BinarySearchFunc(values, offset, func(i int, offset int64) int {
		if v := b.values[i]; v.base+v.records <= offset {
			return -1
		}
		return 1
	})
	return values[i:]
}

// scan is what a reader of [from, to) sees: the kids of the values there, and whether it
// starts with a stub.
func (b *broker) scan(p place, from, to int64) (kids map[abi.Kid]bool, inside bool) {
	kids = map[abi.Kid]bool{}
	for _, i := range b.from(p, from) {
		v := b.values[i]
		if v.base >= to {
			break
		}
		if v.base >= from {
			kids[v.header.Kid] = true
		} else {
			inside = true
		}
	}
	return kids, inside
}

// A committer is how a kind of client commits (PROTOCOL.md §2.8.4).
type committer int

const (
	commitsPosition  committer = iota // the next offset, markers behind it included
	commitsNextValue                  // the offset after the last record; a marker stays uncommitted
	commitsLastValue                  // the last record's own offset: one less than it should
	commitsRarely                     // the next offset, now and then
	shares                            // a share group: what its members acknowledge moves its start offset, in the midst of batches too
	committers
)

func (c committer) String() string {
	return [...]string{"position", "next value", "last value", "rarely", "share group"}[c]
}

// inside reports whether such a client may stop in the midst of a batch.
func (c committer) inside() bool { return c == commitsLastValue || c == shares }

// A group reads topics, at most up to lag behind, and commits in its way.
type group struct {
	name      string
	topics    []string
	kind      committer
	lag       int // steps
	members   []*node
	next      map[place]int   // of partition.values
	ready     map[place]int64 // what is to be committed, where that is not done at once
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

// commit notes what the group has committed of a partition.
func (g *group) commit(p place, step int, offset int64) {
	if _, ok := g.committed[p]; !ok || offset > g.committed[p] {
		g.committed[p] = offset
		g.history[p] = append(g.history[p], commit{step, offset})
	}
}

// expand is HKDF-Expand-SHA256 of 32 bytes.
func expand(secret [32]byte, label, context string) [32]byte {
	b, err := hkdf.Expand(sha256.New, secret[:], label+context, 32)
	if err != nil {
		panic(err) // the lengths are constants
	}
	return [32]byte(b)
}
