package adversary_test

import (
	"flag"
	"maps"
	"os"
	"slices"
	"strconv"
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
	sealed int // values that were stored by then
	memory map[key]bool
	file   []byte
}

// TestALeakOpensWhatTheClaimsSay is V-2 of PROTOCOL.md §4: what opens, and nothing else.
func TestALeakOpensWhatTheClaimsSay(t *testing.T) {
	fleets := max(1, *leaksFlag/leaksPerFleet)
	t.Logf("%d fleets of %d leaks from -adversary.seed=%d on", fleets, leaksPerFleet, *seedFlag)
	for i := range fleets {
		t.Run("seed "+strconv.FormatUint(*seedFlag+uint64(i), 10), func(t *testing.T) {
			t.Parallel()
			attackFleet(t, *seedFlag+uint64(i))
		})
	}
}

func attackFleet(t *testing.T, seed uint64) {
	f := newFleet(t, seed)
	when := map[int]int{}
	for range leaksPerFleet {
		// Not before epochs have ended, nor so late that there is no future to open.
		when[120+f.rng.IntN(steps-240)]++
	}
	var leaks []*leak
	for f.step < steps {
		f.advance()
		for range when[f.step] {
			leaks = append(leaks, f.nodes[len(leaks)%len(f.nodes)].leak())
		}
	}
	if len(leaks) == 0 {
		t.Fatal("nothing leaked")
	}
	thief := newThief(t, &f.broker)
	exact := 0
	byRole := map[string][3]int{} // leaks, values opened, values stored
	for _, l := range leaks {
		got := thief.opens(l.memory)
		must, may := l.node.predict(l.step, l.sealed, earliest), l.node.predict(l.step, l.sealed, latest)
		l.compare(t, got, may, "opens, and must not")
		l.compare(t, must, got, "must open, and does not")
		if len(must) == len(may) {
			exact++
		} else if !l.node.stopsInside() {
			t.Errorf("leak of the %s: the prediction leaves %d values open, and no group of it stops inside a batch", l.node.name, len(may)-len(must))
		}
		l.bounds(t, got)
		l.stateFile(t, thief, got)
		sum := byRole[l.node.name]
		byRole[l.node.name] = [3]int{sum[0] + 1, sum[1] + len(got), sum[2] + len(f.broker.values)}
	}
	t.Logf("for %d of %d leaks the prediction is one set", exact, len(leaks))
	for _, name := range slices.Sorted(maps.Keys(byRole)) {
		sum := byRole[name]
		t.Logf("%-38s %2d leaks open %4.1f %% of %d values", name, sum[0], 100*float64(sum[1])/float64(sum[2]), len(f.broker.values))
		if sum[1] == 0 || sum[1] == sum[2] {
			t.Errorf("%s: its leaks open nothing, or everything: nothing was tested", name)
		}
	}
}

func (n *node) leak() *leak {
	return &leak{node: n, step: n.step - 1, sealed: len(n.broker.values),
		memory: dump(n.state, n.consumer, n.producer, n.plane, n.pending), file: n.state.Marshal()}
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

// bounds holds the claims' round numbers against what opened. Two ticks are allowed on each
// side: one until a rule is carried out, one until a grant is acknowledged.
func (l *leak) bounds(t *testing.T, got map[int]bool) {
	n, now, timing := l.node, at(l.step), l.node.timing
	for i := range got {
		v := n.broker.values[i]
		sealed := at(v.step)
		switch {
		case len(n.consumes) == 0: // C2
			if v.from != n || i < l.sealed {
				t.Errorf("leak of the %s opens the past, or another's: value %d", n.name, i)
			}
			if sealed.After(now.Add(timing.Epoch + 2*timing.Lead + 2*tick)) {
				t.Errorf("leak of the %s at %v opens what was sealed %v later", n.name, now.Sub(began), sealed.Sub(now))
			}
		case n.name == "strict member": // C3, C4: caught up, strict
			if sealed.After(now.Add(timing.Forward() + 2*tick)) {
				t.Errorf("leak of the %s at %v opens what was sealed %v later", n.name, now.Sub(began), sealed.Sub(now))
			}
			// An epoch that was over and read W ago is gone, so that what the group had not
			// committed then is what counts. For a group that was caught up then, this is
			// Backward before the leak.
			back := timing.Backward() - timing.Window + 2*tick
			if oldest := n.oldest(l.step - int(timing.Window/tick)); sealed.Before(oldest.Add(-back)) {
				t.Errorf("leak of the %s at %v opens what was sealed %v before the oldest record uncommitted %v earlier", n.name, now.Sub(began), oldest.Sub(sealed), timing.Window)
			}
		}
		// H, for a node that always runs.
		if l.node.name == "laggard" && sealed.Before(now.Add(-timing.HardCap-timing.Epoch-timing.Lead-2*tick)) {
			t.Errorf("leak of the laggard at %v opens what was sealed %v before, beyond the hard cap", now.Sub(began), now.Sub(sealed))
		}
	}
}

// stopsInside reports whether a group of the node commits offsets inside batches.
func (n *node) stopsInside() bool {
	return slices.ContainsFunc(n.groups, func(name string) bool {
		g := n.fleet.groups[name]
		return g != nil && g.kind == commitsLastValue
	})
}

// oldest is when the oldest record was sealed that some group of the node has not committed.
func (n *node) oldest(step int) time.Time {
	oldest := at(step)
	for _, v := range n.broker.values {
		if v.step > step || !slices.Contains(n.consumes, v.topic) {
			continue
		}
		for _, name := range n.groups {
			g := n.fleet.groups[name]
			if slices.Contains(g.topics, v.topic) && g.committedAt(v.place, step) < v.base+v.records && at(v.step).Before(oldest) {
				oldest = at(v.step)
			}
		}
	}
	return oldest
}

// stateFile holds what keyring says that the state file alone gives away, which is what the
// tools show, against the whole memory: a consumer has nothing that its file lacks.
func (l *leak) stateFile(t *testing.T, th *thief, got map[int]bool) {
	if len(l.node.produces) > 0 || l.step%4 != 0 {
		return
	}
	var grants []*wire.Grant
	for _, rec := range l.node.broker.grants[l.node.state.Node().GrantPartition()] {
		g, err := wire.ParseGrant(rec.Value)
		l.node.must(err)
		grants = append(grants, g)
	}
	roots, err := keyring.UnsafeRoots(l.file, grants)
	l.node.must(err)
	fromFile := map[int]bool{}
	for _, r := range roots {
		add(fromFile, th.asNode(key{bytes: r.Root}))
	}
	if !maps.Equal(fromFile, got) {
		t.Errorf("leak of the %s at %v: its state file opens %d values, its memory %d", l.node.name, at(l.step).Sub(began), len(fromFile), len(got))
	}
}
