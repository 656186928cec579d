package adversary_test

import (
	"encoding/hex"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/exposure"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// bounds holds the claims' round numbers against what opened. Each time is by the clock of
// the node that it is about. Two ticks are allowed on each side: one until a rule is carried
// out, one until a grant is acknowledged.
func (l *leak) bounds(t *testing.T, got map[int]bool) {
	n, timing := l.node, l.node.timing
	wrong := func(v *value, what string) {
		t.Errorf("leak of the %s at %v opens %s, sealed %v later by the clocks of the two: %s", n.name, at(l.step).Sub(began), v.topic, v.time.Sub(l.now), what)
	}
	var learned map[*node]time.Time
	if n.revoked > 0 {
		learned = n.learned()
	}
	for i := range got {
		v := n.broker.values[i]
		start := time.UnixMilli(int64(n.broker.byKid[v.header.Kid].header.Start))
		switch {
		case n.role == producer: // C2
			if v.from != n || i < l.sealed {
				wrong(v, "the past, or another's")
			}
			if v.time.After(l.now.Add(timing.Epoch + 2*timing.Lead + 2*tick)) {
				wrong(v, "later than T + 2a")
			}
		case n.name == "strict member": // C3, C4: caught up, strict
			if v.time.After(l.now.Add(timing.Forward() + 2*tick)) {
				wrong(v, "later than the forward window")
			}
			// An epoch that was over and read W ago is gone, so that what the group had not
			// committed then is what counts. For a group that was caught up then, this is
			// Backward before the leak.
			back := timing.Backward() - timing.Window + 2*tick
			if n.fleet.groups["billing"].kind.inside() {
				back += 2 * timing.Skew // what it stands in may be another producer's, by another clock
			}
			if oldest := n.oldest(l.step-int(timing.Window/tick), l.now.Add(-timing.Window)); v.time.Before(oldest.Add(-back)) {
				wrong(v, "before the backward window")
			}
		}
		// H, for a node that always runs.
		if n.name == "laggard" && v.time.Before(l.now.Add(-timing.HardCap-timing.Epoch-timing.Lead-2*tick)) {
			wrong(v, "beyond the hard cap")
		}
		if n.role == removed && !start.Before(learned[v.from]) { // C11
			wrong(v, "of an epoch that began after its producer had read of the revocation")
		}
		if n.role == newcomer && start.Before(at(n.born-n.dataFrom)) { // C12
			wrong(v, "of an epoch before its data_not_before")
		}
	}
}

// learned is when each producer has read that the node is revoked, by its own clock.
func (n *node) learned() map[*node]time.Time {
	out := map[*node]time.Time{}
	for _, p := range n.nodes {
		for step := n.revoked; step < len(p.online); step++ {
			if p.online[step] {
				out[p] = at(step).Add(p.skew)
				break
			}
		}
	}
	return out
}

// oldest is when the oldest record was sealed that some group of the node has not committed.
func (n *node) oldest(step int, now time.Time) time.Time {
	oldest := now
	for _, v := range n.broker.values {
		if v.step > step || !slices.Contains(n.consumes, v.topic) {
			continue
		}
		for _, name := range n.groups {
			g := n.fleet.groups[name]
			if slices.Contains(g.topics, v.topic) && g.committedAt(v.place, step) < v.base+v.records && v.time.Before(oldest) {
				oldest = v.time
			}
		}
	}
	return oldest
}

// stateFile holds what keyring says that the state file alone gives away, which is what the
// tools show, against everything: a consumer has nothing that its file lacks.
func (l *leak) stateFile(t *testing.T, th *thief, got map[int]bool) {
	if len(l.node.produces) > 0 {
		return
	}
	roots, err := keyring.UnsafeRoots(l.file, l.node.broker.parts(len(l.node.broker.epochs)))
	l.node.must(err)
	shared, err := keyring.UnsafeShares(l.file, l.node.broker.shares)
	l.node.must(err)
	fromFile := map[int]bool{}
	for _, r := range append(roots, shared...) {
		add(fromFile, th.asNode(key{bytes: r.Root}))
	}
	if !maps.Equal(fromFile, got) {
		t.Errorf("leak of the %s at %v: its state file opens %d values, everything that it holds %d", l.node.name, at(l.step).Sub(began), len(fromFile), len(got))
	}
}

// parts are the first n grants, each with all of its wraps.
func (b *broker) parts(n int) []*wire.Grant {
	out := []*wire.Grant{}
	for _, g := range b.epochs[:n] {
		out = append(out, &wire.Grant{Header: *g.header, Wraps: g.wraps})
	}
	return out
}

// exposure holds what the tools would have said at the leak's time against what opened: of
// what was stored by then kid by kid and offset by offset, and of what came later the times.
func (l *leak) exposure(t *testing.T, got map[int]bool) {
	n := l.node
	report, err := exposure.Of(l.view, n.timing, n.broker.parts(l.epochs), l.now)
	n.must(err)
	report.AddShares(n.broker.shares[:l.shared])
	report.AddSending(l.live)
	report.AddOffsets(func(kid string) map[int32]exposure.Range { return n.broker.ranges(kid, l.sealed) })
	wrong := func(what string, args ...any) {
		t.Errorf("leak of the %s at %v: what exposure says: "+what, append([]any{n.name, at(l.step).Sub(began)}, args...)...)
	}
	says := map[string]exposure.Epoch{}
	for _, e := range report.Epochs {
		says[e.Kid] = e
	}
	until := report.Until
	for _, p := range report.Prekeys {
		if p.Worst.After(until) && n.role != member {
			until = p.Worst // whoever is away, or revoked, rotates nothing
		}
		for _, e := range p.Epochs {
			if _, ok := says[e.Kid]; !ok {
				says[e.Kid] = e
			}
		}
	}
	sending := map[string]bool{}
	for _, e := range report.Sending {
		sending[e.Kid] = true
	}
	// What peers share to a prekey after the leak is stored later, even of what was sealed before.
	later := map[string]bool{}
	for _, k := range n.broker.shares[l.shared:] {
		kid := keyring.KidOf(k.Commit())
		later[hex.EncodeToString(kid[:])] = true
	}
	opened := map[string]map[int32]int64{} // records, by partition
	for i := range got {
		v := n.broker.values[i]
		kid := hex.EncodeToString(v.header.Kid[:])
		if i >= l.sealed {
			if v.time.After(until.Add(tick)) {
				wrong("nothing is readable after %v, and %s of %v opens", until.Sub(began), v.topic, v.time.Sub(began))
			}
			continue
		}
		e, ok := says[kid]
		if !ok && later[kid] {
			continue
		}
		if !ok {
			wrong("kid %s of %s is not readable, and it opens", kid, v.topic)
			continue
		}
		if v.time.Before(report.From) {
			wrong("nothing is readable before %v, and %s of %v opens", report.From.Sub(began), v.topic, v.time.Sub(began))
		}
		if below, noted := e.Below[v.partition]; noted && v.base+v.records > below {
			wrong("kid %s ends below offset %d of %s, and %d opens", kid, below, v.topic, v.base)
		}
		if opened[kid] == nil {
			opened[kid] = map[int32]int64{}
		}
		opened[kid][v.partition] += v.records
	}
	for kid, e := range says {
		for p, where := range e.Offsets {
			if opened[kid][p] != where.Records {
				wrong("%d records of kid %s in partition %d of %s are readable, and %d open", where.Records, kid, p, e.Topic, opened[kid][p])
			}
		}
	}
	for kid := range sending {
		if _, also := says[kid]; !also && opened[kid] != nil {
			wrong("what was sealed under kid %s is closed, and it opens", kid)
		}
	}
}

// ranges is where the first n values have records of a kid.
func (b *broker) ranges(text string, n int) map[int32]exposure.Range {
	kid, _ := hex.DecodeString(text)
	out := map[int32]exposure.Range{}
	for _, v := range b.values[:n] {
		if v.header.Kid != abi.Kid(kid) {
			continue
		}
		r, ok := out[v.partition]
		if !ok {
			r.First = v.base
		}
		r.Last = v.base + v.records - 1
		r.Records += v.records
		out[v.partition] = r
	}
	return out
}
