package wire

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
)

// Version and Suite stand in the PRE of every control message (PROTOCOL.md §2.6). One
// suite per realm, fixed when the realm is made.
const (
	Version = 1
	Suite   = 1
)

// A Type is the second byte of a control message and the first of its Kafka key.
type Type uint8

// Types of control messages (PROTOCOL.md §2.6).
const (
	TypeCredential     Type = 1
	TypeAuthorityState Type = 2
	TypePrekeyBundle   Type = 3
	TypeEpochGrant     Type = 4
	TypeKeyShare       Type = 5
	TypeEpochRequest   Type = 6
	TypeEnrolment      Type = 8 // a key only: its value is a Noise message
	TypeRenewal        Type = 9
)

// String names the type as PROTOCOL.md does.
func (t Type) String() string {
	switch t {
	case TypeCredential:
		return "Credential"
	case TypeAuthorityState:
		return "AuthorityState"
	case TypePrekeyBundle:
		return "PrekeyBundle"
	case TypeEpochGrant:
		return "EpochGrant"
	case TypeKeyShare:
		return "KeyShare"
	case TypeEpochRequest:
		return "EpochRequest"
	case TypeEnrolment:
		return "Enrolment"
	case TypeRenewal:
		return "Renewal"
	}
	return fmt.Sprintf("unknown type %d", uint8(t))
}

// Sizes in bytes.
const (
	preSize        = 1 + 1 + 1 + 16
	SignatureSize  = 64
	PublicKeySize  = 32   // Ed25519
	KEMPublicSize  = 1216 // X-Wing
	WrapSize       = 1168 // HPKE of 32 bytes: 1120 encapsulation, 32, 16 tag
	DigestSize     = sha256.Size
	MaxControlSize = 512 << 10 // any control record (PROTOCOL.md §2.15)
)

// ErrMalformed is wrapped by every Parse function of this package.
var ErrMalformed = errors.New("malformed")

type (
	// A RealmID names a realm: SHA-256("KX1 realm v1\0" ‖ root public key)[:16].
	RealmID [16]byte
	// A NodeID names a node for its whole life: SHA-256("KX1 node v1\0" ‖ first identity
	// public key)[:16].
	NodeID [16]byte
	// A Serial names one credential; it is random.
	Serial [16]byte
	// An InstanceID names one start of a producing agent; it is random.
	InstanceID [16]byte
	// A PrekeyID names one prekey: SHA-256("KX1 prekey v1\0" ‖ kem_pub)[:8].
	PrekeyID [8]byte
	// A Digest is a SHA-256.
	Digest [DigestSize]byte
	// A PublicKey is an Ed25519 public key.
	PublicKey [PublicKeySize]byte
)

// String gives the identifier in hex.
func (id RealmID) String() string    { return hex.EncodeToString(id[:]) }
func (id NodeID) String() string     { return hex.EncodeToString(id[:]) }
func (id Serial) String() string     { return hex.EncodeToString(id[:]) }
func (id InstanceID) String() string { return hex.EncodeToString(id[:]) }
func (id PrekeyID) String() string   { return hex.EncodeToString(id[:]) }
func (d Digest) String() string      { return hex.EncodeToString(d[:]) }
func (k PublicKey) String() string   { return hex.EncodeToString(k[:]) }

// RealmIDOf derives a realm's id from its root public key (PROTOCOL.md §2.2).
func RealmIDOf(root PublicKey) RealmID {
	d := sha256.Sum256(append([]byte("KX1 realm v1\x00"), root[:]...))
	return RealmID(d[:16])
}

// NodeIDOf derives a node's id from its first identity public key (PROTOCOL.md §2.2).
func NodeIDOf(first PublicKey) NodeID {
	d := sha256.Sum256(append([]byte("KX1 node v1\x00"), first[:]...))
	return NodeID(d[:16])
}

// PrekeyIDOf derives a prekey's id from its X-Wing public key, 1216 bytes (PROTOCOL.md
// §2.2).
func PrekeyIDOf(kemPub []byte) PrekeyID {
	d := sha256.Sum256(append([]byte("KX1 prekey v1\x00"), kemPub...))
	return PrekeyID(d[:8])
}

// SignatureInput is what an Ed25519 signature of a control message covers: the label, the
// type and realm of the body again, its length, and the body (PROTOCOL.md §2.1).
func SignatureInput(t Type, realm RealmID, body []byte) []byte {
	b := make([]byte, 0, 11+1+16+4+len(body))
	b = append(b, "KX1 sig v1\x00"...)
	b = append(b, byte(t))
	b = append(b, realm[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(body)))
	return append(b, body...)
}

// TypeOf tells which control message b starts like, by its version, type and suite.
func TypeOf(b []byte) (Type, error) {
	if len(b) < preSize || b[0] != Version || b[2] != Suite {
		return 0, fmt.Errorf("control message: %w", ErrMalformed)
	}
	switch t := Type(b[1]); t {
	case TypeCredential, TypeAuthorityState, TypePrekeyBundle, TypeEpochGrant, TypeKeyShare, TypeEpochRequest, TypeRenewal:
		return t, nil
	}
	return 0, fmt.Errorf("control message of %v: %w", Type(b[1]), ErrMalformed)
}

func appendPre(b []byte, t Type, realm RealmID) []byte {
	b = append(b, Version, byte(t), Suite)
	return append(b, realm[:]...)
}

func appendString(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(s)))
	return append(b, s...)
}

// A reader walks a message. The first failure sticks, and everything read after it is
// zero.
type reader struct {
	b   []byte
	bad bool
}

// take returns the next n bytes, aliasing the input.
func (r *reader) take(n int) []byte {
	if r.bad || n < 0 || n > len(r.b) {
		r.bad = true
		return nil
	}
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) fixed(dst []byte) { copy(dst, r.take(len(dst))) }

func (r *reader) u8() uint8 {
	if p := r.take(1); p != nil {
		return p[0]
	}
	return 0
}

func (r *reader) u16() uint16 {
	if p := r.take(2); p != nil {
		return binary.BigEndian.Uint16(p)
	}
	return 0
}

func (r *reader) u32() uint32 {
	if p := r.take(4); p != nil {
		return binary.BigEndian.Uint32(p)
	}
	return 0
}

func (r *reader) u64() uint64 {
	if p := r.take(8); p != nil {
		return binary.BigEndian.Uint64(p)
	}
	return 0
}

// count reads a u16 count of elements of at least size bytes each.
func (r *reader) count(size int) int {
	n := int(r.u16())
	if n*size > len(r.b) {
		r.bad = true
		return 0
	}
	return n
}

// text reads a u16 length and that many bytes, between 0 and max.
func (r *reader) text(max int) string {
	n := int(r.u16())
	if n > max {
		r.bad = true
		return ""
	}
	return string(r.take(n))
}

func (r *reader) pre(t Type) RealmID {
	var realm RealmID
	if r.u8() != Version || r.u8() != byte(t) || r.u8() != Suite {
		r.bad = true
	}
	r.fixed(realm[:])
	return realm
}

// end reports the result of a parse that must have consumed everything.
func (r *reader) end(what string) error {
	if r.bad || len(r.b) != 0 {
		return fmt.Errorf("%s: %w", what, ErrMalformed)
	}
	return nil
}
