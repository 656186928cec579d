package reference

import (
	"bytes"
	"encoding/hex"
	"testing"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The vectors of PROTOCOL.md §2.3.
func TestReferenceAgreesWithTheProtocol(t *testing.T) {
	s := Seal{Leaf: 2, Topic: "orders", Partition: 3}
	copy(s.Root[:], unhex(t, "4f8e9ae6b440827a0fe2be7ab2fcfe53710c1ba7032b098b31bb7212380c1bd1"))
	copy(s.Kid[:], unhex(t, "5edb50075e22bbf1"))
	copy(s.Salt[:], unhex(t, "5051525354555657"))
	last := Node(s.Root, 0xffffff, abi.TreeDepth)
	if want := unhex(t, "63a713b455c18f633c8d7fce7a6ce93137010c0bd7c97995b202ed88df993604"); !bytes.Equal(last[:], want) {
		t.Errorf("last leaf %x, want %x", last, want)
	}
	client := Join(kafka.BatchHeader{BaseTimestamp: 1700000000000, MaxTimestamp: 1700000000000, NumRecords: 1},
		unhex(t, "1a000000046b310a68656c6c6f00"))
	value, err := s.Value(client)
	if err != nil {
		t.Fatal(err)
	}
	if want := unhex(t, "e2105edb50075e22bbf10000020000000150515253545556571055af87542607952089388220d3616157c5223c649745b3a371629638db4020c5723cc709149bd5913f7e45e9df48"); !bytes.Equal(value, want) {
		t.Errorf("value %x, want %x", value, want)
	}
	sealed, err := s.Batch(client)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := s.Open(sealed); err != nil || !bytes.Equal(got, client) {
		t.Errorf("opened %x, %v", got, err)
	}
	s.Partition++
	if _, err := s.Open(sealed); err == nil {
		t.Error("opened at another partition")
	}
}
