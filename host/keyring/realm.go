package keyring

import (
	"io"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

// A Root is a realm's root key (PROTOCOL.md §2.2). It may stay offline.
type Root struct{}

// NewRealm draws a root key and with it a realm.
func NewRealm(rand io.Reader) (*Root, error) { return &Root{}, nil }

// ParseRoot reads a root key file.
func ParseRoot(file []byte) (*Root, error) { return &Root{}, nil }

// Marshal encodes the root key as a PRIVATE text file.
func (r *Root) Marshal() []byte { return nil }

// Realm is the realm's id.
func (r *Root) Realm() wire.RealmID { return wire.RealmID{} }

// Wipe overwrites the key.
func (r *Root) Wipe() {}

// CertifyIssuer draws an issuer key and certifies it until notAfter.
func (r *Root) CertifyIssuer(rand io.Reader, now, notAfter time.Time) (*Issuer, error) {
	return &Issuer{}, nil
}

// An Issuer signs credentials. Its certificate is signed by the root.
type Issuer struct{}

// ParseIssuer reads an issuer key file and verifies its certificate (not its validity).
func ParseIssuer(file []byte) (*Issuer, error) { return &Issuer{}, nil }

// Marshal encodes key, certificate and the root's public key as a PRIVATE text file.
func (i *Issuer) Marshal() []byte { return nil }

// Realm is the realm's id.
func (i *Issuer) Realm() wire.RealmID { return wire.RealmID{} }

// Certificate is the issuer's own credential.
func (i *Issuer) Certificate() *wire.Credential { return nil }

// Wipe overwrites the key.
func (i *Issuer) Wipe() {}

// ParseCSR reads a signing request file and verifies its signature, for showing it before
// it is granted.
func ParseCSR(file []byte) (*wire.CSR, error) { return nil, nil }

// Validity is the times of a credential.
type Validity struct {
	NotBefore     time.Time
	NotAfter      time.Time
	DataNotBefore time.Time // the node gets no data older than this; zero: none
}

// Issue verifies the signing request in file and returns a credential file that holds the
// node's credential, the issuer's certificate and the root's public key. What is granted
// is what the request asks for, unless grant is given.
func (i *Issuer) Issue(rand io.Reader, csr []byte, grant *Attributes, v Validity) ([]byte, error) {
	return nil, nil
}

// ParseCredentialFile reads a credential file and verifies its chain, for showing it.
// The first credential is the node's.
func ParseCredentialFile(file []byte) (root wire.PublicKey, chain []*wire.Credential, err error) {
	return root, nil, nil
}
