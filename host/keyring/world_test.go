package keyring

import (
	"crypto/rand"
	"errors"
	"io"
	mathrand "math/rand/v2"
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

// A world is a realm and what its broker stored, on a clock that only tests move.
type world struct {
	t      testing.TB
	rand   io.Reader
	now    time.Time
	root   *Root
	issuer *Issuer
	timing Timing
	roster []Record
	grants [GrantPartitions][]Record
}

// A party is one node with everything it runs.
type party struct {
	*world
	state    *State
	roster   *Roster
	read     int // records of the roster that were applied
	consumer *Consumer
	producer *Producer
}

func newWorld(t testing.TB) *world { return newWorldFrom(t, rand.Reader) }

// newFixedWorld is the same world in every process: fuzzing runs in several, and their
// inputs must get past each other's signatures.
func newFixedWorld(t testing.TB) *world { return newWorldFrom(t, mathrand.NewChaCha8([32]byte{1})) }

func newWorldFrom(t testing.TB, rand io.Reader) *world {
	t.Helper()
	w := &world{t: t, rand: rand, now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), timing: DefaultTiming()}
	var err error
	if w.root, err = NewRealm(w.rand); err != nil {
		t.Fatal(err)
	}
	if w.issuer, err = w.root.CertifyIssuer(w.rand, w.now, w.now.Add(365*24*time.Hour)); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) pass(d time.Duration) { w.now = w.now.Add(d) }

func patterns(t testing.TB, list ...string) []wire.Pattern {
	t.Helper()
	var out []wire.Pattern
	for _, s := range list {
		p, err := wire.ParsePattern(s)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, p)
	}
	return out
}

// attributes for a node that does roles on topics, as a member of groups.
func attributes(t testing.TB, roles wire.Roles, topics, groups []string) Attributes {
	return Attributes{Roles: roles, Topics: patterns(t, topics...), Groups: patterns(t, groups...), OfflineAllow: 72 * time.Hour}
}

func (w *world) validity() Validity {
	return Validity{NotBefore: w.now, NotAfter: w.now.Add(9 * 24 * time.Hour)}
}

// node enrols a node, starts it and publishes its credentials.
func (w *world) node(roles wire.Roles, topics, groups []string) *party {
	w.t.Helper()
	return w.nodeUntil(roles, topics, groups, w.validity())
}

func (w *world) nodeUntil(roles wire.Roles, topics, groups []string, v Validity) *party {
	w.t.Helper()
	s, err := NewState(w.rand)
	if err != nil {
		w.t.Fatal(err)
	}
	file, err := w.issuer.Issue(w.rand, s.Node().CSR(attributes(w.t, roles, topics, groups)), nil, v)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := s.Node().Install(file, w.now); err != nil {
		w.t.Fatal(err)
	}
	p := w.start(s)
	w.roster = append(w.roster, s.Node().RosterRecords()...)
	return p
}

// start runs a process on a state.
func (w *world) start(s *State) *party {
	w.t.Helper()
	p := &party{world: w, state: s, roster: NewRoster(s, w.timing), consumer: NewConsumer(s, w.timing, w.rand)}
	var err error
	if p.producer, err = NewProducer(s.Node(), w.timing, nil, w.rand); err != nil {
		w.t.Fatal(err)
	}
	return p
}

// restart encodes the state, wipes the process and starts another one on the encoding.
func (p *party) restart() *party {
	p.t.Helper()
	b := p.state.Marshal()
	p.state.Wipe()
	s, err := ParseState(b)
	if err != nil {
		p.t.Fatal(err)
	}
	return p.start(s)
}

// sync reads the roster to its end. What is older than the marks of a state that was
// restarted is passed over, as the agent does.
func (p *party) sync() {
	p.t.Helper()
	for ; p.read < len(p.world.roster); p.read++ {
		rec := p.world.roster[p.read]
		if err := p.roster.Apply(rec.Key, rec.Value, p.now); err != nil && !errors.Is(err, ErrRollback) {
			p.t.Fatalf("roster record %d: %v", p.read, err)
		}
		if _, err := p.consumer.NoteRoster(rec.Key, rec.Value, p.now); err != nil {
			p.t.Fatalf("roster record %d: %v", p.read, err)
		}
	}
}

// publish makes a prekey, writes its bundle and reads the roster to its end.
func (p *party) publish() Record {
	p.t.Helper()
	rec, err := p.consumer.NewPrekey(p.now)
	if err != nil {
		p.t.Fatal(err)
	}
	p.world.roster = append(p.world.roster, rec)
	p.sync()
	return rec
}

// grant prepares, writes and activates epochs for topics, and returns the drafts.
func (p *party) grant(topics ...string) []*Draft {
	p.t.Helper()
	p.sync()
	drafts, refused, err := p.producer.Prepare(topics, p.roster, p.now)
	if err != nil || len(refused) != 0 {
		p.t.Fatalf("prepare: %v %v", refused, err)
	}
	for _, d := range drafts {
		for _, rec := range d.Records {
			p.world.grants[rec.Partition] = append(p.world.grants[rec.Partition], rec)
		}
		if err := p.producer.Activate(d, p.now, p.now); err != nil {
			p.t.Fatal(err)
		}
	}
	return drafts
}

// follow reads the own grants partition to its end and returns what became readable.
func (p *party) follow() []abi.Kid {
	p.t.Helper()
	p.sync()
	part := p.state.Node().GrantPartition()
	var out []abi.Kid
	for i := max(p.consumer.GrantsNext(), 0); i < int64(len(p.world.grants[part])); i++ {
		rec := p.world.grants[part][i]
		apply := p.consumer.ApplyGrant
		if rec.Key[0] == byte(wire.TypeKeyShare) {
			apply = p.consumer.ApplyShare
		}
		kids, err := apply(part, i, rec.Key, rec.Value, p.roster, p.now)
		if err != nil {
			p.t.Fatalf("grant %d: %v", i, err)
		}
		out = append(out, kids...)
		p.consumer.NoteGrants(i + 1)
	}
	return out
}

func (p *party) lease(topic string) abi.Lease {
	p.t.Helper()
	l, err := p.producer.Lease(topic, p.now)
	if err != nil {
		p.t.Fatal(err)
	}
	return l
}

const (
	produce = wire.RoleProduce
	consume = wire.RoleConsume
)

// pair is a producer and a consumer of "orders" with a granted epoch.
func pair(t *testing.T) (w *world, prod, cons *party) {
	t.Helper()
	w = newWorld(t)
	prod = w.node(produce, []string{"orders"}, nil)
	cons = w.node(consume, []string{"orders"}, []string{"billing"})
	cons.publish()
	return w, prod, cons
}
