package agent

import (
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

func TestGrantsOfANodeAreReadFromATimeOn(t *testing.T) {
	w := newWorld(t)
	cons := w.start(w.enrol(wire.RoleConsume, []string{"orders"}, nil), quick).ready()
	prod := w.start(w.enrol(wire.RoleProduce, []string{"orders"}, nil), quick).ready()
	kid := prod.lease("orders").Kid
	node := cons.Snapshot().Node
	grants, _, err := ReadGrants(t.Context(), w.kafka, node, time.Now().Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, g := range grants {
		found = found || keyring.KidOf(g.Header.Topics[0].Commit) == kid
		if g.Wrap(node) == nil {
			t.Errorf("epoch %d has no wrap for the node", g.Header.Epoch)
		}
	}
	if !found {
		t.Errorf("kid %x is not in %d grants", kid, len(grants))
	}
	if later, _, err := ReadGrants(t.Context(), w.kafka, node, time.Now().Add(time.Hour)); err != nil || len(later) != 0 {
		t.Errorf("from an hour hence: %d grants, %v", len(later), err)
	}
	if other, _, err := ReadGrants(t.Context(), w.kafka, prod.Snapshot().Node, time.Now().Add(-time.Hour)); err != nil || len(other) != 0 {
		t.Errorf("of a node that nothing is granted to: %d grants, %v", len(other), err)
	}
}
