package keyring

import (
	"crypto/ecdh"
	"crypto/mlkem"
	"crypto/rand"
	"crypto/sha3"
	"fmt"
	"reflect"
	"unsafe"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

// X-Wing (draft-connolly-cfrg-xwing-kem) is put together from the standard library's parts
// as crypto/hpke does it, so that the library's copies of a private key can be wiped when
// they have been used.

// xwingLabel ends what X-Wing hashes.
const xwingLabel = `\./` + `/^\`

// A kemPublicKey is what grants are wrapped for.
type kemPublicKey struct {
	pq *mlkem.EncapsulationKey768
	t  *ecdh.PublicKey
}

// A kemPrivateKey is a prekey's seed, expanded. SECRET: wipe it after use.
type kemPrivateKey struct {
	pq *mlkem.DecapsulationKey768
	t  *ecdh.PrivateKey
}

func (k *kemPrivateKey) expand(seed *secretKey) error {
	var expanded [mlkem.SeedSize + 32]byte
	defer clear(expanded[:])
	shake := sha3.NewSHAKE256()
	defer shake.Reset()
	shake.Write(seed[:])
	shake.Read(expanded[:])
	var err error
	if k.pq, err = mlkem.NewDecapsulationKey768(expanded[:mlkem.SeedSize]); err == nil {
		k.t, err = ecdh.X25519().NewPrivateKey(expanded[mlkem.SeedSize:])
	}
	if err != nil {
		k.wipe()
		return fmt.Errorf("prekey: %w", err)
	}
	return nil
}

// public is the 1216 bytes of the public key.
func (k *kemPrivateKey) public() []byte {
	return append(k.pq.EncapsulationKey().Bytes(), k.t.PublicKey().Bytes()...)
}

// decapsulate finds the secret that encapsulate put into the 1120 bytes of enc.
func (k *kemPrivateKey) decapsulate(shared *secretKey, enc []byte) error {
	ssPQ, err := k.pq.Decapsulate(enc[:mlkem.CiphertextSize768])
	if err != nil {
		return err
	}
	defer clear(ssPQ)
	ephemeral, err := ecdh.X25519().NewPublicKey(enc[mlkem.CiphertextSize768:])
	if err != nil {
		return err
	}
	ssT, err := k.t.ECDH(ephemeral)
	if err != nil {
		return err
	}
	defer clear(ssT)
	combine(shared, ssPQ, ssT, ephemeral, k.t.PublicKey())
	return nil
}

// wipe overwrites the key where the library keeps it. That a new version of Go keeps it
// elsewhere is found by TestExpandedPrekeysAreWiped.
func (k *kemPrivateKey) wipe() {
	if k.pq != nil {
		wipeObject(reflect.ValueOf(k.pq).Elem().Field(0))
	}
	if k.t != nil {
		wipeX25519(k.t)
	}
	*k = kemPrivateKey{}
}

func wipeX25519(key *ecdh.PrivateKey) {
	if b := reflect.ValueOf(key).Elem().FieldByName("privateKey"); b.IsValid() {
		clear(b.Bytes())
	}
}

// wipeObject overwrites what a pointer points to, which must hold no pointers itself.
func wipeObject(pointer reflect.Value) {
	clear(unsafe.Slice((*byte)(pointer.UnsafePointer()), pointer.Type().Elem().Size()))
}

// encapsulate makes a secret for the key's owner, and the 1120 bytes that carry it.
func (k *kemPublicKey) encapsulate(shared *secretKey, enc []byte) error {
	var seed secretKey
	defer clear(seed[:])
	rand.Read(seed[:])
	ephemeral, err := ecdh.X25519().NewPrivateKey(seed[:])
	if err != nil {
		return err
	}
	defer wipeX25519(ephemeral)
	ssT, err := ephemeral.ECDH(k.t)
	if err != nil {
		return err
	}
	defer clear(ssT)
	ssPQ, ciphertext := k.pq.Encapsulate()
	defer clear(ssPQ)
	copy(enc, ciphertext)
	copy(enc[mlkem.CiphertextSize768:], ephemeral.PublicKey().Bytes())
	combine(shared, ssPQ, ssT, ephemeral.PublicKey(), k.t)
	return nil
}

// combine is X-Wing's combiner: SHA3-256(ss_M ‖ ss_X ‖ ct_X ‖ pk_X ‖ label).
func combine(shared *secretKey, ssPQ, ssT []byte, ciphertext, public *ecdh.PublicKey) {
	var in [4*32 + len(xwingLabel)]byte
	defer clear(in[:])
	copy(in[:], ssPQ)
	copy(in[32:], ssT)
	copy(in[64:], ciphertext.Bytes())
	copy(in[96:], public.Bytes())
	copy(in[128:], xwingLabel)
	*shared = sha3.Sum256(in[:])
}

// kemPublic derives the 1216 bytes of an X-Wing public key from its seed.
func kemPublic(seed *secretKey) ([]byte, error) {
	burnStack()
	defer burnStack()
	var key kemPrivateKey
	if err := key.expand(seed); err != nil {
		return nil, err
	}
	defer key.wipe()
	return key.public(), nil
}

// usableKEM parses an X-Wing public key and encapsulates to it once, so that a key that
// cannot be wrapped to (a low-order point) is refused on arrival and spoils no grant.
func usableKEM(pub []byte) (*kemPublicKey, error) {
	if len(pub) != wire.KEMPublicSize {
		return nil, fmt.Errorf("kem_pub: %w", wire.ErrMalformed)
	}
	key := &kemPublicKey{}
	var err error
	if key.pq, err = mlkem.NewEncapsulationKey768(pub[:mlkem.EncapsulationKeySize768]); err == nil {
		key.t, err = ecdh.X25519().NewPublicKey(pub[mlkem.EncapsulationKeySize768:])
	}
	if err == nil {
		var shared secretKey
		var enc [encapsulatedSize]byte
		err = key.encapsulate(&shared, enc[:])
	}
	if err != nil {
		return nil, fmt.Errorf("kem_pub: %w", wire.ErrMalformed)
	}
	return key, nil
}
