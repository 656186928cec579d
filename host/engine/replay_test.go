package engine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
)

// at gives a stored batch the offset that a broker assigned; the checksum does not cover it.
func at(b []byte, offset int64) []byte {
	b = bytes.Clone(b)
	binary.BigEndian.PutUint64(b, uint64(offset))
	return b
}

func TestBatchThatKeysRefuseIsNotReturned(t *testing.T) {
	e := newEngine(t, newTestKeys(t), 2)
	sealed, err := e.Seal(t.Context(), "orders", 3, batch([]byte("v")))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time as after a seek back
		if _, err := e.Open(t.Context(), "orders", 3, at(sealed, 17)); err != nil {
			t.Fatal(err)
		}
	}
	other, err := e.Seal(t.Context(), "orders", 3, batch([]byte("w")))
	if err != nil {
		t.Fatal(err)
	}
	records := append(at(other, 18), at(sealed, 19)...)
	opened, err := e.Open(t.Context(), "orders", 3, records)
	if !errors.Is(err, abi.StatusReplayed) {
		t.Fatalf("error %v, want %v", err, abi.StatusReplayed)
	}
	if !bytes.Equal(opened, at(batch([]byte("w")), 18)) {
		t.Error("what came before the replayed batch was not returned alone")
	}
}
