// Package simulation lets a realm live through 30 days of a virtual clock (PROTOCOL.md §4, V-9):
// nodes with clocks up to a minute off that rotate, renew, are suspended, restarted, lost and
// revoked, and an issuer and a broker that come and go. It also searches a small model of the
// protocol exhaustively. It uses the state machines of host/keyring and the data plane of
// module/filter as they are, and neither network nor real time.
package simulation

import (
	"encoding/binary"
	"flag"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

const (
	tick       = 15 * time.Second
	sweep      = 2 * tick // from one look at what is to be erased to the next
	skew       = time.Minute
	partitions = 2
	day        = 24 * time.Hour
)

var (
	seedFlag = flag.Uint64("simulation.seed", fromEnv("SIMULATION_SEED", 1), "seed of the fleet; also SIMULATION_SEED")
	daysFlag = flag.Uint64("simulation.days", fromEnv("SIMULATION_DAYS", 11), "virtual days, from 11 on; at 30 everything has happened; also SIMULATION_DAYS")
)

func fromEnv(name string, otherwise uint64) uint64 {
	if n, err := strconv.ParseUint(os.Getenv(name), 10, 64); err == nil {
		return n
	}
	return otherwise
}

var (
	began  = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	timing = keyring.DefaultTiming()
)

// A fleet is a realm, its nodes and groups, and the broker between them. What happens at an
// instant happens in a fixed order.
type fleet struct {
	t      *testing.T
	seed   uint64
	rng    *rand.Rand
	now    time.Time // the broker's
	broker broker
	office *office
	nodes  []*node
	groups map[string]*group
	events []event

	members map[wire.NodeID]*member
	fresh   time.Time   // until when the newest AuthorityState is good
	started []time.Time // of each topic's epochs
	theft   time.Time   // until when a revoked producer's grants may be read
	outage  time.Time   // when the broker was last away
	sealed  int

	mu       sync.Mutex // guards what follows
	failures int
	counts   map[string]int
	maxima   map[string]int
}

// An event happens to the fleet once, at a time.
type event struct {
	at time.Time
	do func()
}

func newFleet(t *testing.T, seed uint64) *fleet {
	f := &fleet{t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 0)), now: began, broker: newBroker(), groups: map[string]*group{},
		members: map[wire.NodeID]*member{}, counts: map[string]int{}, maxima: map[string]int{}}
	random := f.random("realm")
	root, err := keyring.NewRealm(random)
	f.must(err)
	issuer, err := root.CertifyIssuer(random, began.Add(-time.Hour), began.Add(365*day))
	f.must(err)
	book, err := keyring.NewBook(random)
	f.must(err)
	f.office = &office{fleet: f, random: random, issuer: issuer, book: book, roster: issuer.Roster(timing), up: true,
		clock: clock{offset: skew, period: 70 * time.Hour}}
	f.accept(issuer.Record())
	f.office.work()
	return f
}

// random is a source of its own for each node, so that what one draws does not move another.
func (f *fleet) random(name string) io.Reader {
	var key [32]byte
	binary.BigEndian.PutUint64(key[:], f.seed)
	copy(key[8:], name)
	return rand.NewChaCha8(key)
}

func (f *fleet) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatalf("%v: %v", f.now.Sub(began), err)
	}
}

// node adds one to the fleet, to be enrolled later.
func (f *fleet) node(n *node) *node {
	n.fleet, n.random, n.traffic = f, f.random(n.name), map[string]*traffic{}
	n.rng = rand.New(rand.NewPCG(f.seed, uint64(len(f.nodes)+1)))
	n.held, n.erased = map[abi.Kid]bool{}, map[abi.Kid]bool{}
	n.clock.swing, n.clock.period = time.Duration(n.rng.IntN(5000))*time.Millisecond, time.Duration(20+n.rng.IntN(60))*time.Hour
	if n.timing == (keyring.Timing{}) {
		n.timing = timing
	}
	f.nodes = append(f.nodes, n)
	return n
}

// on adds an event.
func (f *fleet) on(at time.Duration, do func()) {
	f.events = append(f.events, event{began.Add(at), do})
}

// advance runs one step of the whole fleet.
func (f *fleet) advance() {
	f.now = f.now.Add(tick)
	step := int(f.now.Sub(began) / tick)
	for len(f.events) > 0 && !f.events[0].at.After(f.now) {
		do := f.events[0].do
		f.events = f.events[1:]
		do()
	}
	if !f.broker.up {
		f.outage = f.now
	} else if f.office.up {
		f.office.work()
	}
	f.each(func(n *node) {
		if f.broker.up {
			n.sync()
			n.renew()
		}
		if len(n.consumes) > 0 {
			n.follow()
		}
	})
	for _, n := range f.nodes {
		if n.up && len(n.produces) > 0 {
			n.produce()
		}
		n.flush()
	}
	for _, name := range sorted(f.groups) {
		f.groups[name].consume()
	}
	for _, n := range f.nodes {
		n.flush()
		if n.up && len(n.consumes) > 0 && step%int(sweep/tick) == 0 {
			n.erase()
		}
		if n.up && step%int(10*time.Minute/tick) == 0 {
			n.measure()
		}
		if n.up && n.thief && len(n.consumes) > 0 && step%int(time.Hour/tick) == 0 {
			n.beg()
		}
	}
	if step%int(time.Hour/tick) == 0 {
		f.broker.tidy(f.now)
	}
	if step%int(5*day/tick) == 0 {
		f.broker.repeat(f.rng.IntN, f.now)
	}
}

// each does what nodes do on their own, two at a time: they read what the broker has, and what
// they write is stored later, so that the order does not matter.
func (f *fleet) each(do func(*node)) {
	var wg sync.WaitGroup
	for half := range 2 {
		wg.Go(func() {
			for i := half; i < len(f.nodes); i += 2 {
				if n := f.nodes[i]; n.up {
					do(n)
				}
			}
		})
	}
	wg.Wait()
}

// flush has the broker store what a node wrote.
func (n *node) flush() {
	if !n.broker.up {
		return
	}
	for _, s := range n.out {
		if s.Partition == rosterPartition {
			n.accept(s.Record)
		} else {
			n.broker.grants[s.Partition].append(s.Record, n.fleet.now)
		}
	}
	n.out = n.out[:0]
}

// What a node may hold of each kind: prekeys while nothing can be published, and of a group that
// keeps up those of the present and the last epochs of each producer's topic.
const (
	maxPrekeys = 64
	maxSecrets = 48
)

// measure holds sizes against their bounds, and a node whose group keeps up against the window
// (C3).
func (n *node) measure() {
	v := n.state.View()
	n.most("prekeys of a node", len(v.Prekeys))
	n.most("erased kids that a node remembers", v.ErasedKids)
	n.most("marks of a node", v.Marks)
	n.most("topic secrets of a node", len(v.Kids))
	remembered := n.timing.HardCap + n.timing.Epoch + n.timing.Lead + margin
	recent, _ := slices.BinarySearchFunc(n.started, n.fleet.now.Add(-remembered), time.Time.Compare)
	if recent = len(n.started) - recent; len(v.Prekeys) > maxPrekeys || v.ErasedKids > recent || v.Marks > len(n.members)+1 {
		n.fail("%s holds %d prekeys, %d marks, and remembers %d kids of %d", n.name, len(v.Prekeys), v.Marks, v.ErasedKids, recent)
	}
	if len(n.consumes) == 0 || n.thief {
		return
	}
	g := n.groups[n.group]
	calm := n.fleet.now.Add(-30 * time.Minute)
	if g.lag > 0 || !g.behind.Before(calm) || !n.outage.Before(calm) || !n.since.Before(calm) {
		return
	}
	n.most("topic secrets of a node whose group keeps up", len(v.Kids))
	if len(v.Kids) > maxSecrets {
		n.fail("%s holds %d topic secrets, and its group keeps up", n.name, len(v.Kids))
	}
	window := n.timing.Backward() + 2*sweep
	for _, k := range v.Kids {
		age := n.now().Sub(k.Start)
		n.most("seconds from an epoch's start to the erasure of its secret, by the clocks of its producer and of a member that keeps up", int(age.Seconds()))
		n.most("seconds from an epoch's start to the erasure of its secret, by the broker's clock", int(n.fleet.now.Sub(n.broker.epochs[k.Kid].at).Seconds()))
		if age > window {
			n.fail("%s holds the secret of an epoch that began %v ago, and its group keeps up: %v at most", n.name, age, window)
		}
	}
	if !n.members[n.id()].must(n.fleet.now) {
		return // it cannot make another
	}
	for _, p := range v.Prekeys {
		age := n.now().Sub(p.Created)
		n.most("seconds that a node holds a prekey", int(age.Seconds()))
		if bound := n.timing.PrekeyRotation + n.timing.PrekeyGrace + 2*sweep + 2*tick; age > bound {
			n.fail("%s holds a prekey that it made %v ago: %v at most", n.name, age, bound)
		}
	}
}

func (f *fleet) report() {
	for _, what := range sorted(f.counts) {
		f.t.Logf("%8d %s", f.counts[what], what)
	}
	f.t.Logf("%8d batches sealed", f.sealed)
	for _, what := range sorted(f.maxima) {
		f.t.Logf("%8d at most: %s", f.maxima[what], what)
	}
	for _, name := range sorted(f.groups) {
		g := f.groups[name]
		f.t.Logf("group %s: %d opened, %d expired before it came, passed over: %v", name, g.opened, g.expired, g.skipped)
	}
}

func (f *fleet) sortEvents() {
	slices.SortStableFunc(f.events, func(a, b event) int { return a.at.Compare(b.at) })
}
