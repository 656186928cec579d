package keyring

import (
	"bytes"
	"cmp"
	"crypto/hpke"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

// What a sharer does for one node, and how many of a group's members do it (PROTOCOL.md
// §2.10, §2.15).
const (
	requestAge    = 10 * time.Minute // created lies at most this far off
	requestsEach  = 60               // requests looked at each minute
	sharesEach    = 1024             // secrets given each minute, each kid once
	sharersOfEach = 3                // members that answer for one kid
)

// served is what one node was given in the present minute.
type served struct {
	began    uint64 // Unix ms
	requests int
	kids     map[abi.Kid]bool
}

// A ShareTask is one topic secret that a peer is to get.
type ShareTask struct {
	Kid       abi.Kid
	Source    int64 // offset in the own partition of GrantsTopic of a record with its signed header
	Recipient wire.NodeID

	prekey wire.PrekeyID
	kem    hpke.PublicKey
	kemPub []byte
}

// Share decides what an EpochRequest of the roster gets from this node: what it holds, and
// the group has not passed, for a requester that is entitled to it (PROTOCOL.md §2.10). The
// caller reads the record at each task's Source and gives it to MakeShare. A request that is
// none of this node's business gets nothing, without an error.
func (c *Consumer) Share(key, value []byte, r *Roster, now time.Time) ([]ShareTask, error) {
	if value == nil {
		return nil, nil
	}
	q, err := wire.ParseEpochRequest(value)
	if err != nil {
		return nil, fmt.Errorf("roster: %w", err)
	}
	own, at := &c.state.node, unixMs(now)
	switch {
	case !bytes.Equal(key, q.Key()):
		return nil, fmt.Errorf("roster: epoch request of node %v under another key: %w", q.Node, wire.ErrMalformed)
	case q.Realm != own.Realm(), q.Node == own.ID(), !own.HasRole(wire.RoleConsume | wire.RoleShare), !own.AllowsGroup(q.Group), own.Check(now) != nil:
		return nil, nil
	case q.Created+ms(requestAge) < at: // the roster keeps it
		return nil, nil
	case q.Created > at+ms(requestAge):
		return nil, fmt.Errorf("roster: epoch request of node %v comes from the future; hint: compare the clocks: %w", q.Node, abi.StatusClockSkew)
	}
	cred := r.creds[q.Credential]
	if cred == nil {
		return nil, fmt.Errorf("roster: epoch request of node %v: %w", q.Node, ErrUnknownCredential)
	}
	if cred.Node != q.Node {
		return nil, fmt.Errorf("roster: epoch request of node %v names a credential of another: %w", q.Node, ErrUnauthentic)
	}
	if err := verify(cred.Subject, wire.TypeEpochRequest, q.Realm, q.AppendBody(nil), &q.Signature); err != nil {
		return nil, fmt.Errorf("roster: node %v: %w", q.Node, err)
	}
	n, present := r.nodes[q.Node], r.present(now)
	newest := n.newest(present, r.timing.Skew)
	if newest == nil || !r.valid(newest, present) || !r.valid(cred, present) || !newest.Roles.Has(wire.RoleConsume) || !wire.MatchAny(newest.Groups, q.Group) {
		return nil, fmt.Errorf("roster: node %v asks for keys of group %s, to which its credential does not entitle it now: %w", q.Node, q.Group, abi.StatusNotEntitled)
	}
	s := c.serve(q.Node, at)
	if s.requests++; s.requests > requestsEach {
		return nil, nil
	}
	peers := c.peers(q, r, now)
	var tasks []ShareTask
	for _, kid := range q.Kids {
		x := c.state.secrets[kid]
		if x == nil || x.source < 0 || x.expired(c, at) || x.passedBy(q.Group) || x.start < newest.DataNotBefore ||
			own.covers(wire.RoleConsume, x.topic) != nil || !wire.MatchAny(newest.Topics, x.topic) || !r.reachable(n, x.topic, present) ||
			s.kids[kid] || len(s.kids) >= sharesEach || !chosen(peers, own.ID(), x) {
			continue
		}
		s.kids[kid] = true
		tasks = append(tasks, ShareTask{Kid: kid, Source: x.source, Recipient: q.Node, prekey: n.prekey, kem: n.kem, kemPub: n.bundle.KEMPub[:]})
	}
	slices.SortFunc(tasks, func(a, b ShareTask) int { return cmp.Compare(a.Source, b.Source) })
	return tasks, nil
}

// serve returns what node was given in the present minute.
func (c *Consumer) serve(node wire.NodeID, at uint64) *served {
	if s := c.served[node]; s != nil && at < s.began+60_000 {
		return s
	}
	for other, s := range c.served { // at most one for each node of the roster
		if at >= s.began+60_000 {
			delete(c.served, other)
		}
	}
	s := &served{began: at, kids: map[abi.Kid]bool{}}
	c.served[node] = s
	return s
}

// A peer is a member of the requester's group that may answer it.
type peer struct {
	node   wire.NodeID
	cred   *wire.Credential
	joined uint64 // not_before of its first credential
	order  [8]byte
}

// peers lists the members of a request's group that are likely to be up, this node among
// them: those with a bundle of the last three rotations.
func (c *Consumer) peers(q *wire.EpochRequest, r *Roster, now time.Time) []peer {
	at, own := unixMs(now), c.state.node.ID()
	var out []peer
	for id, n := range r.nodes {
		if id == q.Node {
			continue
		}
		cred := n.newest(at, r.timing.Skew)
		if cred == nil || !cred.Roles.Has(wire.RoleConsume|wire.RoleShare) || !wire.MatchAny(cred.Groups, q.Group) || !r.valid(cred, at) {
			continue
		}
		if id != own && (n.bundle == nil || n.bundle.Created+ms(3*c.timing.PrekeyRotation) < at) {
			continue
		}
		p := peer{node: id, cred: cred, joined: cred.NotBefore}
		for _, older := range n.creds {
			p.joined = min(p.joined, older.NotBefore)
		}
		h := sha256.Sum256(append(binary.BigEndian.AppendUint64(nil, q.Created), id[:]...))
		copy(p.order[:], h[:])
		out = append(out, p)
	}
	return out
}

// chosen reports whether node is among the few peers that answer for x, so that a large group
// does not answer hundredfold: some of those that had joined when the epoch started, and as
// many of those that came later and may have been given it. Where all lost their disks one
// after the other, the former are gone, and their bundles do not tell yet. Each request draws
// the order anew.
func chosen(peers []peer, node wire.NodeID, x *secret) bool {
	i := slices.IndexFunc(peers, func(p peer) bool { return p.node == node })
	if i < 0 {
		return false
	}
	own, before := peers[i], 0
	late := func(p peer) bool { return p.joined > x.start }
	for _, p := range peers {
		if !wire.MatchAny(p.cred.Topics, x.topic) {
			continue
		}
		if late(p) == late(own) && bytes.Compare(p.order[:], own.order[:]) < 0 {
			before++
		}
	}
	return before < sharersOfEach
}

// passedBy reports whether group has read all of the epoch, as far as is known.
func (x *secret) passedBy(group string) bool { return x.pastAt != 0 || x.past[group] }

// MakeShare wraps a task's secret for its recipient. value is the record at the task's
// Source, a grant or a share: the producer's signed header goes on from there. It fails with
// abi.StatusErased where the secret has gone meanwhile.
func (c *Consumer) MakeShare(t ShareTask, value []byte, now time.Time) (Record, error) {
	fail := func(err error) (Record, error) {
		return Record{}, fmt.Errorf("share of kid %x for node %v: %w", t.Kid, t.Recipient, err)
	}
	n := &c.state.node
	x := c.state.secrets[t.Kid]
	if x == nil || x.expired(c, unixMs(now)) {
		return fail(abi.StatusErased)
	}
	if err := n.MayConsume(x.topic, now); err != nil {
		return fail(err)
	}
	proof, err := proofIn(value)
	if err != nil {
		return fail(err)
	}
	if proof.Header.Digest() != x.header {
		return fail(fmt.Errorf("another grant stands at offset %d: %w", t.Source, ErrUnauthentic))
	}
	wrap := wire.Wrap{Node: t.Recipient}
	if err := wrapSecret(&wrap, t.kem, shareInfo(x.header, t.Recipient, t.kemPub, n.ID()), &x.ts); err != nil {
		return fail(err)
	}
	k := &wire.KeyShare{
		Realm: n.Realm(), Proof: proof, Sharer: n.ID(), Credential: n.Credential().Serial,
		Recipient: t.Recipient, Prekey: t.prekey, Topic: x.topic, HPKE: wrap.HPKE,
	}
	k.Signature = sign(&n.seed, wire.TypeKeyShare, k.Realm, k.AppendBody(nil))
	return Record{Partition: GrantPartition(t.Recipient), Key: wire.KeyShareKey(t.Kid, t.Recipient), Value: k.Append(nil)}, nil
}

// proofIn returns what the producer signed of a grant or a share.
func proofIn(value []byte) (wire.GrantProof, error) {
	if t, err := wire.TypeOf(value); err == nil && t == wire.TypeKeyShare {
		k, err := wire.ParseKeyShare(value)
		if err != nil {
			return wire.GrantProof{}, err
		}
		return k.Proof, nil
	}
	g, err := wire.ParseGrant(value)
	if err != nil {
		return wire.GrantProof{}, err
	}
	return g.Proof(), nil
}

// HasPeer reports whether the roster lists another member of one of groups that could share
// a key of topic, up or not: without one there is nobody to ask.
func (c *Consumer) HasPeer(topic string, groups []string, r *Roster, now time.Time) bool {
	at := unixMs(now)
	for id, n := range r.nodes {
		if id == c.state.node.ID() || n.bundle == nil || n.bundle.NotAfter <= at {
			continue
		}
		cred := r.entitled(id, wire.RoleConsume|wire.RoleShare, topic, at)
		if cred != nil && slices.ContainsFunc(groups, func(g string) bool { return wire.MatchAny(cred.Groups, g) }) {
			return true
		}
	}
	return false
}
