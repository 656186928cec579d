package keyring

import (
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

// A Root is a realm's root key (PROTOCOL.md §2.2). It may stay offline.
type Root struct {
	seed secretKey
}

// NewRealm draws a root key and with it a realm.
func NewRealm(rand io.Reader) (*Root, error) {
	r := &Root{}
	if _, err := io.ReadFull(rand, r.seed[:]); err != nil {
		return nil, fmt.Errorf("root key: %w", err)
	}
	return r, nil
}

// ParseRoot reads a root key file.
func ParseRoot(file []byte) (*Root, error) {
	b, err := unarmor(armorRoot, file)
	if err != nil {
		return nil, err
	}
	defer clear(b)
	r := &Root{}
	if len(b) != len(r.seed) {
		return nil, fmt.Errorf("%s file: %d bytes, want %d", armorRoot, len(b), len(r.seed))
	}
	copy(r.seed[:], b)
	return r, nil
}

// Marshal encodes the root key as a PRIVATE text file.
func (r *Root) Marshal() []byte { return armor(armorRoot, r.seed[:]) }

// PublicKey is the root's public key.
func (r *Root) PublicKey() wire.PublicKey { return publicOf(&r.seed) }

// Realm is the realm's id.
func (r *Root) Realm() wire.RealmID { return wire.RealmIDOf(r.PublicKey()) }

// Wipe overwrites the key.
func (r *Root) Wipe() { clear(r.seed[:]) }

// CertifyIssuer draws an issuer key and certifies it until notAfter.
func (r *Root) CertifyIssuer(rand io.Reader, now, notAfter time.Time) (*Issuer, error) {
	if !notAfter.After(now) {
		return nil, errors.New("issuer: its validity ends before it starts")
	}
	i := &Issuer{root: r.PublicKey()}
	c := &i.cert
	if err := readAll(rand, i.seed[:], c.Serial[:]); err != nil {
		return nil, fmt.Errorf("issuer key: %w", err)
	}
	c.Realm = r.Realm()
	c.Subject = publicOf(&i.seed)
	c.Node = wire.NodeIDOf(c.Subject)
	c.NotBefore, c.NotAfter = unixMs(now), unixMs(notAfter)
	c.Roles = wire.RoleIssuer
	c.Issuer = i.root
	c.Signature = sign(&r.seed, wire.TypeCredential, c.Realm, c.AppendBody(nil))
	return i, nil
}

// An Issuer signs credentials. Its certificate is signed by the root.
type Issuer struct {
	seed secretKey
	cert wire.Credential
	root wire.PublicKey
}

// ParseIssuer reads an issuer key file and verifies its certificate, but not whether that
// is valid at some time.
func ParseIssuer(file []byte) (*Issuer, error) {
	b, err := unarmor(armorIssuer, file)
	if err != nil {
		return nil, err
	}
	defer clear(b)
	i := &Issuer{}
	if len(b) < len(i.seed)+len(i.root) {
		return nil, fmt.Errorf("%s file: %w", armorIssuer, wire.ErrMalformed)
	}
	copy(i.seed[:], b)
	copy(i.root[:], b[len(i.seed):])
	cert, err := wire.ParseCredential(b[len(i.seed)+len(i.root):])
	if err != nil {
		return nil, fmt.Errorf("%s file: %w", armorIssuer, err)
	}
	i.cert = *cert
	if err := verifyIssued(i.root, nil, cert); err != nil {
		return nil, fmt.Errorf("%s file: %w", armorIssuer, err)
	}
	if cert.Subject != publicOf(&i.seed) || !cert.Roles.Has(wire.RoleIssuer) {
		return nil, fmt.Errorf("%s file: its certificate is not for its key: %w", armorIssuer, ErrUnauthentic)
	}
	return i, nil
}

// Marshal encodes key, root's public key and certificate as a PRIVATE text file.
func (i *Issuer) Marshal() []byte {
	b := make([]byte, 0, len(i.seed)+len(i.root)+wire.MaxCredentialSize)
	b = append(b, i.seed[:]...)
	b = append(b, i.root[:]...)
	b = i.cert.Append(b)
	defer clear(b)
	return armor(armorIssuer, b)
}

// Wipe overwrites the key.
func (i *Issuer) Wipe() { clear(i.seed[:]) }

// ParseCSR reads a signing request file and verifies its signature, for showing it before
// it is granted.
func ParseCSR(file []byte) (*wire.CSR, error) {
	b, err := unarmor(armorCSR, file)
	if err != nil {
		return nil, err
	}
	csr, err := wire.ParseCSR(b)
	if err != nil {
		return nil, err
	}
	if !ed25519.Verify(csr.Subject[:], csr.SignatureInput(offlineHandshake), csr.Signature[:]) {
		return nil, fmt.Errorf("signing request: signature: %w", ErrUnauthentic)
	}
	return csr, nil
}

// offlineHandshake stands for a Noise handshake hash where the request comes by file
// (PROTOCOL.md §2.12).
var offlineHandshake wire.Digest

// Validity is the times of a credential.
type Validity struct {
	NotBefore     time.Time
	NotAfter      time.Time
	DataNotBefore time.Time // the node gets no data older than this; zero: no limit
}

// Issue verifies the signing request in csr and returns a credential file that holds the
// node's credential, the issuer's certificate and the root's public key. What is granted
// is what the request asks for, unless grant is given. A credential cannot outlive its
// issuer's certificate.
func (i *Issuer) Issue(rand io.Reader, csr []byte, grant *Attributes, v Validity) ([]byte, error) {
	req, err := ParseCSR(csr)
	if err != nil {
		return nil, err
	}
	if grant == nil {
		grant = &Attributes{req.Roles, req.Topics, req.Groups, time.Duration(req.OfflineAllow) * time.Second}
	}
	c, err := i.certify(rand, wire.NodeIDOf(req.Subject), 0, req.Subject, *grant, v)
	if err != nil {
		return nil, err
	}
	return armor(armorCredential, i.chainOf(c)), nil
}

// chainOf encodes a credential that this issuer signed, with its chain.
func (i *Issuer) chainOf(c *wire.Credential) []byte {
	return appendChain(nil, i.root, []*wire.Credential{c, &i.cert})
}

// certify signs a credential of node for subject.
func (i *Issuer) certify(rand io.Reader, node wire.NodeID, lineage uint32, subject wire.PublicKey, grant Attributes, v Validity) (*wire.Credential, error) {
	c := &wire.Credential{
		Realm:         i.cert.Realm,
		Node:          node,
		Subject:       subject,
		Lineage:       lineage,
		NotBefore:     unixMs(v.NotBefore),
		NotAfter:      unixMs(v.NotAfter),
		DataNotBefore: unixMs(v.DataNotBefore),
		OfflineAllow:  uint32(min(grant.OfflineAllow/time.Second, 1<<32-1)),
		Roles:         grant.Roles,
		Topics:        grant.Topics,
		Groups:        grant.Groups,
		Issuer:        i.cert.Subject,
	}
	switch {
	case c.Roles == 0 || c.Roles.Has(wire.RoleIssuer):
		return nil, fmt.Errorf("credential: roles %q: want produce, consume or both", c.Roles)
	case len(c.Topics) == 0:
		return nil, errors.New("credential: no topic pattern")
	case c.NotAfter <= c.NotBefore:
		return nil, errors.New("credential: its validity ends before it starts")
	case c.NotAfter > i.cert.NotAfter || c.NotBefore < i.cert.NotBefore:
		return nil, fmt.Errorf("credential: valid outside its issuer's certificate (%s to %s); hint: choose a shorter validity, or certify a new issuer",
			fromMs(i.cert.NotBefore).UTC().Format(time.RFC3339), fromMs(i.cert.NotAfter).UTC().Format(time.RFC3339))
	}
	if err := readAll(rand, c.Serial[:]); err != nil {
		return nil, fmt.Errorf("credential serial: %w", err)
	}
	c.Signature = sign(&i.seed, wire.TypeCredential, c.Realm, c.AppendBody(nil))
	if n := len(c.Append(nil)); n > wire.MaxCredentialSize {
		return nil, fmt.Errorf("credential: %d bytes, at most %d; hint: fewer topic and group patterns, or prefixes", n, wire.MaxCredentialSize)
	}
	return c, nil
}

// appendChain appends a chain as credential files and states hold it: the root's public
// key, then each credential behind its u16 length, the node's first.
func appendChain(b []byte, root wire.PublicKey, chain []*wire.Credential) []byte {
	b = append(b, root[:]...)
	b = append(b, byte(len(chain)))
	for _, c := range chain {
		body := c.Append(nil)
		b = binary.BigEndian.AppendUint16(b, uint16(len(body)))
		b = append(b, body...)
	}
	return b
}

// parseChain reads exactly one chain of one or two credentials and verifies it, but not
// whether it is valid at some time.
func parseChain(b []byte) (root wire.PublicKey, chain []*wire.Credential, err error) {
	bad := fmt.Errorf("credential chain: %w", wire.ErrMalformed)
	if len(b) < len(root)+1 {
		return root, nil, bad
	}
	copy(root[:], b)
	n := int(b[len(root)])
	b = b[len(root)+1:]
	if n != 1 && n != 2 {
		return root, nil, bad
	}
	for range n {
		if len(b) < 2 || len(b) < 2+int(binary.BigEndian.Uint16(b)) {
			return root, nil, bad
		}
		size := int(binary.BigEndian.Uint16(b))
		c, err := wire.ParseCredential(b[2 : 2+size])
		if err != nil {
			return root, nil, err
		}
		chain = append(chain, c)
		b = b[2+size:]
	}
	if len(b) != 0 {
		return root, nil, bad
	}
	var issuer *wire.Credential
	if n == 2 {
		issuer = chain[1]
	}
	return root, chain, verifyIssued(root, issuer, chain[0])
}

// ParseCredentialFile reads a credential file and verifies its chain, for showing it. The
// first credential is the node's.
func ParseCredentialFile(file []byte) (root wire.PublicKey, chain []*wire.Credential, err error) {
	b, err := unarmor(armorCredential, file)
	if err != nil {
		return root, nil, err
	}
	return parseChain(b)
}

// readAll fills each slice from rand.
func readAll(rand io.Reader, dst ...[]byte) error {
	for _, d := range dst {
		if _, err := io.ReadFull(rand, d); err != nil {
			return err
		}
	}
	return nil
}
