// Package wycheproof holds the primitives of suite 0x1 (PROTOCOL.md §2.1) against the
// published vectors of Project Wycheproof, through the functions that the product calls or
// that Go's HPKE is made of. XChaCha20-Poly1305 stands in module/kernel, beside its two forms,
// and runs from here in WebAssembly too.
package wycheproof

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/mlkem"
	"crypto/mlkem/mlkemtest"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"slices"
	"testing"

	"github.com/c2sp/wycheproof"
	"golang.org/x/crypto/chacha20poly1305"
)

// octets is bytes that are hexadecimal in JSON.
type octets []byte

func (o *octets) UnmarshalText(text []byte) (err error) {
	*o, err = hex.DecodeString(string(text))
	return err
}

// A group is a test group of any of the files, and a vector has the fields of all of them.
type group struct {
	PublicKey struct{ PK octets }
	Tests     []vector
}

type vector struct {
	TcID                       int
	Comment, Result            string
	Flags                      []string
	Key, IV, AAD, Msg, CT, Tag octets // AEAD; Msg also of a signature
	Sig                        octets
	Public, Private, Shared    octets // X25519
	IKM, Salt, Info, OKM       octets // HKDF
	Size                       int
	Seed, EK, M, C, K          octets // ML-KEM
}

// each calls f with every vector of a file, and fails unless there are at least want.
func each(t *testing.T, file string, want int, f func(t *testing.T, g *group, v *vector, valid bool)) {
	t.Helper()
	raw, err := fs.ReadFile(wycheproof.TestVectors, file)
	if err != nil {
		t.Fatal(err)
	}
	var all struct{ TestGroups []group }
	if err := json.Unmarshal(raw, &all); err != nil {
		t.Fatal(err)
	}
	ran := 0
	for i := range all.TestGroups {
		g := &all.TestGroups[i]
		for j := range g.Tests {
			v := &g.Tests[j]
			ran++
			f(t, g, v, v.Result == "valid")
		}
	}
	if ran < want {
		t.Errorf("%s: %d vectors, want at least %d", file, ran, want)
	}
	t.Logf("%d vectors", ran)
}

func TestChaCha20Poly1305(t *testing.T) {
	each(t, "chacha20_poly1305_test.json", 325, func(t *testing.T, _ *group, v *vector, valid bool) {
		aead, err := chacha20poly1305.New(v.Key)
		if err != nil {
			t.Fatalf("vector %d: %v", v.TcID, err)
		}
		if len(v.IV) != aead.NonceSize() {
			if valid {
				t.Errorf("vector %d: nonce of %d bytes is called valid", v.TcID, len(v.IV))
			}
			return
		}
		sealed := slices.Concat(v.CT, v.Tag)
		plain, err := aead.Open(nil, v.IV, sealed, v.AAD)
		if (err == nil) != valid || valid && !bytes.Equal(plain, v.Msg) {
			t.Errorf("vector %d (%s): opened to %x, %v", v.TcID, v.Comment, plain, err)
		}
		if bytes.Equal(aead.Seal(nil, v.IV, v.Msg, v.AAD), sealed) != valid {
			t.Errorf("vector %d (%s): sealed to something else", v.TcID, v.Comment)
		}
	})
}

func TestEd25519(t *testing.T) {
	each(t, "ed25519_test.json", 151, func(t *testing.T, g *group, v *vector, valid bool) {
		if ed25519.Verify(ed25519.PublicKey(g.PublicKey.PK), v.Msg, v.Sig) != valid {
			t.Errorf("vector %d (%s): want %s", v.TcID, v.Comment, v.Result)
		}
	})
}

// Where a public key is of low order the shared secret would be zero. Go refuses it, and so
// does HPKE (RFC 9180 §7.1.4).
func TestX25519(t *testing.T) {
	each(t, "x25519_test.json", 518, func(t *testing.T, _ *group, v *vector, _ bool) {
		private, err := ecdh.X25519().NewPrivateKey(v.Private)
		if err != nil {
			t.Fatalf("vector %d: %v", v.TcID, err)
		}
		public, err := ecdh.X25519().NewPublicKey(v.Public)
		if err != nil {
			t.Fatalf("vector %d: %v", v.TcID, err)
		}
		shared, err := private.ECDH(public)
		if slices.Contains(v.Flags, "ZeroSharedSecret") {
			if err == nil {
				t.Errorf("vector %d: a zero shared secret was returned", v.TcID)
			}
		} else if err != nil || !bytes.Equal(shared, v.Shared) {
			t.Errorf("vector %d (%s): %x, %v", v.TcID, v.Comment, shared, err)
		}
	})
}

// The product uses the expand step alone; HPKE uses both.
func TestHKDFSHA256(t *testing.T) {
	each(t, "hkdf_sha256_test.json", 86, func(t *testing.T, _ *group, v *vector, valid bool) {
		prk, err := hkdf.Extract(sha256.New, v.IKM, v.Salt)
		if err != nil {
			t.Fatalf("vector %d: %v", v.TcID, err)
		}
		okm, err := hkdf.Expand(sha256.New, prk, string(v.Info), v.Size)
		if (err == nil) != valid || valid && !bytes.Equal(okm, v.OKM) {
			t.Errorf("vector %d (%s): %x, %v", v.TcID, v.Comment, okm, err)
		}
	})
}

func TestMLKEM768Decapsulation(t *testing.T) {
	each(t, "mlkem_768_test.json", 201, func(t *testing.T, _ *group, v *vector, valid bool) {
		dk, err := mlkem.NewDecapsulationKey768(v.Seed)
		if err != nil {
			if valid {
				t.Errorf("vector %d: %v", v.TcID, err)
			}
			return
		}
		if valid && !bytes.Equal(dk.EncapsulationKey().Bytes(), v.EK) {
			t.Errorf("vector %d: another encapsulation key", v.TcID)
		}
		k, err := dk.Decapsulate(v.C)
		if (err == nil) != valid || valid && !bytes.Equal(k, v.K) {
			t.Errorf("vector %d (%s): %x, %v", v.TcID, v.Comment, k, err)
		}
	})
}

func TestMLKEM768Encapsulation(t *testing.T) {
	each(t, "mlkem_768_encaps_test.json", 265, func(t *testing.T, _ *group, v *vector, valid bool) {
		ek, err := mlkem.NewEncapsulationKey768(v.EK)
		if err != nil {
			if valid {
				t.Errorf("vector %d: %v", v.TcID, err)
			}
			return
		}
		k, c, err := mlkemtest.Encapsulate768(ek, v.M)
		if (err == nil) != valid || valid && (!bytes.Equal(k, v.K) || !bytes.Equal(c, v.C)) {
			t.Errorf("vector %d (%s): %x, %v", v.TcID, v.Comment, k, err)
		}
	})
}

func TestMLKEM768KeyGeneration(t *testing.T) {
	each(t, "mlkem_768_keygen_seed_test.json", 100, func(t *testing.T, _ *group, v *vector, _ bool) {
		dk, err := mlkem.NewDecapsulationKey768(v.Seed)
		if err != nil || !bytes.Equal(dk.EncapsulationKey().Bytes(), v.EK) {
			t.Errorf("vector %d: another key, %v", v.TcID, err)
		}
	})
}
