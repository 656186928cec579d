//go:build linux

package memory

import (
	"bytes"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/hpke"
	"crypto/mlkem"
	"crypto/sha256"
	"crypto/sha3"
	"crypto/sha512"
	"encoding/binary"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"unsafe"

	"golang.org/x/crypto/chacha20"
	"golang.org/x/crypto/chacha20poly1305"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
	"github.com/wasm-e2ee/wasm-e2ee/tests/reference"
)

// Kinds of secrets, and of what is as good as one.
const (
	identitySeed  = "identity seed"
	identityKey   = "identity's expanded key" // SHA-512 of the seed: the scalar, and what nonces are made of
	prekeySeed    = "prekey seed"
	prekeyMLKEM   = "prekey's ML-KEM seed"
	prekeyX25519  = "prekey's X25519 key"
	prekeyVector  = "prekey's ML-KEM vector"  // s of FIPS 203, from which decryption works
	sharedSecret  = "shared secret of a wrap" // of X-Wing
	wrapKey       = "key of a wrap"           // that HPKE derives from it
	epochSecret   = "epoch secret"
	topicSecret   = "topic secret"
	rootNode      = "root"
	innerNode     = "tree node above a used leaf"
	leafKey       = "key of a used leaf"
	messageKey    = "message key" // HChaCha20 of a leaf
	siblingOfLeaf = "tree node beside a used leaf"
)

// A secret is 32 bytes or more that must be gone at some time, in each form that reveals it.
type secret struct {
	kind  string
	name  string // which of its kind
	forms [][]byte
}

func newSecret(kind, name string, value []byte) *secret {
	return &secret{kind, name, [][]byte{bytes.Clone(value)}}
}

// keyed is a secret that HMAC-SHA256 is keyed with: its padded forms are as good as itself,
// also in the byte order in which SHA-256 works on them.
func keyed(kind, name string, value []byte) *secret {
	s := newSecret(kind, name, value)
	for _, pad := range []byte{0x36, 0x5c} {
		form := bytes.Clone(value)
		for i := range form {
			form[i] ^= pad
		}
		words := bytes.Clone(form)
		for i := 0; i < len(words); i += 4 {
			slices.Reverse(words[i : i+4])
		}
		s.forms = append(s.forms, form, words)
	}
	return s
}

// secretsOfIdentity are what a node signs with.
func secretsOfIdentity(name string, seed []byte) []*secret {
	expanded := sha512.Sum512(seed)
	scalar := bytes.Clone(expanded[:32])
	scalar[0] &= 248
	scalar[31] = scalar[31]&127 | 64
	return []*secret{newSecret(identitySeed, name, seed), {identityKey, name, [][]byte{expanded[:], scalar}}}
}

// secretsOfPrekey are an X-Wing seed and what the standard library makes of it.
func secretsOfPrekey(t *testing.T, name string, seed []byte) []*secret {
	var expanded [mlkem.SeedSize + 32]byte
	h := sha3.NewSHAKE256()
	h.Write(seed)
	h.Read(expanded[:])
	key, err := mlkem.NewDecapsulationKey768(expanded[:mlkem.SeedSize])
	must(t, err)
	return []*secret{
		newSecret(prekeySeed, name, seed),
		newSecret(prekeyMLKEM, name, expanded[:mlkem.SeedSize]),
		newSecret(prekeyX25519, name, expanded[mlkem.SeedSize:]),
		newSecret(prekeyVector, name, vectorOf(t, key)),
	}
}

// vectorOf reads s out of a key as Go keeps it: the field of that name, 3 x 256 numbers of
// 16 bits.
func vectorOf(t *testing.T, key *mlkem.DecapsulationKey768) []byte {
	inner := reflect.ValueOf(key).Elem().Field(0)
	s := inner.Elem().FieldByName("s")
	if !s.IsValid() || s.Type().Size() != 3*256*2 {
		t.Fatalf("the standard library keeps ML-KEM's vector in another way than this test knows: %v", inner.Type())
	}
	return bytes.Clone(unsafe.Slice((*byte)(s.Addr().UnsafePointer()), s.Type().Size()))
}

// A book is what is known of the fleet's secrets, by kind and name.
type book struct {
	prekeys map[wire.PrekeyID][]byte
	topics  map[abi.Kid][]byte
	roots   map[abi.Kid][32]byte
	noted   map[string]bool // grants and batches, by name
	all     []*secret       // that must be gone once their time is over
	kept    []*secret       // that a producer holds until its epoch ends, beside leaves that were used
}

func newBook() *book {
	return &book{prekeys: map[wire.PrekeyID][]byte{}, topics: map[abi.Kid][]byte{}, roots: map[abi.Kid][32]byte{}, noted: map[string]bool{}}
}

// noteState takes the prekeys and topic secrets out of a copy of a state file. It finds them
// by what stands beside them, and checks each against its public name.
func (b *book) noteState(t *testing.T, file []byte) {
	t.Helper()
	state, err := keyring.ParseState(file)
	must(t, err)
	view := state.View()
	state.Wipe()
	for _, p := range view.Prekeys {
		if b.prekeys[p.ID] != nil {
			continue
		}
		beside := binary.BigEndian.AppendUint64(view.Credential.Serial[:], p.Generation)
		seed := valueAt(file, beside, -32, func(seed []byte) bool {
			key, err := hpke.MLKEM768X25519().NewPrivateKey(seed)
			return err == nil && wire.PrekeyIDOf(key.PublicKey().Bytes()) == p.ID
		})
		if seed == nil {
			t.Fatalf("prekey %v is not found in the state file", p.ID)
		}
		b.prekeys[p.ID] = seed
		b.all = append(b.all, secretsOfPrekey(t, p.ID.String(), seed)...)
	}
	for _, k := range view.Kids {
		if b.topics[k.Kid] != nil {
			continue
		}
		context := contextOf(view.Realm, k.Producer, k.Instance, k.Epoch, k.Topic)
		ts := valueAt(file, k.Kid[:], len(k.Kid), func(ts []byte) bool {
			return keyring.KidOf(wire.Digest(expand(ts, "KX1 commit v1\x00"+context))) == k.Kid
		})
		if ts == nil {
			t.Fatalf("the secret of kid %x is not found in the state file", k.Kid)
		}
		b.topics[k.Kid] = ts
		name := fmt.Sprintf("%s, kid %x", k.Topic, k.Kid)
		root := rootOf(ts, context)
		b.roots[k.Kid] = root
		b.all = append(b.all, keyed(topicSecret, name, ts), newSecret(rootNode, name, root[:]))
	}
}

// valueAt returns the 32 bytes at distance from some place of beside that are right.
func valueAt(file, beside []byte, distance int, right func([]byte) bool) []byte {
	for at := 0; ; at++ {
		i := bytes.Index(file[at:], beside)
		if i < 0 {
			return nil
		}
		at += i
		if from := at + distance; from >= 0 && from+32 <= len(file) && right(file[from:from+32]) {
			return bytes.Clone(file[from : from+32])
		}
	}
}

func contextOf(realm wire.RealmID, producer wire.NodeID, instance wire.InstanceID, epoch uint32, topic string) string {
	b := slices.Concat(realm[:], producer[:], instance[:])
	b = binary.BigEndian.AppendUint32(b, epoch)
	b = binary.BigEndian.AppendUint16(b, uint16(len(topic)))
	return string(b) + topic
}

func expand(secret []byte, info string) []byte {
	b, err := hkdf.Expand(sha256.New, secret, info, 32)
	if err != nil {
		panic(err) // it looks at lengths alone, and they are fixed
	}
	return b
}

// rootOf is PROTOCOL.md §2.3's root.
func rootOf(ts []byte, context string) [32]byte {
	return [32]byte(expand(ts, "KX1 root v1\x00"+context+string(expand(ts, "KX1 commit v1\x00"+context))))
}

// noteGrant opens a grant with the prekeys that are known.
func (b *book) noteGrant(t *testing.T, g *wire.Grant) {
	t.Helper()
	for i := range g.Wraps {
		w := &g.Wraps[i]
		seed := b.prekeys[w.Prekey]
		name := fmt.Sprintf("instance %v, epoch %d", g.Header.Instance, g.Header.Epoch)
		if seed == nil || b.noted[name] {
			continue
		}
		b.noted[name] = true
		key, err := hpke.MLKEM768X25519().NewPrivateKey(seed)
		must(t, err)
		header, pub := g.Header.Digest(), sha256.Sum256(key.PublicKey().Bytes())
		info := slices.Concat([]byte("KX1 grant v1\x00"), header[:], w.Node[:], pub[:])
		es, err := hpke.Open(key, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), info, w.HPKE[:])
		must(t, err)
		shared, wrapping := keysOfWrap(t, seed, info, w.HPKE[:])
		b.all = append(b.all, keyed(epochSecret, name, es), keyed(sharedSecret, name, shared), newSecret(wrapKey, name, wrapping))
		for _, topic := range g.Header.Topics {
			context := contextOf(g.Header.Realm, g.Header.Producer, g.Header.Instance, g.Header.Epoch, topic.Name)
			ts := expand(es, "KX1 topic v1\x00"+context)
			if kid := keyring.KidOf(topic.Commit); b.topics[kid] != nil && !bytes.Equal(b.topics[kid], ts) {
				t.Errorf("kid %x: the grant and the state file disagree", kid)
			}
		}
	}
}

// keysOfWrap are what opens a wrap apart from the prekey: X-Wing's shared secret, and the key
// that HPKE's schedule makes of it (RFC 9180 §5.1, base mode).
func keysOfWrap(t *testing.T, seed, info, wrap []byte) (shared, key []byte) {
	t.Helper()
	var expanded [mlkem.SeedSize + 32]byte
	h := sha3.NewSHAKE256()
	h.Write(seed)
	h.Read(expanded[:])
	pq, err := mlkem.NewDecapsulationKey768(expanded[:mlkem.SeedSize])
	must(t, err)
	x, err := ecdh.X25519().NewPrivateKey(expanded[mlkem.SeedSize:])
	must(t, err)
	ssPQ, err := pq.Decapsulate(wrap[:mlkem.CiphertextSize768])
	must(t, err)
	ephemeral, err := ecdh.X25519().NewPublicKey(wrap[mlkem.CiphertextSize768:][:32])
	must(t, err)
	ssT, err := x.ECDH(ephemeral)
	must(t, err)
	sum := sha3.Sum256(slices.Concat(ssPQ, ssT, ephemeral.Bytes(), x.PublicKey().Bytes(), []byte(`\./`+`/^\`)))
	const suite = "HPKE-v1HPKE\x64\x7a\x00\x01\x00\x03"
	extract := func(salt []byte, label string, ikm []byte) []byte {
		prk, err := hkdf.Extract(sha256.New, append([]byte(suite+label), ikm...), salt)
		must(t, err)
		return prk
	}
	context := "\x00" + string(extract(nil, "psk_id_hash", nil)) + string(extract(nil, "info_hash", info))
	key = expand(extract(sum[:], "secret", nil), "\x00\x20"+suite+"key"+context)
	aead, err := chacha20poly1305.New(key)
	must(t, err)
	nonce, err := hkdf.Expand(sha256.New, extract(sum[:], "secret", nil), "\x00\x0c"+suite+"base_nonce"+context, 12)
	must(t, err)
	_, err = aead.Open(nil, nonce, wrap[mlkem.CiphertextSize768+32:], nil)
	must(t, err)
	return sum[:], key
}

// noteValue derives what a sealed value was sealed with: the nodes above its leaf, the leaf,
// the message's key; and the nodes to the right, which its producer holds until they are used.
// It returns false where the epoch's secret is not known yet.
func (b *book) noteValue(t *testing.T, h wire.PackedHeader) bool {
	t.Helper()
	root, ok := b.roots[h.Kid]
	name := fmt.Sprintf("kid %x, leaf %d", h.Kid, h.Leaf)
	if !ok || b.noted[name] {
		return ok
	}
	b.noted[name] = true
	for level := 1; level < abi.TreeDepth; level++ {
		n := reference.Node(root, h.Leaf, level)
		b.all = append(b.all, newSecret(innerNode, fmt.Sprintf("%s, level %d", name, level), n[:]))
		if right := h.Leaf | (1<<(abi.TreeDepth-level) - 1) + 1; h.Leaf>>(abi.TreeDepth-level)&1 == 0 && right < 1<<abi.TreeDepth {
			n := reference.Node(root, right, level)
			b.kept = append(b.kept, newSecret(siblingOfLeaf, fmt.Sprintf("%s, level %d", name, level), n[:]))
		}
	}
	leaf := reference.Node(root, h.Leaf, abi.TreeDepth)
	key, err := chacha20.HChaCha20(leaf[:], append(h.Salt[:], make([]byte, 8)...))
	must(t, err)
	b.all = append(b.all, newSecret(leafKey, name, leaf[:]), newSecret(messageKey, name, key))
	return true
}
