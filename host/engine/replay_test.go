package engine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"log/slog"
	"testing"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
)

// at gives a stored batch the offset that a broker assigned; the checksum does not cover it.
func at(b []byte, offset int64) []byte {
	b = bytes.Clone(b)
	binary.BigEndian.PutUint64(b, uint64(offset))
	return b
}

func TestBatchAtAnotherOffsetIsRefused(t *testing.T) {
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

func TestReplayGuardForgetsTheOldestEpochWhenFull(t *testing.T) {
	g := newReplayGuard(slog.New(slog.DiscardHandler), 3)
	old, young := abi.Kid{1}, abi.Kid{2}
	g.first(old, 0, 0, 100)
	g.first(old, 1, 0, 101)
	g.first(young, 0, 0, 102)
	if g.first(young, 0, 0, 103) || g.first(old, 1, 0, 100) {
		t.Error("another offset is first")
	}
	if !g.first(young, 1, 0, 103) {
		t.Error("a new batch is refused")
	}
	if len(g.seen) != 1 || g.n != 2 || len(g.kids) != 1 {
		t.Errorf("%d kids, %d batches; want the young one's 2", len(g.seen), g.n)
	}
	g.forget([]abi.Kid{young, old})
	if g.n != 0 || len(g.kids) != 0 {
		t.Errorf("%d batches, %d kids are left", g.n, len(g.kids))
	}
}
