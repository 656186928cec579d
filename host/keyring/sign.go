package keyring

import (
	"crypto/ed25519"
	"fmt"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/scrub"
)

// publicOf derives an Ed25519 public key from its seed.
func publicOf(seed *secretKey) (pub wire.PublicKey) {
	scrub.Do(func() { copy(pub[:], ed25519.NewKeyFromSeed(seed[:])[ed25519.SeedSize:]) })
	return pub
}

func signRaw(seed *secretKey, input []byte) (sig [wire.SignatureSize]byte) {
	scrub.Do(func() { copy(sig[:], ed25519.Sign(ed25519.NewKeyFromSeed(seed[:]), input)) })
	return sig
}

// sign signs the body of a control message (PROTOCOL.md §2.1).
func sign(seed *secretKey, t wire.Type, realm wire.RealmID, body []byte) [wire.SignatureSize]byte {
	return signRaw(seed, wire.SignatureInput(t, realm, body))
}

func verify(pub wire.PublicKey, t wire.Type, realm wire.RealmID, body []byte, sig *[wire.SignatureSize]byte) error {
	if !ed25519.Verify(pub[:], wire.SignatureInput(t, realm, body), sig[:]) {
		return fmt.Errorf("%v: signature: %w", t, ErrUnauthentic)
	}
	return nil
}

// verifyIssued checks that c belongs to the realm of root and was signed by root, or by
// issuer, which the root certified with RoleIssuer: chains are at most two long. issuer is
// nil where the root signed c itself. Times are not looked at.
func verifyIssued(root wire.PublicKey, issuer, c *wire.Credential) error {
	realm := wire.RealmIDOf(root)
	if c.Realm != realm {
		return fmt.Errorf("credential %v belongs to realm %v, not %v: %w", c.Serial, c.Realm, realm, ErrUnauthentic)
	}
	signer := root
	if issuer != nil {
		if !issuer.Roles.Has(wire.RoleIssuer) {
			return fmt.Errorf("credential %v: its signer %v is no issuer of the realm: %w", c.Serial, issuer.Serial, ErrUnauthentic)
		}
		if c.Roles.Has(wire.RoleIssuer) {
			return fmt.Errorf("credential %v: an issuer cannot certify an issuer: %w", c.Serial, ErrUnauthentic)
		}
		if err := verifyIssued(root, nil, issuer); err != nil {
			return err
		}
		signer = issuer.Subject
	}
	if c.Issuer != signer {
		return fmt.Errorf("credential %v: signed by another issuer: %w", c.Serial, ErrUnauthentic)
	}
	return verify(signer, wire.TypeCredential, realm, c.AppendBody(nil), &c.Signature)
}

// validAt reports whether at lies in the credential's validity. A not_before may lie ahead
// by the allowed skew: its issuer's clock is another one.
func validAt(c *wire.Credential, at uint64, skew time.Duration) bool {
	return c.NotBefore <= at+uint64(skew.Milliseconds()) && at <= c.NotAfter
}
