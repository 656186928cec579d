package adversary_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

// A reading is how a rule is read where it leaves room.
type reading int

const (
	earliest reading = iota // erased as soon as nobody may want it any more
	latest                  // erased when the rule's own test says so
)

// rules is what every node holds by PROTOCOL.md §2.7, §2.8 and §2.10, from what happened in
// the fleet alone: who ran when, which records stand on the roster, what was sealed when, and
// who committed what. Which secret is wrapped for whom, who answers a peer, and what is erased
// when, is worked out here; nothing that an implementation noted down is asked.
//
// It is exact, because steps are instants: a rule that holds at a step has been carried out
// after it. The one place where two readings differ is a group that stands inside a batch of
// another epoch: it is past the earlier one, but a scan that begins there cannot tell, unless
// an earlier scan did. So what opens is between the two.
type rules struct {
	*fleet
	reading
	holders map[wire.NodeID]*holder
	log     [16][]sent // of the grants topic, by partition
	wraps   []wrapped
}

// A sent is a grant or a KeyShare, as somebody who reads its partition finds it.
type sent struct {
	*grant
	topic string                  // of a share, "" for a grant
	by    wire.NodeID             // the sharer
	to    map[wire.NodeID]*bundle // recipients, and what it is wrapped to
}

// A wrapped is what a prekey opens.
type wrapped struct {
	kids   []abi.Kid
	prekey *bundle
}

// A holder is what one node holds.
type holder struct {
	*node
	key, next wire.PublicKey // its identity, and the one that it asked a credential for
	position  int            // in its partition of the log
	secrets   map[abi.Kid]*held
	erased    map[abi.Kid]bool
	prekeys   []*prekey

	// What its process knows.
	events   int
	creds    map[wire.NodeID][]*wire.Credential
	state    *wire.AuthorityState
	bundles  map[wire.NodeID]*bundle
	requests []*wire.EpochRequest
	served   map[wire.NodeID]*served
}

// A held is a topic secret.
type held struct {
	*grant
	topic  string
	noted  time.Time // when its ends were
	ends   [partitions]int64
	pastAt time.Time
	past   map[string]bool // by group, for peers
}

// A prekey is held from when it is made until its successor was read back, G_p has passed,
// and what was written before that was read.
type prekey struct {
	*bundle
	readBack, superseded time.Time
	mark                 int // of the log; -1 while the grace lasts
}

// A served is what one node was given in a minute.
type served struct {
	began    time.Time
	requests int
	kids     map[abi.Kid]bool
}

func newRules(f *fleet, r reading) *rules {
	return &rules{fleet: f, reading: r, holders: map[wire.NodeID]*holder{}}
}

func ms(t time.Time) uint64         { return uint64(t.UnixMilli()) }
func fromMs(ms uint64) time.Time    { return time.UnixMilli(int64(ms)) }
func partitionOf(n wire.NodeID) int { return int(binary.BigEndian.Uint32(n[:4]) % 16) }

func (r *rules) enrol(n *node) {
	r.holders[n.id] = &holder{node: n, secrets: map[abi.Kid]*held{}, erased: map[abi.Kid]bool{}}
	r.restart(n)
	for _, e := range r.broker.events {
		if e.credential != nil && e.credential.Node == n.id {
			r.holders[n.id].key = e.credential.Subject
		}
	}
}

// restart forgets what is in memory only.
func (r *rules) restart(n *node) {
	h := r.holders[n.id]
	h.events, h.creds, h.bundles, h.state, h.requests = 0, map[wire.NodeID][]*wire.Credential{}, map[wire.NodeID]*bundle{}, nil, nil
	h.served = map[wire.NodeID]*served{}
	for _, x := range h.secrets {
		x.past = nil
	}
}

func (r *rules) nextKey(n *node, key wire.PublicKey) { r.holders[n.id].next = key }

// prekey follows §2.8.1.
func (r *rules) prekey(n *node, b *bundle) {
	h := r.holders[n.id]
	h.prekeys = append(h.prekeys, &prekey{bundle: b, mark: -1})
}

// sync follows §2.6 and §2.12 for what stands on the roster.
func (r *rules) sync(n *node) {
	h := r.holders[n.id]
	for ; h.events < len(r.broker.events); h.events++ {
		switch e := r.broker.events[h.events]; {
		case e.credential != nil:
			h.creds[e.credential.Node] = append(h.creds[e.credential.Node], e.credential)
		case e.state != nil:
			h.state = e.state
		case e.bundle != nil:
			if at, revoked := h.revokedAt(e.bundle.Credential); !revoked || e.bundle.Created < at {
				h.bundles[e.bundle.Node] = e.bundle
			}
			if e.bundle.of == n {
				h.readBack(e.bundle)
			}
		case e.request != nil && n.shares:
			h.requests = append(h.requests, e.request)
		}
	}
	for _, c := range h.creds[n.id] {
		if c.Subject == h.next && !h.revoked(c.Serial, ms(n.now())) {
			h.key, h.next = h.next, wire.PublicKey{}
		}
	}
}

func (h *holder) readBack(b *bundle) {
	i := slices.IndexFunc(h.prekeys, func(p *prekey) bool { return p.bundle == b })
	if i < 0 || !h.prekeys[i].readBack.IsZero() {
		return
	}
	h.prekeys[i].readBack = h.now()
	for _, older := range h.prekeys[:i] {
		if older.superseded.IsZero() {
			older.superseded = h.now()
		}
	}
}

func (h *holder) revokedAt(s wire.Serial) (at uint64, ok bool) {
	if h.state == nil {
		return 0, false
	}
	for _, r := range h.state.Revoked {
		if r.Serial == s {
			return r.At, true
		}
	}
	return 0, false
}

func (h *holder) revoked(s wire.Serial, now uint64) bool {
	at, ok := h.revokedAt(s)
	return ok && now >= at
}

// newest is a node's newest Credential (§2.7.2) if that is valid now and has these roles.
func (h *holder) newest(node wire.NodeID, roles wire.Roles) *wire.Credential {
	return h.newestAt(node, roles, ms(h.now()))
}

func (h *holder) newestAt(node wire.NodeID, roles wire.Roles, now uint64) *wire.Credential {
	var best *wire.Credential
	for _, c := range h.creds[node] {
		if c.NotBefore <= now+uint64(h.timing.Skew.Milliseconds()) && (best == nil || c.Lineage > best.Lineage) {
			best = c
		}
	}
	if best == nil || now > best.NotAfter || h.revoked(best.Serial, now) || !best.Roles.Has(roles) {
		return nil
	}
	return best
}

// present is the time for which it is judged who is entitled: whoever is revoked is so from
// when that is read (§2.6).
func (h *holder) present() uint64 {
	if h.state == nil {
		return ms(h.now())
	}
	return max(ms(h.now()), h.state.Issued)
}

// reaches reports whether a node has a bundle to wrap to.
func (h *holder) reaches(node wire.NodeID, now uint64) bool {
	b := h.bundles[node]
	return b != nil && b.NotAfter > now && !h.revoked(b.Credential, now)
}

// grant follows §2.7.2: who it is wrapped for, and to which prekey.
func (r *rules) grant(g *grant) {
	p := r.holders[g.from.id]
	s := sent{grant: g, to: map[wire.NodeID]*bundle{}}
	now := p.present()
	for id, h := range r.holders {
		c := p.newestAt(id, wire.RoleConsume, now)
		if c == nil || c.DataNotBefore > now || !p.reaches(id, now) || !wire.MatchAny(c.Topics, g.header.Topics[0].Name) {
			continue
		}
		s.to[id] = p.bundles[id]
		r.wraps = append(r.wraps, wrapped{g.all(), p.bundles[h.id]})
	}
	for i := range r.log {
		r.log[i] = append(r.log[i], s)
	}
}

func (g *grant) all() (kids []abi.Kid) {
	for _, kid := range g.kids {
		kids = append(kids, kid)
	}
	return kids
}

// readGrants follows §2.8.2 and §2.10: what a node takes of grants and shares.
func (r *rules) readGrants(n *node) {
	h := r.holders[n.id]
	log := r.log[partitionOf(n.id)]
	for ; h.position < len(log); h.position++ {
		s := log[h.position]
		if fromMs(s.header.Start).After(n.now().Add(n.timing.Skew)) {
			break // of the future, by this clock
		}
		to := s.to[n.id]
		if to == nil || !slices.ContainsFunc(h.prekeys, func(p *prekey) bool { return p.bundle == to }) {
			continue
		}
		if s.topic != "" && h.newest(s.by, wire.RoleConsume|wire.RoleShare) == nil {
			continue
		}
		for topic, kid := range s.kids {
			if s.topic != "" && s.topic != topic || h.secrets[kid] != nil || h.erased[kid] || s.header.Start < h.dataNotBefore() || h.capped(s.grant, topic) {
				continue
			}
			h.secrets[kid] = &held{grant: s.grant, topic: topic}
		}
	}
}

func (h *holder) dataNotBefore() uint64 {
	for _, c := range h.creds[h.id] {
		return c.DataNotBefore // renewal keeps it
	}
	return 0
}

// capped is the hard cap of §2.8.4, which is never longer than the topic's retention.
func (h *holder) capped(g *grant, topic string) bool {
	limit := h.timing.HardCap
	if topic == "clicks" {
		limit = min(limit, retention)
	}
	return !h.now().Before(fromMs(g.header.UseBy).Add(limit))
}

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
