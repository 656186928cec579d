package keyring

import (
	"bytes"
	"cmp"
	"crypto/hpke"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

// Records that wait for their signer's credential: compaction may leave it behind them.
const (
	maxWaiting     = 4096    // records
	maxWaitingSize = 8 << 10 // bytes of one
)

// maxNodes and maxCredentials bound what a realm's members can make this process hold.
const (
	maxNodes       = 1 << 16
	maxCredentials = 1 << 17
)

// A mark is the highest (lineage, generation) seen of a node's bundles. It is part of the
// State, so that a broker cannot roll a roster back across a restart.
type mark struct {
	lineage    uint32
	generation uint64
}

func (m mark) compare(o mark) int {
	return cmp.Or(cmp.Compare(m.lineage, o.lineage), cmp.Compare(m.generation, o.generation))
}

// A Roster is the verified view of the roster topic (PROTOCOL.md §2.6, §2.7.2).
type Roster struct {
	state   *State
	timing  Timing
	creds   map[wire.Serial]*wire.Credential
	nodes   map[wire.NodeID]*rosterNode
	waiting map[string]waitingRecord

	authority *wire.AuthorityState      // that holds, nil before the first
	states    map[wire.PublicKey][]byte // that wait for an issuer's certificate, by its key
	seen      []stateSeen               // the last states that held, for comparing grants with
}

type rosterNode struct {
	creds  []*wire.Credential // every verified one of the node
	bundle *wire.PrekeyBundle
	prekey wire.PrekeyID
	kem    hpke.PublicKey
}

type waitingRecord struct {
	value  []byte
	serial wire.Serial    // of the credential that a bundle waits for
	issuer wire.PublicKey // that a credential waits for
}

// NewRoster returns a view that knows the chain of the state's own credential and its
// high-water marks. The agent then reads the topic from its start.
func NewRoster(s *State, t Timing) *Roster {
	r := &Roster{
		state:   s,
		timing:  t,
		creds:   map[wire.Serial]*wire.Credential{},
		nodes:   map[wire.NodeID]*rosterNode{},
		waiting: map[string]waitingRecord{},
		states:  map[wire.PublicKey][]byte{},
	}
	// The chain was verified when it was installed or parsed.
	for _, c := range s.node.chain {
		r.keep(c)
	}
	return r
}

// Apply verifies one record and keeps it. A nil value is a tombstone; it carries no
// signature, so it only removes what has expired anyway. A record whose signer is not
// known yet is held back, without an error, until the signer's credential arrives. On an
// error the view is as it was, except where ErrRollback or ErrConflict is about an
// AuthorityState that counts all the same; the agent logs it and goes on.
func (r *Roster) Apply(key, value []byte, now time.Time) error {
	if len(key) == 0 {
		return fmt.Errorf("roster: a record without key: %w", wire.ErrMalformed)
	}
	if value == nil {
		r.tombstone(key, now)
		return nil
	}
	switch wire.Type(key[0]) {
	case wire.TypeCredential:
		return r.applyCredential(key, value, now)
	case wire.TypeAuthorityState:
		return r.applyAuthority(key, value, now)
	case wire.TypePrekeyBundle:
		return r.applyBundle(key, value, now)
	case wire.TypeEpochRequest:
		return nil // Consumer.Share answers it
	case wire.TypeEnrolment, wire.TypeRenewal:
		return nil // Book answers them
	}
	return fmt.Errorf("roster: %v: %w", wire.Type(key[0]), wire.ErrMalformed)
}

func (r *Roster) applyCredential(key, value []byte, now time.Time) error {
	c, err := wire.ParseCredential(value)
	if err != nil {
		return fmt.Errorf("roster: %w", err)
	}
	if !bytes.Equal(key, c.Key()) {
		return fmt.Errorf("roster: credential %v under another key: %w", c.Serial, wire.ErrMalformed)
	}
	if known := r.creds[c.Serial]; known != nil {
		if !bytes.Equal(known.Append(nil), value) {
			return fmt.Errorf("roster: another credential with serial %v: %w", c.Serial, ErrUnauthentic)
		}
		return nil
	}
	if r.state.node.chain == nil {
		return fmt.Errorf("roster: this node belongs to no realm yet: %w", abi.StatusNotEntitled)
	}
	var issuer *wire.Credential
	if c.Issuer != r.state.node.root {
		certs := r.issuers(c.Issuer)
		if len(certs) == 0 {
			return r.wait(key, waitingRecord{value: value, issuer: c.Issuer})
		}
		issuer = certs[0]
	}
	if err := verifyIssued(r.state.node.root, issuer, c); err != nil {
		return fmt.Errorf("roster: %w", err)
	}
	if n := r.nodes[c.Node]; n != nil {
		for _, other := range n.creds {
			if other.Lineage == c.Lineage && other.Subject != c.Subject {
				return fmt.Errorf("roster: node %v has two identity keys in lineage %d; the first counts: %w", c.Node, c.Lineage, ErrUnauthentic)
			}
		}
	}
	if len(r.creds) >= maxCredentials || len(r.nodes) >= maxNodes {
		return fmt.Errorf("roster: more than %d credentials: %w", maxCredentials, abi.StatusFull)
	}
	r.keep(c)
	return r.release(c, now)
}

// issuers returns the verified certificates of an issuer's key: a root may renew them.
func (r *Roster) issuers(key wire.PublicKey) []*wire.Credential {
	n := r.nodes[wire.NodeIDOf(key)]
	if n == nil {
		return nil
	}
	var out []*wire.Credential
	for _, c := range n.creds {
		if c.Subject == key && c.Roles.Has(wire.RoleIssuer) {
			out = append(out, c)
		}
	}
	return out
}

// valid reports whether a verified credential and its issuer's certificate are valid at
// some time, and neither was revoked by then.
func (r *Roster) valid(c *wire.Credential, at uint64) bool {
	if !validAt(c, at, r.timing.Skew) || r.revoked(c.Serial, at) {
		return false
	}
	return c.Issuer == r.state.node.root || slices.ContainsFunc(r.issuers(c.Issuer), func(i *wire.Credential) bool {
		return r.valid(i, at)
	})
}

func (r *Roster) keep(c *wire.Credential) {
	r.creds[c.Serial] = c
	n := r.nodes[c.Node]
	if n == nil {
		n = &rosterNode{}
		r.nodes[c.Node] = n
	}
	n.creds = append(n.creds, c)
}

// wait holds a record back until its signer is known.
func (r *Roster) wait(key []byte, w waitingRecord) error {
	if _, ok := r.waiting[string(key)]; !ok && len(r.waiting) >= maxWaiting || len(w.value) > maxWaitingSize {
		return fmt.Errorf("roster: %v: %w", wire.Type(key[0]), ErrUnknownCredential)
	}
	w.value = bytes.Clone(w.value)
	r.waiting[string(key)] = w
	return nil
}

// release applies what waited for c.
func (r *Roster) release(c *wire.Credential, now time.Time) error {
	var errs []error
	for key, w := range r.waiting {
		if w.serial == c.Serial || c.Roles.Has(wire.RoleIssuer) && w.issuer == c.Subject {
			delete(r.waiting, key)
			errs = append(errs, r.Apply([]byte(key), w.value, now))
		}
	}
	if c.Roles.Has(wire.RoleIssuer) {
		errs = append(errs, r.releaseState(c.Subject, now))
	}
	return errors.Join(errs...)
}

// latest is the time from which on a record of the roster comes from the future. Two nodes that
// are within the skew of the broker's clock are up to twice that apart.
func (r *Roster) latest(now time.Time) uint64 { return unixMs(now.Add(2 * r.timing.Skew)) }

func (r *Roster) applyBundle(key, value []byte, now time.Time) error {
	b, err := wire.ParsePrekeyBundle(value)
	if err != nil {
		return fmt.Errorf("roster: %w", err)
	}
	if !bytes.Equal(key, b.Key()) {
		return fmt.Errorf("roster: bundle of node %v under another key: %w", b.Node, wire.ErrMalformed)
	}
	c := r.creds[b.Credential]
	if c == nil {
		return r.wait(key, waitingRecord{value: value, serial: b.Credential})
	}
	if c.Node != b.Node || c.Realm != b.Realm {
		return fmt.Errorf("roster: bundle of node %v names a credential of another: %w", b.Node, ErrUnauthentic)
	}
	if err := verify(c.Subject, wire.TypePrekeyBundle, b.Realm, b.AppendBody(nil), &b.Signature); err != nil {
		return fmt.Errorf("roster: node %v: %w", b.Node, err)
	}
	latest := r.latest(now)
	switch {
	case b.Generation > latest || b.Created > latest:
		return fmt.Errorf("roster: bundle of node %v comes from the future; hint: compare the clocks: %w", b.Node, abi.StatusClockSkew)
	case !r.valid(c, b.Created):
		return fmt.Errorf("roster: bundle of node %v was made outside its credential's validity: %w", b.Node, abi.StatusNotEntitled)
	case b.NotAfter-b.Created > uint64(c.OfflineAllow)*1000:
		return fmt.Errorf("roster: bundle of node %v is good for longer than its credential allows: %w", b.Node, abi.StatusNotEntitled)
	}
	n := r.nodes[b.Node]
	pos := mark{c.Lineage, b.Generation}
	switch seen := r.state.marks[b.Node]; pos.compare(seen) {
	case -1:
		return fmt.Errorf("roster: bundle of node %v: generation %d: %w", b.Node, b.Generation, ErrRollback)
	case 0:
		if n.bundle != nil {
			if n.bundle.KEMPub != b.KEMPub || n.bundle.NotAfter != b.NotAfter {
				return fmt.Errorf("roster: node %v signed two bundles of generation %d; the first counts: %w", b.Node, b.Generation, ErrDuplicateNode)
			}
			return nil
		}
	}
	kem, err := usableKEM(b.KEMPub[:])
	if err != nil {
		return fmt.Errorf("roster: bundle of node %v: %w", b.Node, err)
	}
	n.bundle, n.kem, n.prekey = b, kem, wire.PrekeyIDOf(b.KEMPub[:])
	if r.state.marks[b.Node] != pos {
		r.state.marks[b.Node] = pos
		r.state.version++
	}
	return nil
}

// tombstone forgets a credential after its data may no longer exist, and with its last
// credential the node.
func (r *Roster) tombstone(key []byte, now time.Time) {
	delete(r.waiting, string(key))
	if wire.Type(key[0]) != wire.TypeCredential || len(key) != 1+16+16 {
		return
	}
	c := r.creds[wire.Serial(key[17:])]
	if c == nil || !bytes.Equal(c.Key(), key) || !now.After(fromMs(c.NotAfter).Add(r.timing.HardCap)) {
		return
	}
	delete(r.creds, c.Serial)
	n := r.nodes[c.Node]
	n.creds = slices.DeleteFunc(n.creds, func(o *wire.Credential) bool { return o == c })
	if len(n.creds) == 0 {
		delete(r.nodes, c.Node)
		delete(r.state.marks, c.Node)
		r.state.version++
	}
}

// newest is the credential that counts: the highest lineage whose validity has begun, and
// within it the one issued last, so that a narrower one replaces a wider.
func (n *rosterNode) newest(at uint64, skew time.Duration) *wire.Credential {
	var best *wire.Credential
	for _, c := range n.creds {
		if c.NotBefore > at+uint64(skew.Milliseconds()) {
			continue
		}
		if best == nil || cmp.Or(
			cmp.Compare(c.Lineage, best.Lineage),
			cmp.Compare(c.NotBefore, best.NotBefore),
			bytes.Compare(c.Serial[:], best.Serial[:])) > 0 {
			best = c
		}
	}
	return best
}

// A Recipient is a consumer that a grant is wrapped for.
type Recipient struct {
	Node   wire.NodeID
	Prekey wire.PrekeyID
	bundle *wire.PrekeyBundle
	kem    hpke.PublicKey
}

// present is the time for which entitlements are judged: this node's clock may be behind, and
// whom the authority's state revokes is revoked from when it is read.
func (r *Roster) present(now time.Time) uint64 {
	if r.authority == nil {
		return unixMs(now)
	}
	return max(unixMs(now), r.authority.Issued)
}

// Recipients returns, in order of node id, who is entitled to topic at now and has a
// bundle (PROTOCOL.md §2.7.2). The error wraps abi.StatusNoRecipient and says whether
// nobody is there, or which of groups has no recipient.
func (r *Roster) Recipients(topic string, groups []string, now time.Time) ([]Recipient, error) {
	at := r.present(now)
	var out []Recipient
	missing := slices.Clone(groups)
	for id, n := range r.nodes {
		c := r.mayRead(n, topic, at)
		if c == nil || !r.reachable(n, topic, at) {
			continue
		}
		out = append(out, Recipient{Node: id, Prekey: n.prekey, bundle: n.bundle, kem: n.kem})
		missing = slices.DeleteFunc(missing, func(g string) bool { return wire.MatchAny(c.Groups, g) })
	}
	switch {
	case len(out) == 0:
		return nil, fmt.Errorf("topic %s: no consumer with a valid credential has published a prekey: %w; hint: start a consumer's sidecar once, and compare the realm and topic patterns", topic, abi.StatusNoRecipient)
	case len(missing) != 0:
		return nil, fmt.Errorf("topic %s: required group %s has no consumer with a prekey: %w", topic, missing[0], abi.StatusNoRecipient)
	}
	slices.SortFunc(out, compareRecipients)
	return out, nil
}

// mayRead returns the credential by which a node reads what is sealed for topic at some
// time, or nil.
func (r *Roster) mayRead(n *rosterNode, topic string, at uint64) *wire.Credential {
	c := n.newest(at, r.timing.Skew)
	if c == nil || !r.valid(c, at) || !c.Roles.Has(wire.RoleConsume) || !wire.MatchAny(c.Topics, topic) || c.DataNotBefore > at {
		return nil
	}
	return c
}

// reachable reports whether a node has a prekey to wrap to. One that it published under an
// older credential counts until it publishes under the newer, unless that one is revoked.
func (r *Roster) reachable(n *rosterNode, topic string, at uint64) bool {
	b := n.bundle
	return b != nil && b.NotAfter > at && !r.revoked(b.Credential, at) && (len(b.Interest) == 0 || wire.MatchAny(b.Interest, topic))
}

// digestRecipients is roster_digest (PROTOCOL.md §2.6).
func digestRecipients(rs []Recipient) wire.Digest {
	b := make([]byte, 0, len(rs)*(16+8))
	for _, r := range rs {
		b = append(b, r.Node[:]...)
		b = append(b, r.Prekey[:]...)
	}
	return sha256.Sum256(b)
}

// Credentials lists the verified credentials, for showing them, by node.
func (r *Roster) Credentials() []*wire.Credential {
	var out []*wire.Credential
	for _, c := range r.creds {
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b *wire.Credential) int { return bytes.Compare(a.Key(), b.Key()) })
	return out
}

// Bundles lists the accepted bundles, for showing them, by node.
func (r *Roster) Bundles() []*wire.PrekeyBundle {
	var out []*wire.PrekeyBundle
	for _, n := range r.nodes {
		if n.bundle != nil {
			out = append(out, n.bundle)
		}
	}
	slices.SortFunc(out, func(a, b *wire.PrekeyBundle) int { return bytes.Compare(a.Node[:], b.Node[:]) })
	return out
}
