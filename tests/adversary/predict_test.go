package adversary_test

import (
	"slices"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
)

// A reading is how a rule is read where it leaves room.
type reading bool

const (
	earliest reading = false // erased as soon as nobody may want it any more
	latest   reading = true  // erased when the rule's own test says so
)

// predict is what a leak of a node after a step opens, by PROTOCOL.md's claims C2 and C3
// and the rules of §2.8, from what happened in the fleet alone: who ran when, what was
// written when, and who committed what. Nothing that an implementation noted down is asked.
//
// It is exact, because steps are instants: a rule that holds at a step has been carried out
// after it. The one place where two readings differ is a group that stands inside a batch of
// another epoch: it is past the earlier one, but a scan that begins there cannot tell, unless
// an earlier scan did. So what opens is between the two. What the claims say in rounder
// numbers is in bounds.
func (n *node) predict(step, sealed int, r reading) map[int]bool {
	out := map[int]bool{}
	entitled := map[abi.Kid]bool{}
	for _, g := range n.broker.epochs {
		prekey := n.prekeyOf(g)
		if prekey < 0 {
			continue
		}
		held := n.prekeyHeld(prekey, step)
		for topic, kid := range g.kids {
			entitled[kid] = held || n.secretHeld(g, topic, step, r)
		}
	}
	for i, v := range n.broker.values {
		// C2: a producer's leak opens what it seals later under epochs that it has by now.
		later := v.from == n && i >= sealed && n.broker.byKid[v.header.Kid].step <= step
		if later || entitled[v.header.Kid] {
			out[i] = true
		}
	}
	return out
}

// prekeyOf is the bundle that a grant was wrapped for, -1 where the node is no recipient:
// the last one written before the grant, while it is good (§2.7.2). Within a step producers
// read the roster first.
func (n *node) prekeyOf(g *grant) int {
	for _, topic := range g.header.Topics {
		if !slices.Contains(n.consumes, topic.Name) {
			return -1
		}
	}
	last := -1
	for i, b := range n.bundles {
		if b.step < g.step {
			last = i
		}
	}
	if last >= 0 && !n.bundles[last].notAfter.After(at(g.step)) {
		return -1
	}
	return last
}

// prekeyHeld follows §2.8.3: from its making until the next was read back, G_p has passed
// and the node was there to notice.
func (n *node) prekeyHeld(i, step int) bool {
	if n.bundles[i].step > step {
		return false
	}
	if i+1 == len(n.bundles) {
		return true
	}
	readBack, ok := n.runs(n.bundles[i+1].step+1, time.Time{})
	if !ok {
		return true
	}
	gone, ok := n.runs(readBack, at(readBack).Add(n.timing.PrekeyGrace))
	return !ok || step < gone
}

// secretHeld follows §2.8.2 and §2.8.4: from the first time that the node read the grant
// until W after all groups were past, or H after use_by, and the node was there to notice.
func (n *node) secretHeld(g *grant, topic string, step int, r reading) bool {
	useBy := time.UnixMilli(int64(g.header.UseBy))
	from, ok := n.runs(g.step, time.Time{})
	hard := useBy.Add(n.timing.HardCap)
	if !ok || from > step || !at(from).Before(hard) {
		return false
	}
	if gone, ok := n.runs(from, hard); ok && step >= gone {
		return false
	}
	if n.ghost {
		return true
	}
	noted, ok := n.runs(from, useBy.Add(n.timing.Skew+n.timing.Settle))
	if !ok {
		return true
	}
	ends := n.ends(topic, noted)
	for past := noted; past <= step; past++ {
		if n.online[past] && n.allPast(g, topic, noted, ends, past, r) {
			gone, ok := n.runs(past, at(past).Add(n.timing.Window))
			return !ok || step < gone
		}
	}
	return true
}

// ends are the end offsets of a topic's partitions after a step.
func (n *node) ends(topic string, step int) [partitions]int64 {
	var out [partitions]int64
	for p := range out {
		for _, i := range n.broker.at(place{topic, int32(p)}).values {
			v := n.broker.values[i]
			if v.step > step {
				break
			}
			out[p] = v.base + v.records
			if v.marker {
				out[p]++
			}
		}
	}
	return out
}

// allPast reports whether each of the node's groups is past an epoch whose end offsets were
// noted at a step.
func (n *node) allPast(g *grant, topic string, noted int, ends [partitions]int64, step int, r reading) bool {
	for _, name := range n.groups {
		group := n.fleet.groups[name]
		if !slices.Contains(group.topics, topic) {
			// A group that reads other topics is given W to come.
			if at(step).Before(at(noted).Add(n.timing.Window)) {
				return false
			}
			continue
		}
		for p, end := range ends {
			where := place{topic, int32(p)}
			if !n.past(g.kids[topic], where, end, group.committedAt(where, step), r) {
				return false
			}
		}
	}
	return true
}

// past reports whether nothing of kid is left of [committed, end) of a partition.
func (n *node) past(kid abi.Kid, p place, end, committed int64, r reading) bool {
	if committed >= end {
		return true
	}
	for _, i := range n.broker.at(p).values {
		v := n.broker.values[i]
		if v.base >= end || v.base+v.records <= committed {
			continue
		}
		if v.header.Kid == kid || r == latest && v.base < committed {
			return false
		}
	}
	return true
}

// runs is the first step from one on in which the node runs and whose time is not before t.
func (n *node) runs(from int, t time.Time) (int, bool) {
	for step := from; step < len(n.online); step++ {
		if n.online[step] && !at(step).Before(t) {
			return step, true
		}
	}
	return 0, false
}
