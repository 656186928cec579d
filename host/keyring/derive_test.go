package keyring

import (
	"crypto/hpke"
	"encoding/hex"
	"testing"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/module/ratchet"
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func count(dst []byte, start byte) {
	for i := range dst {
		dst[i] = start + byte(i)
	}
}

// TestKeyHierarchyMatchesTheVectors runs PROTOCOL.md §2.3 from es to a leaf.
func TestKeyHierarchyMatchesTheVectors(t *testing.T) {
	var es, ts secretKey
	h := wire.GrantHeader{Epoch: 7}
	count(es[:], 0)
	count(h.Realm[:], 0x20)
	count(h.Producer[:], 0x30)
	count(h.Instance[:], 0x40)
	context := topicContext(&h, "orders")
	if err := deriveTopicSecret(&ts, &es, context); err != nil {
		t.Fatal(err)
	}
	commit, err := deriveCommit(&ts, context)
	if err != nil {
		t.Fatal(err)
	}
	kid := KidOf(commit)
	var root, leaf ratchet.Node
	if err := deriveRoot(&root, &ts, context, commit); err != nil {
		t.Fatal(err)
	}
	var tree ratchet.Root
	tree.Reset(&root)
	tree.Seek(0x800000, &leaf)
	for name, v := range map[string]struct {
		got  []byte
		want string
	}{
		"ts":             {ts[:], "aa362b1f7f5dce67a4b9c718c3cb4d2053decb8a0340dbc050295f59c455c1d6"},
		"commit":         {commit[:], "30ef425ae57f6c8fbe73c34122693e6b994bcf8dbce30f10273fdaa12eb6728c"},
		"kid":            {kid[:], "5edb50075e22bbf1"},
		"root":           {root[:], "4f8e9ae6b440827a0fe2be7ab2fcfe53710c1ba7032b098b31bb7212380c1bd1"},
		"leaf[0x800000]": {leaf[:], "df958fe7ef8016fd9ddb3fddf10fa6cfbb42e546c8c0a4e8e6b1e213cae3b943"},
	} {
		if hex.EncodeToString(v.got) != v.want {
			t.Errorf("%s = %x, want %s", name, v.got, v.want)
		}
	}
}

// TestLeaseAndRootMeetInTheSameLeaf: what the producer leases and what the consumer's root
// leads to is one tree.
func TestLeaseAndRootMeetInTheSameLeaf(t *testing.T) {
	_, prod, cons := pair(t)
	prod.grant("orders")
	cons.follow()
	for range 3 {
		l := prod.lease("orders")
		root, err := cons.consumer.Root("orders", l.Kid, cons.now)
		if err != nil {
			t.Fatal(err)
		}
		var sub ratchet.Stack
		var tree ratchet.Root
		var a, b ratchet.Node
		sub.Reset(l.Start, l.Level, (*ratchet.Node)(&l.Node))
		tree.Reset((*ratchet.Node)(&root.Root))
		for range 5 {
			i, _ := sub.Take(&a)
			if !tree.Seek(i, &b) || a != b {
				t.Fatalf("leaf %d differs", i)
			}
		}
	}
}

// TestFrozenWrapStillOpens holds Go's X-Wing and HPKE to what was stored when this was
// written: a grant must open after an upgrade of the toolchain.
func TestFrozenWrapStillOpens(t *testing.T) {
	var seed, es, want secretKey
	count(seed[:], 0x60)
	count(want[:], 0x00)
	pub, err := kemPublic(&seed)
	if err != nil {
		t.Fatal(err)
	}
	if got := wire.PrekeyIDOf(pub).String(); got != frozenPrekeyID {
		t.Errorf("prekey id %s, want %s", got, frozenPrekeyID)
	}
	var header wire.Digest
	var node wire.NodeID
	count(header[:], 0x80)
	count(node[:], 0x30)
	wrap := unhex(t, frozenWrap)
	if err := unwrapSecret(&es, &seed, grantInfo(header, node, pub), wrap); err != nil {
		t.Fatal(err)
	}
	if es != want {
		t.Errorf("es = %x", es)
	}
	header[0] ^= 1
	if err := unwrapSecret(&es, &seed, grantInfo(header, node, pub), wrap); err == nil {
		t.Error("opened under another header")
	}
}

func TestSuiteIsTheOneOfTheProtocol(t *testing.T) {
	if kem, kdf, aead := hpke.MLKEM768X25519().ID(), hpke.HKDFSHA256().ID(), hpke.ChaCha20Poly1305().ID(); kem != 0x647a || kdf != 1 || aead != 3 {
		t.Errorf("kem %#x, kdf %#x, aead %#x", kem, kdf, aead)
	}
}

func TestLowOrderKeysAreRefused(t *testing.T) {
	var seed secretKey
	pub, err := kemPublic(&seed)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := usableKEM(pub); err != nil {
		t.Fatal(err)
	}
	clear(pub[len(pub)-32:])
	if _, err := usableKEM(pub); err == nil {
		t.Error("an X25519 point of low order was accepted")
	}
	if _, err := usableKEM(make([]byte, wire.KEMPublicSize-1)); err == nil {
		t.Error("a short key was accepted")
	}
}

func TestSecretsDoNotPrint(t *testing.T) {
	var k secretKey
	count(k[:], 1)
	if s := (&k).String(); s != "secret" {
		t.Errorf("a key prints as %q", s)
	}
}
