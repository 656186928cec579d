package envoy

import (
	"fmt"
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/clients"
)

// A use is the one key of a batch: a leaf of an epoch.
type use struct {
	kid  abi.Kid
	leaf uint32
}

// ledger reads a topic from its brokers as they see it and fails the test for a record that is
// neither a sealed value nor a stub, and for a leaf that sealed two batches. It returns how many
// batches there are, and under how many epochs.
func (w *world) ledger(t *testing.T, topic string) (batches, epochs int) {
	t.Helper()
	stored, err := clients.FranzConsume(t.Context(), clients.Job{Bootstrap: w.broker.Bootstrap, Topic: topic, Count: int(w.stored(t, topic)), Timeout: 2 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	uses, kids, wrong := map[use]string{}, map[abi.Kid]bool{}, 0
	for _, r := range stored {
		at := fmt.Sprintf("topic %s, partition %d, offset %d", topic, r.Partition, r.Offset)
		if r.Key == nil && r.Headers == nil && r.Value != nil && len(r.Value) == 0 {
			continue
		}
		h, err := wire.ParsePackedHeader(r.Value)
		if err != nil || r.Key != nil || r.Headers != nil {
			t.Errorf("%s: not sealed", at)
		} else if first, again := uses[use{h.Kid, h.Leaf}]; again {
			t.Errorf("leaf %d of kid %x sealed twice: %s, and %s", h.Leaf, h.Kid, first, at)
		} else {
			uses[use{h.Kid, h.Leaf}], kids[h.Kid] = at, true
			continue
		}
		if wrong++; wrong == 10 {
			t.Fatal("and so on")
		}
	}
	return len(uses), len(kids)
}
