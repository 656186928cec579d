package adversary_test

import (
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
