package keyring

import (
	"bytes"
	"crypto/subtle"
	"fmt"
	"io"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/module/ratchet"
)

// Bounds of what grants can make a consumer hold (PROTOCOL.md §2.15).
const maxSecrets = 1 << 20

// A Consumer is a node's prekeys and the topic secrets that were opened with them
// (PROTOCOL.md §2.8). Its memory is the State.
type Consumer struct {
	state  *State
	timing Timing
	rand   io.Reader

	rotated   bool                     // a prekey was made since this process started
	missing   map[abi.Kid]missing      // kids of signed headers that are of no use here
	shared    uint64                   // when the newest prekey first opened a KeyShare, Unix ms
	served    map[wire.NodeID]*served  // what peers were given lately
	retention map[string]time.Duration // of topics, where it is known
	warned    map[string]bool          // what was said about groups that are absent
	compared  comparisons
	crowd     crowd
}

// NewConsumer works on s. rand draws prekey seeds.
func NewConsumer(s *State, t Timing, rand io.Reader) *Consumer {
	return &Consumer{
		state: s, timing: t, rand: rand,
		missing:   map[abi.Kid]missing{},
		served:    map[wire.NodeID]*served{},
		retention: map[string]time.Duration{},
		warned:    map[string]bool{},
		compared:  comparisons{instances: map[wire.NodeID]map[wire.InstanceID]*instance{}},
	}
}

// GrantsNext is the offset from which the own partition of GrantsTopic is read: -1 (its
// start) for a new state.
func (c *Consumer) GrantsNext() int64 { return c.state.grantsNext }

// NoteGrants says that every record below next was applied.
func (c *Consumer) NoteGrants(next int64) {
	if next > c.state.grantsNext {
		c.state.grantsNext = next
		c.state.version++
	}
}

// RestartGrants says that the own partition was made anew and is read from start: the place
// that the state remembers is in a log that is gone, and so are the ends that superseded
// prekeys wait for.
func (c *Consumer) RestartGrants(start int64) {
	c.state.grantsNext = start
	for _, p := range c.state.prekeys {
		p.mark = -1
	}
	c.unfollowAll()
	c.state.version++
}

// ApplyGrant verifies one record of the own partition of GrantsTopic, at offset, and keeps
// the topic secrets that it brings (PROTOCOL.md §2.8.2). kids are those that became readable.
// ErrUnknownCredential: read the roster to its end and apply once more. Other errors are
// logged; what was held stays as it was. The state must reach the disk before what
// NoteGrants was told is relied on.
func (c *Consumer) ApplyGrant(partition int32, offset int64, key, value []byte, r *Roster, now time.Time) (kids []abi.Kid, err error) {
	if value == nil {
		return nil, nil // nothing signed, nothing to do
	}
	g, err := c.verifyGrant(partition, key, value, r, now)
	if err != nil {
		c.unfollow(value, err)
		return nil, fmt.Errorf("grants: %w", err)
	}
	if err := c.compare(g, r, now); err != nil {
		return nil, fmt.Errorf("grants: %w", err)
	}
	c.noteSource(&g.Header, offset)
	w := g.Wrap(c.state.node.ID())
	if w == nil {
		c.reject(g, abi.StatusUnreadable, now)
		return nil, nil
	}
	c.reject(g, abi.StatusOK, now)
	if !c.wants(g, now) {
		return nil, nil
	}
	var p *prekey
	for _, held := range c.state.prekeys {
		if held.id == w.Prekey {
			p = held
		}
	}
	if p == nil {
		c.reject(g, abi.StatusErased, now)
		return nil, fmt.Errorf("grants: instance %v, epoch %d: wrapped for prekey %v, which is gone: %w", g.Header.Instance, g.Header.Epoch, w.Prekey, abi.StatusErased)
	}
	kids, err = c.open(g, w, p, offset, now)
	if err != nil {
		return kids, fmt.Errorf("grants: instance %v, epoch %d: %w", g.Header.Instance, g.Header.Epoch, err)
	}
	return kids, nil
}

// verifyGrant parses a part of a grant and checks everything about it that is public.
func (c *Consumer) verifyGrant(partition int32, key, value []byte, r *Roster, now time.Time) (*wire.Grant, error) {
	g, err := wire.ParseGrant(value)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(key, g.Header.Key()) || int32(g.Partition) != partition {
		return nil, fmt.Errorf("a grant in another's place: %w", wire.ErrMalformed)
	}
	proof := g.Proof()
	if err := c.verifyProof(&proof, r, now); err != nil {
		return nil, err
	}
	return g, nil
}

// verifyProof checks what a producer signed, as a grant or a KeyShare carries it: realm,
// times, the producer's credential at the epoch's start, and the signature.
func (c *Consumer) verifyProof(p *wire.GrantProof, r *Roster, now time.Time) error {
	h := &p.Header
	switch {
	case h.Realm != c.state.node.Realm():
		return fmt.Errorf("a grant of realm %v: %w", h.Realm, ErrOtherRealm)
	case h.Start > unixMs(now.Add(c.timing.Skew)):
		return fmt.Errorf("a grant that starts in the future; hint: compare the clocks: %w", abi.StatusClockSkew)
	case h.UseBy-h.Start > uint64(c.timing.MaxEpoch.Milliseconds()):
		return fmt.Errorf("an epoch longer than max_epoch (%v): %w", c.timing.MaxEpoch, abi.StatusNotEntitled)
	}
	cred := r.creds[h.Credential]
	if cred == nil {
		return fmt.Errorf("producer %v: %w", h.Producer, ErrUnknownCredential)
	}
	if cred.Node != h.Producer {
		return fmt.Errorf("producer %v names a credential of another node: %w", h.Producer, ErrUnauthentic)
	}
	if err := verify(cred.Subject, wire.TypeEpochGrant, h.Realm, p.AppendBody(nil), &p.Signature); err != nil {
		return fmt.Errorf("producer %v: %w", h.Producer, err)
	}
	if !cred.Roles.Has(wire.RoleProduce) || !r.valid(cred, h.Start) {
		return fmt.Errorf("producer %v had no valid credential to produce at the epoch's start: %w", h.Producer, abi.StatusNotEntitled)
	}
	for _, t := range h.Topics {
		if !wire.MatchAny(cred.Topics, t.Name) {
			return fmt.Errorf("producer %v may not produce to topic %s: %w", h.Producer, t.Name, abi.StatusNotEntitled)
		}
	}
	return nil
}

// wanted reports whether one topic of a grant is to be kept: this node is entitled to it,
// and it is neither held from this header, nor erased, nor older than the hard cap.
func (c *Consumer) wanted(h *wire.GrantHeader, digest wire.Digest, t *wire.GrantTopic, now time.Time) bool {
	kid := KidOf(t.Commit)
	if x := c.state.secrets[kid]; x != nil {
		return x.header != digest
	}
	if _, ok := c.state.erased[kid]; ok {
		return false
	}
	return c.state.node.covers(wire.RoleConsume, t.Name) == nil && c.tooOld(h, t.Name, now) == abi.StatusOK
}

func (c *Consumer) wants(g *wire.Grant, now time.Time) bool {
	digest := g.Header.Digest()
	for i := range g.Header.Topics {
		if c.wanted(&g.Header, digest, &g.Header.Topics[i], now) {
			return true
		}
	}
	return false
}

// open unwraps es, recomputes every commitment, and only then keeps the topic secrets that
// are wanted. es is gone when it returns.
func (c *Consumer) open(g *wire.Grant, w *wire.Wrap, p *prekey, offset int64, now time.Time) (kids []abi.Kid, err error) {
	h := &g.Header
	digest := h.Digest()
	var es secretKey
	defer clear(es[:])
	if err := unwrapSecret(&es, &p.seed, grantInfo(digest, w.Node, p.pub), w.HPKE[:]); err != nil {
		return nil, err
	}
	opened := make([]*secret, len(h.Topics))
	defer func() {
		for _, x := range opened {
			if x != nil && c.state.secrets[x.kid] != x {
				clear(x.ts[:])
			}
		}
	}()
	for i, t := range h.Topics {
		x := &secret{
			kid: KidOf(t.Commit), realm: h.Realm, producer: h.Producer, instance: h.Instance, epoch: h.Epoch,
			start: h.Start, useBy: h.UseBy, header: digest, source: offset, topic: t.Name, firstSeen: unixMs(now),
		}
		opened[i] = x
		if err := deriveTopicSecret(&x.ts, &es, x.context()); err != nil {
			return nil, err
		}
		commit, err := deriveCommit(&x.ts, x.context())
		if err != nil {
			return nil, err
		}
		if subtle.ConstantTimeCompare(commit[:], t.Commit[:]) != 1 {
			return nil, fmt.Errorf("topic %s: the secret is not the one committed to: %w", t.Name, ErrUnauthentic)
		}
	}
	for i, x := range opened {
		if !c.wanted(h, digest, &h.Topics[i], now) {
			continue
		}
		if kerr := c.keep(x); kerr != nil {
			err = kerr
			continue
		}
		kids = append(kids, x.kid)
	}
	return kids, err
}

// keep holds a topic secret whose commitment was recomputed. The first header that brought a
// kid wins.
func (c *Consumer) keep(x *secret) error {
	if c.state.secrets[x.kid] != nil {
		return fmt.Errorf("topic %s, kid %x: %w", x.topic, x.kid, ErrKidConflict)
	}
	if err := c.room(x.producer, fromMs(x.firstSeen)); err != nil {
		return fmt.Errorf("topic %s: %w", x.topic, err)
	}
	c.state.secrets[x.kid] = x
	delete(c.missing, x.kid)
	c.state.version++
	return nil
}

// noteSource remembers where the signed header of what is held stands now, for sharing it
// (PROTOCOL.md §2.10): a grant may be written again.
func (c *Consumer) noteSource(h *wire.GrantHeader, offset int64) {
	var digest wire.Digest
	for i := range h.Topics {
		x := c.state.secrets[KidOf(h.Topics[i].Commit)]
		if x == nil || x.source == offset {
			continue
		}
		if digest == (wire.Digest{}) {
			digest = h.Digest()
		}
		if x.header == digest {
			x.source = offset
			c.state.version++
		}
	}
}

// Root returns the root that opens topic's batches of kid. The error wraps
// abi.StatusErased; StatusUnreadable where a signed grant names the kid but not this node,
// or the kid belongs to another topic; StatusNotEntitled; or StatusPending where no grant
// that was read names it: once the grants reader has passed an end offset fetched after
// the batch arrived, that means StatusUnreadable.
func (c *Consumer) Root(topic string, kid abi.Kid, now time.Time) (abi.Root, error) {
	fail := func(s abi.Status) (abi.Root, error) {
		return abi.Root{}, fmt.Errorf("topic %s, kid %x: %w", topic, kid, s)
	}
	if err := c.state.node.covers(wire.RoleConsume, topic); err != nil {
		return abi.Root{}, err
	}
	x := c.state.secrets[kid]
	if x == nil {
		if _, ok := c.state.erased[kid]; ok {
			return fail(abi.StatusErased)
		}
		if m, ok := c.missing[kid]; ok {
			return fail(m.why)
		}
		return fail(abi.StatusPending)
	}
	switch {
	case x.topic != topic:
		return fail(abi.StatusUnreadable)
	case x.expired(c, unixMs(now)):
		return fail(abi.StatusErased) // Tick has not come to it yet
	}
	commit, err := deriveCommit(&x.ts, x.context())
	if err != nil {
		return abi.Root{}, err
	}
	root := abi.Root{Kid: kid, Topic: topic}
	if err := deriveRoot((*ratchet.Node)(&root.Root), &x.ts, x.context(), commit); err != nil {
		return abi.Root{}, err
	}
	return root, nil
}
