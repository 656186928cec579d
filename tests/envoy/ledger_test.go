package envoy

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/clients"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/records"
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
	found, err := clients.FranzConsume(t.Context(), clients.Job{Bootstrap: w.broker.Bootstrap, Topic: topic, Count: int(w.stored(t, topic)), Timeout: 2 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	batches, epochs, faults := audit(found)
	for _, fault := range faults[:min(len(faults), 10)] {
		t.Errorf("topic %s: %s", topic, fault)
	}
	if n := len(faults) - 10; n > 0 {
		t.Errorf("and %d more", n)
	}
	return batches, epochs
}

// audit says what is wrong with records as a broker has them: one that is neither a sealed value
// nor a stub, and a sealed value whose leaf another has.
func audit(found []records.Record) (batches, epochs int, faults []string) {
	uses, kids := map[use]string{}, map[abi.Kid]bool{}
	for _, r := range found {
		at := fmt.Sprintf("partition %d, offset %d", r.Partition, r.Offset)
		if r.Key == nil && r.Headers == nil && r.Value != nil && len(r.Value) == 0 {
			continue
		}
		h, err := wire.ParsePackedHeader(r.Value)
		if err != nil || r.Key != nil || r.Headers != nil {
			faults = append(faults, at+": not sealed")
		} else if first, again := uses[use{h.Kid, h.Leaf}]; again {
			faults = append(faults, fmt.Sprintf("leaf %d of kid %x sealed twice: %s, and %s", h.Leaf, h.Kid, first, at))
		} else {
			uses[use{h.Kid, h.Leaf}], kids[h.Kid] = at, true
		}
	}
	return len(uses), len(kids), faults
}

// stored are records as a broker has them: a sealed value for each leaf.
func stored(kid abi.Kid, leaves ...uint32) (all []records.Record) {
	for i, leaf := range leaves {
		h := wire.PackedHeader{Kid: kid, Leaf: leaf, NumRecords: 1, Salt: [8]byte{byte(i)}}
		value := append(h.Append(nil), make([]byte, wire.PackedOverhead-wire.PackedHeaderSize+10)...)
		all = append(all, records.Record{Partition: int32(i % 2), Offset: int64(i), Value: value})
	}
	return all
}

func TestTheLedgerFindsALeafThatSealsTwice(t *testing.T) {
	one, other := abi.Kid{1}, abi.Kid{2}
	honest := append(stored(one, 1, 2, 3, 4), stored(other, 1, 2)...)
	honest = append(honest, records.Record{Value: []byte{}}) // a stub
	if batches, epochs, faults := audit(honest); batches != 6 || epochs != 2 || len(faults) != 0 {
		t.Errorf("%d batches, %d epochs, %q", batches, epochs, faults)
	}
	for name, c := range map[string]struct {
		planted []records.Record
		fault   string
	}{
		"a leaf again":   {stored(one, 3), "leaf 3 of kid 0100000000000000 sealed twice: partition 0, offset 2, and partition 0, offset 0"},
		"plaintext":      {[]records.Record{{Value: []byte("order")}}, "not sealed"},
		"a key in clear": {[]records.Record{{Key: []byte("k"), Value: stored(one, 9)[0].Value}}, "not sealed"},
		"a header":       {[]records.Record{{Headers: []records.Header{{Name: "trace"}}, Value: stored(one, 9)[0].Value}}, "not sealed"},
		"a tombstone":    {[]records.Record{{}}, "not sealed"},
	} {
		_, _, faults := audit(append(slices.Clone(honest), c.planted...))
		if len(faults) != 1 || !strings.Contains(faults[0], c.fault) {
			t.Errorf("%s: %q", name, faults)
		}
	}
}
