package keyring

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

// StateValidity is S: for how long an AuthorityState is good by default (PROTOCOL.md §2.17).
const StateValidity = time.Hour

// NextState signs the state that follows prev, which is nil for the realm's first, good for
// fresh. What was revoked stays revoked, from the earlier time where revoke names it again.
// The agent writes it to the roster, and asks again where another one stands there by then.
func (i *Issuer) NextState(prev *wire.AuthorityState, revoke []wire.Revocation, now time.Time, fresh time.Duration) (*wire.AuthorityState, error) {
	a, err := nextState(i.cert.Realm, prev, revoke, now, fresh)
	if err != nil {
		return nil, err
	}
	switch _, revoked := revokedAt(a.Revoked, i.cert.Serial); {
	case revoked:
		return nil, fmt.Errorf("authority state: it revokes its own issuer's certificate: %w; hint: sign with the root key", abi.StatusNotEntitled)
	case !validAt(&i.cert, a.Issued, 0):
		return nil, fmt.Errorf("authority state: the issuer's certificate is not valid now: %w", abi.StatusNotEntitled)
	}
	signState(a, &i.seed)
	return a, nil
}

// NextState is the issuer's, signed by the root: it alone can outlive every issuer, and
// revoke them all.
func (r *Root) NextState(prev *wire.AuthorityState, revoke []wire.Revocation, now time.Time, fresh time.Duration) (*wire.AuthorityState, error) {
	a, err := nextState(r.Realm(), prev, revoke, now, fresh)
	if err != nil {
		return nil, err
	}
	signState(a, &r.seed)
	return a, nil
}

func signState(a *wire.AuthorityState, seed *secretKey) {
	a.Issuer = publicOf(seed)
	a.Signature = sign(seed, wire.TypeAuthorityState, a.Realm, a.AppendBody(nil))
}

// nextState is what both sign.
func nextState(realm wire.RealmID, prev *wire.AuthorityState, revoke []wire.Revocation, now time.Time, fresh time.Duration) (*wire.AuthorityState, error) {
	fail := func(err error) (*wire.AuthorityState, error) { return nil, fmt.Errorf("authority state: %w", err) }
	if fresh < time.Millisecond {
		return fail(fmt.Errorf("good for %v, want at least 1ms", fresh))
	}
	a := &wire.AuthorityState{Realm: realm, Seq: 1, Issued: unixMs(now)}
	if prev != nil {
		if prev.Realm != realm {
			return fail(fmt.Errorf("its predecessor is of realm %v, not %v: %w", prev.Realm, realm, ErrOtherRealm))
		}
		// An issuer's clock may be behind the one before it.
		a.Seq, a.Prev, a.Issued = prev.Seq+1, prev.Digest(), max(a.Issued, prev.Issued, prev.Seq+1)
		a.Revoked = slices.Clone(prev.Revoked)
	}
	a.NextUpdate = a.Issued + ms(fresh)
	for _, r := range revoke {
		i, found := slices.BinarySearchFunc(a.Revoked, r.Serial, compareRevocation)
		switch {
		case r.At > a.Issued:
			return fail(fmt.Errorf("credential %v: revoked at %s, which is still to come", r.Serial, fromMs(r.At).UTC().Format(time.RFC3339)))
		case found:
			a.Revoked[i].At = min(a.Revoked[i].At, r.At)
		default:
			a.Revoked = slices.Insert(a.Revoked, i, r)
		}
	}
	if len(a.Revoked) > wire.MaxRevoked {
		return fail(fmt.Errorf("%d revocations, at most %d: %w; hint: enrol the nodes that remain in a new realm", len(a.Revoked), wire.MaxRevoked, abi.StatusFull))
	}
	return a, nil
}

func compareRevocation(r wire.Revocation, s wire.Serial) int { return bytes.Compare(r.Serial[:], s[:]) }

// revokedAt looks a serial up in a state's list.
func revokedAt(list []wire.Revocation, s wire.Serial) (at uint64, ok bool) {
	if i, found := slices.BinarySearchFunc(list, s, compareRevocation); found {
		return list[i].At, true
	}
	return 0, false
}

// maxIssuersWaiting bounds the issuers whose states wait for a certificate: half a megabyte
// each at most.
const maxIssuersWaiting = 8

// maxStatesSeen bounds the AuthorityStates that grants are compared with: more than a day
// of them, at the default validity.
const maxStatesSeen = 64

// A stateSeen is an AuthorityState that held. Who still goes by an older one after its
// next_update was kept from it.
type stateSeen struct {
	seq        uint64
	nextUpdate uint64 // Unix ms
}

// applyAuthority takes an AuthorityState (PROTOCOL.md §2.6, §2.14). One that is older than
// the highest seen counts all the same while nothing newer is there: what it revokes is
// revoked, and ErrRollback says that something is missing.
func (r *Roster) applyAuthority(key, value []byte, now time.Time) error {
	a, err := wire.ParseAuthorityState(value)
	if err != nil {
		return fmt.Errorf("roster: %w", err)
	}
	n := &r.state.node
	fail := func(text string, err error) error {
		return fmt.Errorf("roster: authority state %d: %s: %w", a.Seq, text, err)
	}
	switch {
	case !bytes.Equal(key, a.Key()):
		return fail("under another key", wire.ErrMalformed)
	case n.chain == nil:
		return fail("this node belongs to no realm yet", abi.StatusNotEntitled)
	case a.Realm != n.Realm():
		return fail("of realm "+a.Realm.String(), ErrOtherRealm)
	case a.Issued > r.latest(now):
		return fail("comes from the future; hint: compare the clocks", abi.StatusClockSkew)
	}
	digest := a.Digest()
	if r.authority != nil && digest == r.authority.Digest() {
		return nil
	}
	certs := r.issuers(a.Issuer)
	if a.Issuer != n.root && len(certs) == 0 {
		return r.waitState(a.Issuer, value)
	}
	if err := verify(a.Issuer, wire.TypeAuthorityState, a.Realm, a.AppendBody(nil), &a.Signature); err != nil {
		return fmt.Errorf("roster: authority state %d: %w", a.Seq, err)
	}
	// An issuer that is revoked by the state before, or by this one, has no say.
	if a.Issuer != n.root && !slices.ContainsFunc(certs, func(c *wire.Credential) bool {
		at, revoked := revokedAt(a.Revoked, c.Serial)
		return r.valid(c, a.Issued) && (!revoked || at > a.Issued)
	}) {
		return fail("its issuer had no valid certificate", abi.StatusNotEntitled)
	}
	mark := &r.state.authority
	switch held := r.authority; {
	case a.Seq == mark.seq && digest != mark.digest, held != nil && a.Seq == held.Seq:
		return fail("another one has this number; the first counts", ErrConflict)
	case held != nil && a.Seq < held.Seq:
		return fail(fmt.Sprintf("after %d", held.Seq), ErrRollback)
	case held != nil && a.Issued < held.Issued:
		return fail("issued before its predecessor", ErrConflict)
	}
	older, forked := a.Seq < mark.seq, a.Seq == mark.seq+1 && mark.seq != 0 && a.Prev != mark.digest
	r.authority = a
	n.revoked = a.Revoked
	r.seen = append(r.seen, stateSeen{a.Seq, a.NextUpdate})
	r.seen = r.seen[max(0, len(r.seen)-maxStatesSeen):]
	if a.Seq > mark.seq {
		*mark = authorityMark{a.Seq, digest}
		r.state.version++
	}
	switch {
	case older:
		return fail(fmt.Sprintf("%d was seen before", mark.seq), ErrRollback)
	case forked:
		return fail("it follows another state than the one that was here; it counts", ErrConflict)
	}
	return nil
}

// waitState holds a state back until its issuer's certificate is known, the highest of each
// issuer.
func (r *Roster) waitState(issuer wire.PublicKey, value []byte) error {
	if old := r.states[issuer]; old != nil {
		if o, err := wire.ParseAuthorityState(old); err == nil {
			if a, err := wire.ParseAuthorityState(value); err != nil || a.Seq <= o.Seq {
				return nil
			}
		}
	} else if len(r.states) >= maxIssuersWaiting {
		return fmt.Errorf("roster: %v: %w", wire.TypeAuthorityState, ErrUnknownCredential)
	}
	r.states[issuer] = bytes.Clone(value)
	return nil
}

// releaseState applies what waited for an issuer's certificate.
func (r *Roster) releaseState(issuer wire.PublicKey, now time.Time) error {
	value := r.states[issuer]
	if value == nil {
		return nil
	}
	delete(r.states, issuer)
	a := wire.AuthorityState{Realm: r.state.node.Realm()}
	return r.applyAuthority(a.Key(), value, now)
}

// Authority is the AuthorityState that holds, nil before the first. It must not be changed.
func (r *Roster) Authority() *wire.AuthorityState { return r.authority }

// authoritySeq is the seq of the state that holds, 0 for none.
func (r *Roster) authoritySeq() uint64 {
	if r.authority == nil {
		return 0
	}
	return r.authority.Seq
}

// revoked reports whether a credential no longer counts for what happens at some time.
func (r *Roster) revoked(s wire.Serial, at uint64) bool {
	if r.authority == nil {
		return false
	}
	from, ok := revokedAt(r.authority.Revoked, s)
	return ok && at >= from
}

// RolledBack reports whether the roster, once it was read to its end, offers less than what
// was seen of the realm's authority before, by this process or an earlier one.
func (r *Roster) RolledBack() bool { return r.authoritySeq() < r.state.authority.seq }

// CheckFresh returns nil while the realm's newest AuthorityState is known and its
// next_update is ahead (PROTOCOL.md §2.14). Its error wraps abi.StatusUnavailable.
func (r *Roster) CheckFresh(now time.Time) error {
	var why string
	switch a := r.authority; {
	case r.RolledBack():
		why = fmt.Sprintf("the roster offers authority state %d, but %d was seen before", r.authoritySeq(), r.state.authority.seq)
	case a == nil:
		why = "the roster has no authority state"
	case unixMs(now) >= a.NextUpdate:
		why = fmt.Sprintf("authority state %d was to be renewed by %s", a.Seq, fromMs(a.NextUpdate).UTC().Format(time.RFC3339))
	default:
		return nil
	}
	return fmt.Errorf("who is revoked is not known: %s: %w; hint: is `wasm-e2ee issuer` running? If it is, somebody holds its records back", why, abi.StatusUnavailable)
}
