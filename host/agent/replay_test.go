package agent

import (
	"errors"
	"testing"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
)

// held is what is known of a kid whose key is held and whose ends are not noted yet.
func held(abi.Kid) (map[int32]int64, bool) { return nil, true }

// see asks the guard about a batch whose kid's ends are not known yet.
func see(t *testing.T, g *replayGuard, kid abi.Kid, leaf uint32, partition int32, offset int64) bool {
	t.Helper()
	first, _, err := g.first(kid, leaf, partition, offset, held)
	if err != nil {
		t.Fatal(err)
	}
	return first
}

func TestBatchAtAnotherOffsetIsAReplay(t *testing.T) {
	g := newReplayGuard(100)
	kid := abi.Kid{1}
	for range 2 { // the second time as after a seek back
		if !see(t, g, kid, 5, 3, 17) {
			t.Fatal("a batch at its own offset is refused")
		}
	}
	if see(t, g, kid, 5, 3, 18) || see(t, g, kid, 5, 3, 16) {
		t.Error("another offset is first")
	}
	if !see(t, g, kid, 5, 4, 18) || !see(t, g, kid, 6, 3, 18) || !see(t, g, abi.Kid{2}, 5, 3, 18) {
		t.Error("another batch is refused")
	}
}

func TestBatchBehindItsEpochsEndIsAReplayWithoutAnyMap(t *testing.T) {
	g := newReplayGuard(2)
	kid := abi.Kid{1}
	ends := map[int32]int64{3: 20}
	known := func(abi.Kid) (map[int32]int64, bool) { return ends, true }
	see(t, g, kid, 0, 3, 10)
	see(t, g, kid, 1, 3, 11) // no room: from here on the kid has its ends alone
	if !see(t, g, kid, 0, 3, 25) {
		t.Fatal("refused without entries and without ends")
	}
	g.noteEnds(known)
	if see(t, g, kid, 0, 3, 25) || see(t, g, kid, 7, 3, 20) {
		t.Error("a batch behind the end is first")
	}
	if !see(t, g, kid, 1, 3, 19) {
		t.Error("a batch before the end is refused")
	}
	other := abi.Kid{2}
	if first, _, err := g.first(other, 0, 3, 20, known); first || err != nil {
		t.Errorf("a kid opened first behind its end: first %v, %v", first, err)
	}
}

func TestReplayGuardForgetsTheOldestEpochWhenFull(t *testing.T) {
	g := newReplayGuard(5)
	old, young := abi.Kid{1}, abi.Kid{2}
	see(t, g, old, 0, 0, 100)
	see(t, g, old, 1, 0, 101)
	see(t, g, young, 0, 0, 102)
	if see(t, g, young, 0, 0, 103) || see(t, g, old, 1, 0, 100) {
		t.Error("another offset is first")
	}
	if !see(t, g, young, 1, 0, 103) {
		t.Error("a new batch is refused")
	}
	if g.n != 3 || len(g.age) != 1 || see(t, g, young, 0, 0, 104) {
		t.Errorf("%d entries, %d kids; want the young one's 3", g.n, len(g.age))
	}
	g.forget([]abi.Kid{young, old})
	if g.n != 0 || len(g.age) != 0 || len(g.kids) != 0 {
		t.Errorf("%d entries, %d kids are left", g.n, len(g.kids))
	}
}

func TestBatchOfAnErasedKeyIsNotDelivered(t *testing.T) {
	g := newReplayGuard(100)
	_, _, err := g.first(abi.Kid{1}, 0, 0, 0, func(abi.Kid) (map[int32]int64, bool) { return nil, false })
	if !errors.Is(err, abi.StatusErased) || len(g.kids) != 0 {
		t.Errorf("error %v, %d kids", err, len(g.kids))
	}
}
