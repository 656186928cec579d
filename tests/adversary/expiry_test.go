package adversary_test

import (
	"slices"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

// erase follows §2.8.3 and §2.8.4.
func (r *rules) erase(n *node) {
	h, now := r.holders[n.id], n.now()
	watched := map[string]bool{}
	for _, x := range h.secrets {
		if x.noted.IsZero() && !now.Before(fromMs(x.header.UseBy).Add(n.timing.Skew+n.timing.Settle)) {
			x.noted = now
			for p := range x.ends {
				x.ends[p] = n.broker.at(place{x.topic, int32(p)}).end
			}
		}
		if !x.noted.IsZero() && x.pastAt.IsZero() {
			watched[x.topic] = true
		}
	}
	for kid, x := range h.secrets {
		if watched[x.topic] && !x.noted.IsZero() {
			r.progress(h, kid, x)
		}
		if h.capped(x.grant, x.topic) || !x.pastAt.IsZero() && !now.Before(x.pastAt.Add(n.timing.Window)) {
			delete(h.secrets, kid)
			h.erased[kid] = true
		}
	}
	h.prekeys = slices.DeleteFunc(h.prekeys, func(p *prekey) bool {
		if p.mark < 0 && !p.superseded.IsZero() && !now.Before(p.superseded.Add(n.timing.PrekeyGrace)) {
			p.mark = len(r.log[partitionOf(n.id)])
		}
		return p.mark >= 0 && h.position >= p.mark
	})
}

// progress finds out which groups are past an epoch.
func (r *rules) progress(h *holder, kid abi.Kid, x *held) {
	uses, absent := 0, len(h.groups) == 0
	all := true
	x.past = map[string]bool{}
	for _, name := range h.groups {
		g := r.groups[name]
		if g == nil {
			absent = true // it may yet start, and read from the beginning
			continue
		}
		if !slices.Contains(g.topics, x.topic) {
			continue
		}
		uses++
		past := true
		for p, end := range x.ends {
			where := place{x.topic, int32(p)}
			past = past && r.past(kid, where, end, max(g.committed[where], r.broker.at(where).start))
		}
		x.past[name] = past
		all = all && past
	}
	// One that reads other topics is given W to come, and so is one that only a prefix names.
	waits := uses < len(h.groups) || h.prefix != ""
	late := !h.now().Before(x.noted.Add(h.timing.Window))
	writesOnly := uses == 0 && len(h.produces) > 0
	switch {
	case absent || uses == 0 && !writesOnly || waits && !late || !all:
		x.pastAt = time.Time{}
	case x.pastAt.IsZero():
		x.pastAt = h.now()
	}
}

// past reports whether nothing of kid is left of [committed, end) of a partition.
func (r *rules) past(kid abi.Kid, p place, end, committed int64) bool {
	if committed >= end {
		return true
	}
	for _, i := range r.broker.from(p, committed) {
		v := r.broker.values[i]
		if v.base >= end {
			break
		}
		if v.header.Kid == kid || r.reading == latest && v.base < committed {
			return false
		}
	}
	return true
}

// A holding is what a node holds at some moment.
type holding struct {
	kids    map[abi.Kid]bool
	prekeys map[*bundle]bool
	keys    map[wire.PublicKey]bool // identities: one, and the next while that is asked for
}

func (r *rules) holding(n *node) *holding {
	h := r.holders[n.id]
	out := &holding{map[abi.Kid]bool{}, map[*bundle]bool{}, map[wire.PublicKey]bool{h.key: true}}
	if h.next != (wire.PublicKey{}) {
		out.keys[h.next] = true
	}
	for kid := range h.secrets {
		out.kids[kid] = true
	}
	for _, p := range h.prekeys {
		out.prekeys[p.bundle] = true
	}
	return out
}

// predict is what a leak opens, by the claims C2 and C3: what the node held, what its prekeys
// open of all that was ever wrapped to them, and what it seals later in epochs that it had
// begun by then.
func (r *rules) predict(l *leak, what *holding) map[int]bool {
	out := map[int]bool{}
	opened := map[abi.Kid]bool{}
	for kid := range what.kids {
		opened[kid] = true
	}
	for _, w := range r.wraps {
		if what.prekeys[w.prekey] {
			for _, kid := range w.kids {
				opened[kid] = true
			}
		}
	}
	for i, v := range r.broker.values {
		later := v.from == l.node && i >= l.sealed && r.broker.byKid[v.header.Kid].step <= l.step
		if later || opened[v.header.Kid] {
			out[i] = true
		}
	}
	return out
}
