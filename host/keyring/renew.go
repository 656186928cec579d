package keyring

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

// Roster is the verified view that an issuer has of its realm's roster. It has no node.
func (i *Issuer) Roster(t Timing) *Roster {
	s := emptyState()
	cert := i.cert
	s.node.adopt(i.root, []*wire.Credential{&cert})
	return NewRoster(s, t)
}

// Certificate is the issuer's own credential. It must not be changed.
func (i *Issuer) Certificate() *wire.Credential { return &i.cert }

// Record is the issuer's certificate for the roster.
func (i *Issuer) Record() Record { return Record{Key: i.cert.Key(), Value: i.cert.Append(nil)} }

// Check reports why what the issuer signs would not count at now.
func (i *Issuer) Check(now time.Time) error {
	if !validAt(&i.cert, unixMs(now), DefaultTiming().Skew) {
		return fmt.Errorf("the issuer's certificate is valid from %s to %s: %w; hint: certify a new issuer with the realm's root key",
			fromMs(i.cert.NotBefore).UTC().Format(time.RFC3339), fromMs(i.cert.NotAfter).UTC().Format(time.RFC3339), abi.StatusNotEntitled)
	}
	return nil
}

// Renew takes a node's request for its next credential and returns what to write: the
// credential, and that of its issuer (PROTOCOL.md §2.12). r is read to its end.
// ErrUnknownCredential: the credential that is renewed is not there yet, and the node asks
// again. An error that wraps ErrFork or ErrOldLineage is an alarm.
func (b *Book) Renew(rand io.Reader, i *Issuer, r *Roster, key, value []byte, now time.Time) ([]Record, error) {
	q, err := wire.ParseRenewal(value)
	if err != nil {
		return nil, err
	}
	fail := func(err error) ([]Record, error) { return nil, fmt.Errorf("renewal of node %v: %w", q.Node, err) }
	switch {
	case !bytes.Equal(key, q.Key()):
		return fail(fmt.Errorf("under another key: %w", wire.ErrMalformed))
	case q.Realm != i.cert.Realm:
		return fail(fmt.Errorf("realm %v: %w", q.Realm, ErrOtherRealm))
	}
	old, node := r.creds[q.Credential], b.nodes[q.Node]
	if old == nil && node != nil && node.credential.Serial == q.Credential {
		old = node.credential
	}
	switch {
	case old == nil:
		return fail(fmt.Errorf("credential %v: %w", q.Credential, ErrUnknownCredential))
	case old.Node != q.Node || old.Roles.Has(wire.RoleIssuer) || old.Subject == q.Subject:
		return fail(fmt.Errorf("credential %v is not one that it can renew: %w", q.Credential, ErrUnauthentic))
	}
	body := q.AppendBody(nil)
	for _, s := range []struct {
		by  wire.PublicKey
		sig *[wire.SignatureSize]byte
	}{{old.Subject, &q.OldKey}, {q.Subject, &q.NewKey}} {
		if err := verify(s.by, wire.TypeRenewal, q.Realm, body, s.sig); err != nil {
			return fail(err)
		}
	}
	at := unixMs(now)
	switch newest := b.newest(r, q.Node); {
	case node != nil && node.forked:
		return fail(fmt.Errorf("it forked, and is revoked: %w", abi.StatusNotEntitled))
	case old.Lineage == newest.Lineage:
		// A narrower credential of the same key replaces a wider one.
		if n := r.nodes[q.Node]; n != nil {
			for _, c := range n.creds {
				if c.Lineage == old.Lineage && c.NotBefore > newest.NotBefore {
					newest = c
				}
			}
		}
		if r.revoked(old.Serial, at) || r.revoked(newest.Serial, at) || r.orphaned(newest, at) {
			return fail(fmt.Errorf("its credential is revoked: %w", abi.StatusNotEntitled))
		}
		if now.After(fromMs(newest.NotAfter).Add(RenewalGrace)) {
			return fail(fmt.Errorf("its credential ended more than %v ago: %w; hint: enrol it again", RenewalGrace, abi.StatusNotEntitled))
		}
		return b.succeed(rand, i, newest, q.Subject, now)
	case old.Lineage+1 == newest.Lineage && newest.Subject == q.Subject:
		return b.again(newest, i, r), nil
	case old.Lineage+1 == newest.Lineage:
		b.fork(newest, i)
		return fail(fmt.Errorf("key %v after key %v: %w; hint: its credentials are revoked; find out which copy of its state file is not yours, and enrol the node again", q.Subject, newest.Subject, ErrFork))
	case b.followed(r, q):
		return nil, nil // what compaction has not removed yet
	default:
		return fail(fmt.Errorf("lineage %d, while %d is the newest: %w; hint: somebody has an old copy of its state file", old.Lineage, newest.Lineage, ErrOldLineage))
	}
}

// orphaned reports whether every certificate of c's issuer is revoked.
func (r *Roster) orphaned(c *wire.Credential, at uint64) bool {
	return c.Issuer != r.state.node.root && !slices.ContainsFunc(r.issuers(c.Issuer), func(i *wire.Credential) bool { return !r.revoked(i.Serial, at) })
}

// newest is the credential of the highest lineage that book or roster know of a node.
func (b *Book) newest(r *Roster, id wire.NodeID) *wire.Credential {
	var best *wire.Credential
	if n := b.nodes[id]; n != nil {
		best = n.credential
	}
	if n := r.nodes[id]; n != nil {
		for _, c := range n.creds {
			if best == nil || c.Lineage > best.Lineage {
				best = c
			}
		}
	}
	return best
}

// followed reports whether the request is one that was granted at its time.
func (b *Book) followed(r *Roster, q *wire.Renewal) bool {
	n := r.nodes[q.Node]
	if n == nil {
		return false
	}
	old := r.creds[q.Credential]
	for _, c := range n.creds {
		if old != nil && c.Lineage == old.Lineage+1 && c.Subject == q.Subject {
			return true
		}
	}
	return false
}

// succeed signs the credential that follows old: its attributes, the next lineage, the next
// key.
func (b *Book) succeed(rand io.Reader, i *Issuer, old *wire.Credential, subject wire.PublicKey, now time.Time) ([]Record, error) {
	validity := old.NotAfter - old.NotBefore
	if n := b.nodes[old.Node]; n != nil {
		validity = max(validity, n.validity)
	}
	v := i.validity(now, fromLength(validity))
	v.DataNotBefore = fromMs(old.DataNotBefore)
	grant := Attributes{old.Roles, old.Topics, old.Groups, time.Duration(old.OfflineAllow) * time.Second}
	c, err := i.certify(rand, old.Node, old.Lineage+1, subject, grant, v)
	if err != nil {
		return nil, fmt.Errorf("renewal of node %v: %w", old.Node, err)
	}
	if len(b.nodes) >= maxIssued && b.nodes[old.Node] == nil {
		return nil, fmt.Errorf("renewal of node %v: more than %d nodes: %w", old.Node, maxIssued, abi.StatusFull)
	}
	b.nodes[old.Node] = &bookNode{validity: validity, credential: c, issuer: &i.cert}
	b.version++
	return chainRecords(c, &i.cert), nil
}

// again is the answer that was given to the same request.
func (b *Book) again(c *wire.Credential, i *Issuer, r *Roster) []Record {
	if n := b.nodes[c.Node]; n != nil && n.credential.Serial == c.Serial {
		return chainRecords(c, n.issuer)
	}
	if issuers := r.issuers(c.Issuer); len(issuers) != 0 {
		return chainRecords(c, issuers[0])
	}
	return chainRecords(c, &i.cert)
}

func chainRecords(c, issuer *wire.Credential) []Record {
	return []Record{{Key: issuer.Key(), Value: issuer.Append(nil)}, {Key: c.Key(), Value: c.Append(nil)}}
}

// fork marks a node that has two successors to one key.
func (b *Book) fork(newest *wire.Credential, i *Issuer) {
	n := b.nodes[newest.Node]
	if n == nil {
		n = &bookNode{validity: newest.NotAfter - newest.NotBefore, credential: newest, issuer: &i.cert}
		b.nodes[newest.Node] = n
	}
	n.forked = true
	b.version++
}

// Forked lists the credentials that are to be revoked because their node forked, and are not
// revoked on r yet.
func (b *Book) Forked(r *Roster, now time.Time) []wire.Revocation {
	var out []wire.Revocation
	at := unixMs(now)
	add := func(c *wire.Credential) {
		if c.NotAfter >= at && !r.revoked(c.Serial, at) {
			out = append(out, wire.Revocation{Serial: c.Serial, At: at})
		}
	}
	for id, n := range b.nodes {
		if !n.forked {
			continue
		}
		known := false
		if on := r.nodes[id]; on != nil {
			for _, c := range on.creds {
				add(c)
				known = known || c.Serial == n.credential.Serial
			}
		}
		if !known {
			add(n.credential)
		}
	}
	return out
}
