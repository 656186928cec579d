package wire

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// Roles is the set of things that a credential allows (PROTOCOL.md §2.6).
type Roles uint16

const (
	RoleProduce Roles = 1
	RoleConsume Roles = 2
	RoleIssuer  Roles = 4
	RoleShare   Roles = 8
	RoleArchive Roles = 16
	RoleAdmin   Roles = 32

	allRoles = RoleProduce | RoleConsume | RoleIssuer | RoleShare | RoleArchive | RoleAdmin
)

var roleNames = []string{"produce", "consume", "issuer", "share", "archive", "admin"}

// Has reports whether every role of want is in r.
func (r Roles) Has(want Roles) bool { return r&want == want }

// String names the roles, separated by commas.
func (r Roles) String() string {
	var out []string
	for i, name := range roleNames {
		if r&(1<<i) != 0 {
			out = append(out, name)
		}
	}
	return strings.Join(out, ",")
}

// MaxCredentialSize bounds an encoded credential with its signature (PROTOCOL.md §2.15).
const MaxCredentialSize = 4 << 10

// A Credential binds an identity key to what it may do, until when. It is signed by
// IssuerPub, which is the realm's root or a key that the root certified with RoleIssuer.
//
//	19b: PRE
//	16b: node_id
//	16b: serial
//	32b: subject_pub, Ed25519
//	 4b: lineage, grows with each renewal of the node
//	 8b: not_before, Unix ms
//	 8b: not_after, Unix ms
//	 8b: data_not_before, Unix ms: no data older than this for the node
//	 4b: offline_allow_s: the longest not_after - created of a bundle, in seconds
//	 2b: roles
//	    topic patterns, group patterns: a count u16, then each
//	32b: issuer_pub, Ed25519
//	64b: signature by the issuer
type Credential struct {
	Realm         RealmID
	Node          NodeID
	Serial        Serial
	Subject       PublicKey
	Lineage       uint32
	NotBefore     uint64
	NotAfter      uint64
	DataNotBefore uint64
	OfflineAllow  uint32 // seconds
	Roles         Roles
	Topics        []Pattern
	Groups        []Pattern
	Issuer        PublicKey
	Signature     [SignatureSize]byte
}

// AppendBody appends what the signature covers.
func (c *Credential) AppendBody(b []byte) []byte {
	b = appendPre(b, TypeCredential, c.Realm)
	b = append(b, c.Node[:]...)
	b = append(b, c.Serial[:]...)
	b = append(b, c.Subject[:]...)
	b = binary.BigEndian.AppendUint32(b, c.Lineage)
	b = binary.BigEndian.AppendUint64(b, c.NotBefore)
	b = binary.BigEndian.AppendUint64(b, c.NotAfter)
	b = binary.BigEndian.AppendUint64(b, c.DataNotBefore)
	b = binary.BigEndian.AppendUint32(b, c.OfflineAllow)
	b = binary.BigEndian.AppendUint16(b, uint16(c.Roles))
	b = AppendPatterns(b, c.Topics)
	b = AppendPatterns(b, c.Groups)
	return append(b, c.Issuer[:]...)
}

// Append appends the credential and its signature.
func (c *Credential) Append(b []byte) []byte {
	return append(c.AppendBody(b), c.Signature[:]...)
}

// Key is the credential's Kafka key: 0x01 ‖ node_id ‖ serial.
func (c *Credential) Key() []byte {
	b := append([]byte{byte(TypeCredential)}, c.Node[:]...)
	return append(b, c.Serial[:]...)
}

// ParseCredential reads exactly one credential of at most 4 KiB. Unknown roles and a
// validity that ends before it starts are refused. The signature is not verified.
func ParseCredential(b []byte) (*Credential, error) {
	if len(b) > MaxCredentialSize {
		return nil, fmt.Errorf("credential of %d bytes: %w", len(b), ErrMalformed)
	}
	r := reader{b: b}
	c := &Credential{Realm: r.pre(TypeCredential)}
	r.fixed(c.Node[:])
	r.fixed(c.Serial[:])
	r.fixed(c.Subject[:])
	c.Lineage = r.u32()
	c.NotBefore = r.u64()
	c.NotAfter = r.u64()
	c.DataNotBefore = r.u64()
	c.OfflineAllow = r.u32()
	c.Roles = Roles(r.u16())
	c.Topics = r.patterns()
	c.Groups = r.patterns()
	r.fixed(c.Issuer[:])
	r.fixed(c.Signature[:])
	if c.Roles&^allRoles != 0 || c.NotAfter < c.NotBefore {
		r.bad = true
	}
	if err := r.end("credential"); err != nil {
		return nil, err
	}
	return c, nil
}
