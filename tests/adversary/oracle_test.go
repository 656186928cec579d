package adversary_test

import (
	"flag"
	"maps"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

var (
	seedFlag  = flag.Uint64("adversary.seed", 1, "seed of the first simulated fleet")
	leaksFlag = flag.Int("adversary.leaks", leaksFromEnv(), "nodes to leak; also ADVERSARY_LEAKS")
)

func leaksFromEnv() int {
	if n, err := strconv.Atoi(os.Getenv("ADVERSARY_LEAKS")); err == nil {
		return n
	}
	return 200
}

// leaksPerFleet is how often a fleet's nodes are copied in its life.
const leaksPerFleet = 100

// A leak is a copy of everything that a node held after a step.
type leak struct {
	node   *node
	step   int
	now    time.Time // by the node's clock
	sealed int       // values that were stored by then
	shared int       // and KeyShares
	epochs int       // and grants

	keys   map[key]bool // in the agent's memory
	linear [][]byte     // of the module's linear memory, what is not a fresh instance's
	file   []byte

	view    keyring.View
	live    []keyring.EpochView
	holding [2]*holding // by the rules
}

func (n *node) leak() *leak {
	return &leak{node: n, step: n.step - 1, now: at(n.step - 1).Add(n.skew), sealed: len(n.broker.values), shared: len(n.broker.shares), epochs: len(n.broker.epochs),
		keys: dump(n.state, n.consumer, n.producer, n.pending), linear: n.plane.pages(), file: n.state.Marshal(),
		view: n.state.View(), live: append(n.producer.Epochs(), n.producer.Pending()...),
		holding: [2]*holding{n.rules[earliest].holding(n), n.rules[latest].holding(n)}}
}

// A table counts what was leaked and what it opened, over all fleets.
type table struct {
	sync.Mutex
	rows  map[string]*[3]int // leaks, values opened, values stored
	found map[string]int     // keys in linear memories, by what they are
	kinds map[string]int     // groups, by how they commit
	exact int
}

func (s *table) count(row string, opened, stored int) {
	if s.rows[row] == nil {
		s.rows[row] = &[3]int{}
	}
	for i, n := range []int{1, opened, stored} {
		s.rows[row][i] += n
	}
}

// TestALeakOpensWhatTheClaimsSay is V-2 of PROTOCOL.md §4: what opens, and nothing else.
func TestALeakOpensWhatTheClaimsSay(t *testing.T) {
	fleets := max(1, *leaksFlag/leaksPerFleet)
	t.Logf("%d fleets of %d leaks from -adversary.seed=%d on", fleets, leaksPerFleet, *seedFlag)
	sum := &table{rows: map[string]*[3]int{}, found: map[string]int{}, kinds: map[string]int{}}
	t.Run("fleets", func(t *testing.T) {
		for i := range fleets {
			t.Run("seed "+strconv.FormatUint(*seedFlag+uint64(i), 10), func(t *testing.T) {
				t.Parallel()
				attackFleet(t, *seedFlag+uint64(i), sum)
			})
		}
	})
	for _, row := range slices.Sorted(maps.Keys(sum.rows)) {
		n := sum.rows[row]
		t.Logf("%-50s %4d leaks open %5.1f %%", row, n[0], 100*float64(n[1])/float64(n[2]))
		if n[1] == 0 || n[1] == n[2] {
			t.Errorf("%s: its leaks open nothing, or everything: nothing was tested", row)
		}
	}
	t.Logf("for %d leaks the prediction is one set; found in linear memories: %v; groups commit: %v", sum.exact, sum.found, sum.kinds)
	least := min(100, *leaksFlag/10)
	for r := range roles {
		if n := sum.rows["role "+r.String()]; n == nil || n[0] < least {
			t.Errorf("fewer than %d leaks of a %v", least, r)
		}
	}
	for _, profile := range []string{"profile strict", "profile replay"} {
		if n := sum.rows[profile]; n == nil || n[0] < least {
			t.Errorf("fewer than %d leaks of %s", least, profile)
		}
	}
}

// profile is how the node is configured.
func (n *node) profile() string {
	if n.timing.Window > keyring.DefaultTiming().Window {
		return "replay"
	}
	return "strict"
}

func attackFleet(t *testing.T, seed uint64, sum *table) {
	f := newFleet(t, seed)
	leaks := f.run()
	thief := newThief(t, f.broker)
	index := thief.index()
	if len(f.broker.shares) == 0 {
		t.Error("nothing was shared: nothing about it was tested")
	}
	sum.Lock()
	defer sum.Unlock()
	for _, l := range leaks {
		got := thief.opens(l.keys)
		index.find(l.file, got, map[string]int{})
		for _, pages := range l.linear {
			index.find(pages, got, sum.found)
		}
		must, may := f.rules[earliest].predict(l, l.holding[earliest]), f.rules[latest].predict(l, l.holding[latest])
		l.compare(t, got.values, may, "opens, and must not")
		l.compare(t, must, got.values, "must open, and does not")
		l.identities(t, got.identities)
		if len(must) == len(may) {
			sum.exact++
		} else if !slices.ContainsFunc(slices.Collect(maps.Values(f.groups)), func(g *group) bool { return g.kind.inside() }) {
			t.Errorf("leak of the %s: the prediction leaves %d values open, and no group stops inside a batch", l.node.name, len(may)-len(must))
		}
		l.bounds(t, got.values)
		l.stateFile(t, thief, got.values)
		l.exposure(t, got.values)
		sum.count("role "+l.node.role.String(), len(got.values), len(f.broker.values))
		sum.count("profile "+l.node.profile(), len(got.values), len(f.broker.values))
		sum.count("node: "+l.node.name, len(got.values), len(f.broker.values))
	}
	for _, g := range f.groups {
		sum.kinds[g.kind.String()]++
	}
}

// run lets the fleet live its life, and returns what leaked in it: of each role equally often,
// not before epochs have ended, nor so late that there is no future to open.
func (f *fleet) run() []*leak {
	when := map[int]int{}
	for range leaksPerFleet {
		when[120+f.rng.IntN(steps-240)]++
	}
	var due []role
	for i := range leaksPerFleet {
		due = append(due, role(i%int(roles)))
	}
	of := map[role]int{}
	var leaks []*leak
	for f.step < steps {
		f.advance()
		for range when[f.step] {
			i := slices.IndexFunc(due, func(r role) bool { return len(f.born(r)) > 0 })
			if i < 0 {
				continue
			}
			nodes := f.born(due[i])
			leaks = append(leaks, nodes[of[due[i]]%len(nodes)].leak())
			of[due[i]]++
			due = slices.Delete(due, i, i+1)
		}
	}
	return leaks
}

// born lists the nodes of a role that there are.
func (f *fleet) born(r role) (out []*node) {
	for _, n := range f.nodes {
		if n.role == r && n.state != nil {
			out = append(out, n)
		}
	}
	return out
}

// compare reports what is in a set and not in the one that must contain it.
func (l *leak) compare(t *testing.T, inner, outer map[int]bool, what string) {
	var odd []int
	for i := range inner {
		if !outer[i] {
			odd = append(odd, i)
		}
	}
	if len(odd) == 0 {
		return
	}
	i := slices.Min(odd)
	v := l.node.broker.values[i]
	t.Errorf("leak of the %s at %v %s: %d values, the first is %d of %s, sealed at %v by the %s in its epoch of %v",
		l.node.name, at(l.step).Sub(began), what, len(odd), i, v.topic, at(v.step).Sub(began), v.from.name,
		at(l.node.broker.byKid[v.header.Kid].step).Sub(began))
}

// identities holds in whose name the thief can sign against §2.12: the node's own, which it
// renews, and the next one from the request for its credential on.
func (l *leak) identities(t *testing.T, got map[wire.PublicKey]bool) {
	want := l.holding[latest].keys
	for id := range got {
		if !want[id] {
			t.Errorf("leak of the %s at %v opens, and must not: 1 identities, the key %v of before its renewal", l.node.name, at(l.step).Sub(began), id)
		}
	}
	for id := range want {
		if !got[id] {
			t.Errorf("leak of the %s at %v must open, and does not: its identity key %v", l.node.name, at(l.step).Sub(began), id)
		}
	}
}
