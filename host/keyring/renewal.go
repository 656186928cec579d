package keyring

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

// RenewalGrace is how long after its end a credential may still be renewed (PROTOCOL.md
// §2.12).
const RenewalGrace = 30 * 24 * time.Hour

// RenewAt is when the node asks for its next credential: at 2/3 of the present one's validity,
// up to 10 % of it earlier or later. Each node has its own moment, so that nodes that were
// enrolled together do not ask together. Zero before enrolment.
func (n *Node) RenewAt() time.Time {
	c := n.Credential()
	if c == nil {
		return time.Time{}
	}
	id := n.ID()
	d := sha256.Sum256(append([]byte("KX1 renewal jitter\x00"), id[:]...))
	valid := c.NotAfter - c.NotBefore
	jitter := binary.BigEndian.Uint64(d[:8]) % (valid/5 + 1) // 0 to 20 %
	return fromMs(c.NotBefore + valid/3*2 - valid/10 + jitter)
}

// Renewable reports whether an issuer may renew the credential at now: from its beginning
// until 30 days after its end.
func (n *Node) Renewable(now time.Time) bool {
	c := n.Credential()
	return c != nil && !now.Before(fromMs(c.NotBefore).Add(-DefaultTiming().Skew)) && !now.After(fromMs(c.NotAfter).Add(RenewalGrace))
}

// Renew is the record that asks for the next credential. The first call draws the next key:
// the state must reach the disk before the record is written, and every later call returns
// the same record, until the credential is there (PROTOCOL.md §2.12).
func (s *State) Renew(rand io.Reader) (Record, error) {
	n := &s.node
	if n.chain == nil {
		return Record{}, fmt.Errorf("renewal: %w", n.Check(time.Time{}))
	}
	if s.renewal == nil {
		r := &renewal{}
		if err := readAll(rand, r.seed[:]); err != nil {
			return Record{}, fmt.Errorf("renewal: next identity key: %w", err)
		}
		r.request = wire.Renewal{Realm: n.Realm(), Node: n.ID(), Credential: n.chain[0].Serial, Subject: publicOf(&r.seed)}
		body := r.request.AppendBody(nil)
		r.request.OldKey = sign(&n.seed, wire.TypeRenewal, n.Realm(), body)
		r.request.NewKey = sign(&r.seed, wire.TypeRenewal, n.Realm(), body)
		s.renewal = r
		s.version++
	}
	return Record{Key: s.renewal.request.Key(), Value: s.renewal.request.Append(nil)}, nil
}

// Renewing reports whether a request for the next credential is under way.
func (s *State) Renewing() bool { return s.renewal != nil }

// AdoptRenewal takes the next credential, if r has it: the one of the next lineage for the key
// that Renew drew. The old key is wiped. What is signed from now on is signed under the new
// credential, so a consumer makes a new prekey at once.
func (s *State) AdoptRenewal(r *Roster, now time.Time) bool {
	n := &s.node
	if s.renewal == nil || n.chain == nil || r.nodes[n.ID()] == nil {
		return false
	}
	for _, c := range r.nodes[n.ID()].creds {
		if c.Subject != s.renewal.request.Subject || c.Lineage != n.chain[0].Lineage+1 || r.revoked(c.Serial, unixMs(now)) {
			continue
		}
		// It counts even if it has ended by now: the next request is made under it.
		chain := []*wire.Credential{c}
		if c.Issuer != n.root {
			for _, i := range r.issuers(c.Issuer) {
				if len(chain) == 1 || i.NotAfter > chain[1].NotAfter {
					chain = append(chain[:1], i)
				}
			}
		}
		n.seed = s.renewal.seed
		n.chain = chain
		clear(s.renewal.seed[:])
		s.renewal = nil
		s.version++
		return true
	}
	return false
}
