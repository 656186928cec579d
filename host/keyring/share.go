package keyring

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"slices"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

// shareInfo binds a share to the header, its recipient and his key, and its sharer
// (PROTOCOL.md §2.6).
func shareInfo(header wire.Digest, recipient wire.NodeID, kemPub []byte, sharer wire.NodeID) []byte {
	pub := sha256.Sum256(kemPub)
	b := append([]byte("KX1 share v1\x00"), header[:]...)
	b = append(b, recipient[:]...)
	b = append(b, pub[:]...)
	return append(b, sharer[:]...)
}

// EpochRequest asks the members of group for the topic secrets of kids, 1 to
// wire.MaxRequested of them in any order (PROTOCOL.md §2.10). The record is for the roster,
// at most one each second; they answer to the newest bundle that they have read.
func (c *Consumer) EpochRequest(group string, kids []abi.Kid, now time.Time) (Record, error) {
	n := &c.state.node
	if err := n.Check(now); err != nil {
		return Record{}, fmt.Errorf("epoch request: %w", err)
	}
	if !n.HasRole(wire.RoleConsume) || !n.AllowsGroup(group) {
		return Record{}, fmt.Errorf("epoch request: the credential lacks role %v or group %s: %w", wire.RoleConsume, group, abi.StatusNotEntitled)
	}
	q := &wire.EpochRequest{Realm: n.Realm(), Node: n.ID(), Credential: n.Credential().Serial, Group: group, Created: unixMs(now)}
	for _, kid := range kids {
		q.Kids = append(q.Kids, kid)
	}
	slices.SortFunc(q.Kids, func(a, b [wire.KidSize]byte) int { return bytes.Compare(a[:], b[:]) })
	q.Kids = slices.Compact(q.Kids)
	if len(q.Kids) == 0 || len(q.Kids) > wire.MaxRequested {
		return Record{}, fmt.Errorf("epoch request: %d kids, want 1 to %d", len(q.Kids), wire.MaxRequested)
	}
	q.Signature = sign(&n.seed, wire.TypeEpochRequest, q.Realm, q.AppendBody(nil))
	return Record{Key: q.Key(), Value: q.Append(nil)}, nil
}

// ApplyShare verifies a KeyShare of the own partition of GrantsTopic, at offset, and keeps
// the topic secret that it brings, as ApplyGrant does with a grant's. One for another node is
// passed over without an error, and so is a kid that is held, was erased or is too old. The
// producer's signed commitment decides: a sharer can withhold, not substitute.
func (c *Consumer) ApplyShare(partition int32, offset int64, key, value []byte, r *Roster, now time.Time) (kids []abi.Kid, err error) {
	if value == nil {
		return nil, nil // nothing signed, nothing to do
	}
	k, err := wire.ParseKeyShare(value)
	if err != nil {
		return nil, fmt.Errorf("grants: %w", err)
	}
	kid := KidOf(k.Commit())
	if !bytes.Equal(key, wire.KeyShareKey(kid, k.Recipient)) || partition != GrantPartition(k.Recipient) {
		return nil, fmt.Errorf("grants: a share in another's place: %w", wire.ErrMalformed)
	}
	if k.Recipient != c.state.node.ID() {
		return nil, nil
	}
	kept, err := c.openShare(k, kid, offset, r, now)
	if err != nil {
		return nil, fmt.Errorf("grants: share of kid %x by node %v: %w", kid, k.Sharer, err)
	}
	if !kept {
		return nil, nil
	}
	return []abi.Kid{kid}, nil
}

func (c *Consumer) openShare(k *wire.KeyShare, kid abi.Kid, offset int64, r *Roster, now time.Time) (kept bool, err error) {
	if k.Realm != c.state.node.Realm() {
		return false, ErrOtherRealm
	}
	h := &k.Proof.Header
	digest := h.Digest()
	if !c.wanted(h, digest, &wire.GrantTopic{Name: k.Topic, Commit: k.Commit()}, now) {
		return false, nil
	}
	if err := r.verifySharer(k, now); err != nil {
		return false, err
	}
	if err := c.verifyProof(&k.Proof, r, now); err != nil {
		return false, err
	}
	i := slices.IndexFunc(c.state.prekeys, func(p *prekey) bool { return p.id == k.Prekey })
	if i < 0 {
		return false, fmt.Errorf("wrapped for prekey %v, which is gone: %w", k.Prekey, abi.StatusErased)
	}
	p := c.state.prekeys[i]
	x := &secret{
		kid: kid, realm: h.Realm, producer: h.Producer, instance: h.Instance, epoch: h.Epoch,
		start: h.Start, useBy: h.UseBy, header: digest, source: offset, topic: k.Topic, firstSeen: unixMs(now),
	}
	defer func() {
		if !kept {
			clear(x.ts[:])
		}
	}()
	if err := unwrapSecret(&x.ts, &p.seed, shareInfo(digest, k.Recipient, p.pub, k.Sharer), k.HPKE[:]); err != nil {
		return false, err
	}
	commit, err := deriveCommit(&x.ts, x.context())
	if err != nil {
		return false, err
	}
	if want := k.Commit(); subtle.ConstantTimeCompare(commit[:], want[:]) != 1 {
		return false, fmt.Errorf("topic %s: the secret is not the one that the producer committed to: %w: %w", x.topic, ErrConflict, ErrUnauthentic)
	}
	if err := c.keep(x); err != nil {
		return false, err
	}
	if c.shared == 0 {
		c.shared = unixMs(now)
	}
	return true, nil
}

// verifySharer checks that a share was signed by a node that may share its topic now.
func (r *Roster) verifySharer(k *wire.KeyShare, now time.Time) error {
	at := unixMs(now)
	cred := r.creds[k.Credential]
	if cred == nil {
		return ErrUnknownCredential
	}
	if cred.Node != k.Sharer {
		return fmt.Errorf("it names a credential of another node: %w", ErrUnauthentic)
	}
	if err := verify(cred.Subject, wire.TypeKeyShare, k.Realm, k.AppendBody(nil), &k.Signature); err != nil {
		return err
	}
	newest := r.entitled(k.Sharer, wire.RoleConsume|wire.RoleShare, k.Topic, at)
	if newest == nil || !r.valid(cred, at) {
		return fmt.Errorf("its credential does not allow it to share topic %s now: %w", k.Topic, abi.StatusNotEntitled)
	}
	return nil
}

// entitled returns a node's newest credential if that is valid at some time and carries
// roles for topic.
func (r *Roster) entitled(node wire.NodeID, roles wire.Roles, topic string, at uint64) *wire.Credential {
	n := r.nodes[node]
	if n == nil {
		return nil
	}
	c := n.newest(at, r.timing.Skew)
	if c == nil || !r.valid(c, at) || !c.Roles.Has(roles) || !wire.MatchAny(c.Topics, topic) {
		return nil
	}
	return c
}
