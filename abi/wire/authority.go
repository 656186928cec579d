package wire

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
)

// MaxRevoked bounds the revocations in one AuthorityState (PROTOCOL.md §2.6).
const MaxRevoked = 16_384

// A Revocation ends a credential before its not_after.
//
//	16b: serial
//	 8b: revoked_at, Unix ms
type Revocation struct {
	Serial Serial
	At     uint64
}

const revocationSize = 16 + 8

// An AuthorityState is an issuer's word on which credentials no longer count. The highest
// seq of the realm is the one that holds.
//
//	19b: PRE
//	 8b: seq, grows by one; at most issued
//	 8b: issued, Unix ms
//	 8b: next_update, Unix ms: issued + S
//	32b: prev_digest: SHA-256 of the previous body, zeros for the first
//	    revoked: a count u16 (at most 16,384), then each, strictly by serial
//	32b: issuer_pub, Ed25519
//	64b: signature by the issuer
type AuthorityState struct {
	Realm      RealmID
	Seq        uint64
	Issued     uint64
	NextUpdate uint64
	Prev       Digest
	Revoked    []Revocation
	Issuer     PublicKey
	Signature  [SignatureSize]byte
}

// AppendBody appends what the signature covers.
func (a *AuthorityState) AppendBody(b []byte) []byte {
	b = appendPre(b, TypeAuthorityState, a.Realm)
	b = binary.BigEndian.AppendUint64(b, a.Seq)
	b = binary.BigEndian.AppendUint64(b, a.Issued)
	b = binary.BigEndian.AppendUint64(b, a.NextUpdate)
	b = append(b, a.Prev[:]...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(a.Revoked)))
	for _, r := range a.Revoked {
		b = append(b, r.Serial[:]...)
		b = binary.BigEndian.AppendUint64(b, r.At)
	}
	return append(b, a.Issuer[:]...)
}

// Append appends the state and its signature.
func (a *AuthorityState) Append(b []byte) []byte { return append(a.AppendBody(b), a.Signature[:]...) }

// Digest is the SHA-256 of the body, which the next state names as its predecessor.
func (a *AuthorityState) Digest() Digest { return sha256.Sum256(a.AppendBody(nil)) }

// Key is the state's Kafka key: 0x02 ‖ realm_id, since realms may share a cluster.
func (a *AuthorityState) Key() []byte { return append([]byte{byte(TypeAuthorityState)}, a.Realm[:]...) }

// ParseAuthorityState reads exactly one state. It refuses seq 0, a seq above issued (so that
// nobody can use up the numbers), a next_update before issued, and revocations out of
// order. The signature is not verified.
func ParseAuthorityState(b []byte) (*AuthorityState, error) {
	r := reader{b: b, bad: len(b) > MaxControlSize}
	a := &AuthorityState{Realm: r.pre(TypeAuthorityState)}
	a.Seq = r.u64()
	a.Issued = r.u64()
	a.NextUpdate = r.u64()
	r.fixed(a.Prev[:])
	n := r.count(revocationSize)
	if a.Seq == 0 || a.Seq > a.Issued || a.NextUpdate < a.Issued || n > MaxRevoked {
		r.bad = true
	}
	for i := 0; i < n && !r.bad; i++ {
		var v Revocation
		r.fixed(v.Serial[:])
		v.At = r.u64()
		if i > 0 && bytes.Compare(a.Revoked[i-1].Serial[:], v.Serial[:]) >= 0 {
			r.bad = true
		}
		a.Revoked = append(a.Revoked, v)
	}
	r.fixed(a.Issuer[:])
	r.fixed(a.Signature[:])
	if err := r.end("authority state"); err != nil {
		return nil, err
	}
	return a, nil
}
