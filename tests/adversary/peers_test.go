package adversary_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

// share follows §2.10 and §2.15: what a node answers to its peers.
func (r *rules) share(n *node) {
	h, now := r.holders[n.id], n.now()
	for _, q := range h.requests {
		own, theirs := h.newest(n.id, wire.RoleConsume|wire.RoleShare), h.newestAt(q.Node, wire.RoleConsume, h.present())
		switch {
		case q.Node == n.id, own == nil, now.Sub(fromMs(q.Created)).Abs() > 10*time.Minute:
			continue
		case !wire.MatchAny(own.Groups, q.Group), theirs == nil, !wire.MatchAny(theirs.Groups, q.Group):
			continue
		}
		s := h.served[q.Node]
		if s == nil || !now.Before(s.began.Add(time.Minute)) {
			s = &served{began: now, kids: map[abi.Kid]bool{}}
			h.served[q.Node] = s
		}
		if s.requests++; s.requests > 60 {
			continue
		}
		for _, kid := range q.Kids {
			x := h.secrets[kid]
			if x == nil || h.capped(x.grant, x.topic) || !x.pastAt.IsZero() || x.past[q.Group] || x.header.Start < theirs.DataNotBefore ||
				!wire.MatchAny(theirs.Topics, x.topic) || !h.reaches(q.Node, h.present()) || s.kids[kid] || !h.answers(q, x) {
				continue
			}
			s.kids[kid] = true
			to := h.bundles[q.Node]
			log := &r.log[partitionOf(q.Node)]
			*log = append(*log, sent{grant: x.grant, topic: x.topic, by: n.id, to: map[wire.NodeID]*bundle{q.Node: to}})
			r.wraps = append(r.wraps, wrapped{[]abi.Kid{kid}, to})
		}
	}
	h.requests = nil
}

// answers reports whether the node is one of the three that answer for a kid: of those that
// had joined when the epoch started, or of the others.
func (h *holder) answers(q *wire.EpochRequest, x *held) bool {
	late := func(id wire.NodeID) bool {
		joined := h.creds[id][0].NotBefore
		for _, c := range h.creds[id] {
			joined = min(joined, c.NotBefore)
		}
		return joined > x.header.Start
	}
	order := func(id wire.NodeID) []byte {
		d := sha256.Sum256(append(binary.BigEndian.AppendUint64(nil, q.Created), id[:]...))
		return d[:]
	}
	before := 0
	for id := range h.creds {
		c := h.newest(id, wire.RoleConsume|wire.RoleShare)
		b := h.bundles[id]
		if id == q.Node || id == h.id || c == nil || b == nil || !wire.MatchAny(c.Groups, q.Group) || !wire.MatchAny(c.Topics, x.topic) ||
			b.Created+3*uint64(h.timing.PrekeyRotation.Milliseconds()) < ms(h.now()) || late(id) != late(h.id) {
			continue
		}
		if bytes.Compare(order(id), order(h.id)) < 0 {
			before++
		}
	}
	return before < 3
}
