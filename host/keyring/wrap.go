package keyring

import (
	"crypto/hpke"
	"fmt"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/scrub"
)

// wrapSecret seals a secret to an X-Wing key. crypto/hpke draws its own randomness.
func wrapSecret(w *wire.Wrap, pub hpke.PublicKey, info []byte, secret *secretKey) (err error) {
	n := 0
	scrub.Do(func() {
		var b []byte
		if b, err = hpke.Seal(pub, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), info, secret[:]); err == nil {
			n = len(b)
			copy(w.HPKE[:], b)
		}
	})
	if err == nil && n != len(w.HPKE) {
		err = fmt.Errorf("%d bytes, want %d", n, len(w.HPKE))
	}
	if err != nil {
		return fmt.Errorf("wrap for node %v: %w", w.Node, err)
	}
	return nil
}

// unwrapSecret opens a wrap with the X-Wing key of seed.
func unwrapSecret(secret *secretKey, seed *secretKey, info, wrap []byte) (err error) {
	scrub.Do(func() {
		var key hpke.PrivateKey
		if key, err = hpke.MLKEM768X25519().NewPrivateKey(seed[:]); err != nil {
			return
		}
		b, failed := hpke.Open(key, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), info, wrap)
		if failed != nil || len(b) != len(secret) {
			err = ErrUnauthentic
			return
		}
		copy(secret[:], b)
	})
	if err != nil {
		return fmt.Errorf("wrap: %w", err)
	}
	return nil
}

// kemPublic derives the 1216 bytes of an X-Wing public key from its seed.
func kemPublic(seed *secretKey) ([]byte, error) {
	var pub [wire.KEMPublicSize]byte
	var err error
	scrub.Do(func() {
		var key hpke.PrivateKey
		if key, err = hpke.MLKEM768X25519().NewPrivateKey(seed[:]); err == nil {
			copy(pub[:], key.PublicKey().Bytes())
		}
	})
	if err != nil {
		return nil, fmt.Errorf("prekey: %w", err)
	}
	return pub[:], nil
}

// usableKEM parses an X-Wing public key and encapsulates to it once, so that a key that
// cannot be wrapped to (a low-order point) is refused on arrival and spoils no grant.
func usableKEM(pub []byte) (hpke.PublicKey, error) {
	key, err := hpke.MLKEM768X25519().NewPublicKey(pub)
	if err == nil {
		_, _, err = hpke.NewSender(key, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), nil)
	}
	if err != nil {
		return nil, fmt.Errorf("kem_pub: %w", wire.ErrMalformed)
	}
	return key, nil
}
