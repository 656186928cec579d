package keyring

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha256"
	"reflect"
	"strings"
	"testing"
	"unsafe"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

func TestWrapsAreThoseOfTheStandardLibrary(t *testing.T) {
	for range 20 {
		var seed, secret, got secretKey
		rand.Read(seed[:])
		rand.Read(secret[:])
		info := []byte(rand.Text())
		theirs, err := hpke.MLKEM768X25519().NewPrivateKey(seed[:])
		if err != nil {
			t.Fatal(err)
		}
		pub, err := kemPublic(&seed)
		if err != nil || !bytes.Equal(pub, theirs.PublicKey().Bytes()) {
			t.Fatalf("another public key: %v", err)
		}
		key, err := usableKEM(pub)
		if err != nil {
			t.Fatal(err)
		}
		var w wire.Wrap
		if err := wrapSecret(&w, key, info, &secret); err != nil {
			t.Fatal(err)
		}
		if opened, err := hpke.Open(theirs, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), info, w.HPKE[:]); err != nil || !bytes.Equal(opened, secret[:]) {
			t.Fatalf("what is sealed here does not open there: %v", err)
		}
		wrap, err := hpke.Seal(theirs.PublicKey(), hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), info, secret[:])
		if err != nil {
			t.Fatal(err)
		}
		if err := unwrapSecret(&got, &seed, info, wrap); err != nil || got != secret {
			t.Fatalf("what is sealed there does not open here: %v", err)
		}
		for _, i := range []int{0, 1088, encapsulatedSize, len(wrap) - 1} {
			wrap[i] ^= 1
			if err := unwrapSecret(&got, &seed, info, wrap); err == nil {
				t.Errorf("opened with byte %d changed", i)
			}
			wrap[i] ^= 1
		}
		if unwrapSecret(&got, &seed, info, wrap[1:]) == nil || unwrapSecret(&got, &seed, info[1:], wrap) == nil {
			t.Error("opened with a byte too few")
		}
	}
}

func TestExpandIsTheStandardLibrarys(t *testing.T) {
	var secret, got secretKey
	rand.Read(secret[:])
	for _, n := range []int{0, 1, 55, 64, 200, 349, hmacMost - 1} {
		context := strings.Repeat("c", n)
		want, err := hkdf.Expand(sha256.New, secret[:], context, 32)
		if err != nil {
			t.Fatal(err)
		}
		if err := expand((*[32]byte)(&got), &secret, "", context); err != nil || !bytes.Equal(got[:], want) {
			t.Errorf("%d bytes of context: %v", n, err)
		}
	}
	if expand((*[32]byte)(&got), &secret, "", strings.Repeat("c", hmacMost)) == nil {
		t.Error("a context beyond the bound was cut short")
	}
}

// The wipe goes by how the standard library keeps its keys, which a new version may change.
func TestExpandedPrekeysAreWiped(t *testing.T) {
	var seed secretKey
	rand.Read(seed[:])
	var key kemPrivateKey
	if err := key.expand(&seed); err != nil {
		t.Fatal(err)
	}
	pq, x := reflect.ValueOf(key.pq).Elem().Field(0), reflect.ValueOf(key.t).Elem().FieldByName("privateKey")
	inner := unsafe.Slice((*byte)(pq.UnsafePointer()), pq.Type().Elem().Size())
	zero := func(b []byte) bool { return bytes.Equal(b, make([]byte, len(b))) }
	if zero(inner) || zero(x.Bytes()) || pq.Type().Elem().Size() < 2400 {
		t.Fatal("the keys are not where they are looked for")
	}
	for i := range pq.Type().Elem().NumField() {
		if k := pq.Type().Elem().Field(i).Type.Kind(); k != reflect.Array && k != reflect.Struct {
			t.Errorf("field %d is a %v: what it points to is not wiped", i, k)
		}
	}
	key.wipe()
	if !zero(inner) || !zero(x.Bytes()) {
		t.Error("something is left")
	}
}
