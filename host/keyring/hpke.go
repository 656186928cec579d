package keyring

import (
	"crypto/mlkem"
	"fmt"
	"reflect"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

// HPKE (RFC 9180) in base mode, single shot, with no associated data: X-Wing (0x647a),
// HKDF-SHA256 (1), ChaCha20-Poly1305 (3). It gives what crypto/hpke gives, and leaves
// nothing behind.

// encapsulatedSize is ML-KEM-768's ciphertext and an X25519 key.
const encapsulatedSize = mlkem.CiphertextSize768 + 32

// What labels each derivation (RFC 9180 §4, §5.1): HPKE-v1 and the suite's id.
const hpkeSuite = "HPKE-v1" + "HPKE\x64\x7a\x00\x01\x00\x03"

// An hpkeContext seals or opens one message. SECRET.
type hpkeContext struct {
	key   secretKey
	nonce [chacha20poly1305.NonceSize]byte
}

// schedule is KeySchedule of RFC 9180 §5.1 for base mode.
func (c *hpkeContext) schedule(shared *secretKey, info []byte) error {
	var pskID, infoHash, secret, nonce secretKey
	defer clear(secret[:])
	defer clear(nonce[:])
	steps := func() error {
		if err := hmac((*[32]byte)(&pskID), nil, hpkeSuite, "psk_id_hash"); err != nil {
			return err
		}
		if err := hmac((*[32]byte)(&infoHash), nil, hpkeSuite, "info_hash", string(info)); err != nil {
			return err
		}
		context := "\x00" + string(pskID[:]) + string(infoHash[:])
		if err := hmac((*[32]byte)(&secret), shared[:], hpkeSuite, "secret"); err != nil {
			return err
		}
		if err := hmac((*[32]byte)(&c.key), secret[:], "\x00\x20", hpkeSuite, "key", context, "\x01"); err != nil {
			return err
		}
		return hmac((*[32]byte)(&nonce), secret[:], "\x00\x0c", hpkeSuite, "base_nonce", context, "\x01")
	}
	err := steps()
	copy(c.nonce[:], nonce[:])
	return err
}

func (c *hpkeContext) wipe() { *c = hpkeContext{} }

// wrapSecret seals a secret to an X-Wing key. It draws randomness of its own.
func wrapSecret(w *wire.Wrap, pub *kemPublicKey, info []byte, secret *secretKey) error {
	burnStack()
	defer burnStack()
	var shared secretKey
	var c hpkeContext
	defer clear(shared[:])
	defer c.wipe()
	err := pub.encapsulate(&shared, w.HPKE[:encapsulatedSize])
	if err == nil {
		err = c.schedule(&shared, info)
	}
	if err != nil {
		return fmt.Errorf("wrap for node %v: %w", w.Node, err)
	}
	aead, err := chacha20poly1305.New(c.key[:])
	if err != nil {
		return fmt.Errorf("wrap for node %v: %w", w.Node, err)
	}
	defer wipeObject(reflect.ValueOf(aead))
	aead.Seal(w.HPKE[encapsulatedSize:encapsulatedSize], c.nonce[:], secret[:], nil)
	return nil
}

// unwrapSecret opens a wrap with the X-Wing key of seed. Every failure is ErrUnauthentic.
func unwrapSecret(secret *secretKey, seed *secretKey, info, wrap []byte) error {
	burnStack()
	defer burnStack()
	if len(wrap) != wire.WrapSize {
		return fmt.Errorf("wrap: %w", ErrUnauthentic)
	}
	var key kemPrivateKey
	if err := key.expand(seed); err != nil {
		return err
	}
	defer key.wipe()
	var shared secretKey
	var c hpkeContext
	defer clear(shared[:])
	defer c.wipe()
	err := key.decapsulate(&shared, wrap[:encapsulatedSize])
	if err == nil {
		err = c.schedule(&shared, info)
	}
	if err != nil {
		return fmt.Errorf("wrap: %w", ErrUnauthentic)
	}
	aead, err := chacha20poly1305.New(c.key[:])
	if err != nil {
		return fmt.Errorf("wrap: %w", err)
	}
	defer wipeObject(reflect.ValueOf(aead))
	// In place, so that the plaintext is nowhere but in the two arrays here.
	var sealed [wire.WrapSize - encapsulatedSize]byte
	defer clear(sealed[:])
	copy(sealed[:], wrap[encapsulatedSize:])
	if _, err := aead.Open(sealed[:0], c.nonce[:], sealed[:], nil); err != nil {
		return fmt.Errorf("wrap: %w", ErrUnauthentic)
	}
	copy(secret[:], sealed[:])
	return nil
}
