package filter

import (
	"bytes"
	"testing"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/module/kernel"
	"github.com/wasm-e2ee/wasm-e2ee/module/ratchet"
)

// TestVectorOfTheRecordFormat seals and opens the single value of PROTOCOL.md §2.3 with the
// parts that compacted topics will use.
func TestVectorOfTheRecordFormat(t *testing.T) {
	var tree ratchet.Root
	root := ratchet.Node(unhex(t, "4f8e9ae6b440827a0fe2be7ab2fcfe53710c1ba7032b098b31bb7212380c1bd1"))
	tree.Reset(&root)
	var leaf ratchet.Node
	if !tree.Seek(1, &leaf) {
		t.Fatal("no leaf 1")
	}
	h := wire.RecordHeader{Kid: abi.Kid(unhex(t, "5edb50075e22bbf1")), Leaf: 1, Ord: 2, Salt: [8]byte(unhex(t, "5051525354555657"))}
	value := append(h.Append(nil), "hello"...)
	value = append(value, make([]byte, wire.TagSize)...)
	header := (*[wire.RecordHeaderSize]byte)(value)
	pctx := wire.Pctx([]byte("orders"), 3)
	aad := wire.AppendRecordAAD(nil, header, &pctx, []byte("k1"), nil)
	nonce := h.Nonce()
	key := (*[kernel.KeySize]byte)(&leaf)
	kernel.Seal(value[wire.RecordHeaderSize:], key, &nonce, aad)
	if want := unhex(t, "e1105edb50075e22bbf1000001000250515253545556571c0e641831e175e148bf5c13543e996a732e67d99a"); !bytes.Equal(value, want) {
		t.Fatalf("sealed %x, want %x", value, want)
	}
	other := wire.AppendRecordAAD(nil, header, &pctx, []byte("k2"), nil)
	if kernel.Open(value[wire.RecordHeaderSize:], key, &nonce, other) {
		t.Error("opened under another record key")
	}
	if !kernel.Open(value[wire.RecordHeaderSize:], key, &nonce, aad) || string(value[wire.RecordHeaderSize:][:5]) != "hello" {
		t.Errorf("opened %x", value)
	}
}
