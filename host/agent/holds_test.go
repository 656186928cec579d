package agent

import (
	"slices"
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

func TestADataPlaneMayKeepWhatItsAgentHolds(t *testing.T) {
	w := newWorld(t)
	consumer := w.start(w.enrol(wire.RoleConsume, orders, billing), slow).ready()
	producer := w.start(w.enrol(wire.RoleProduce, orders, nil), slow).ready()
	lease := producer.lease("orders")
	consumer.opens(lease)
	for name, r := range map[string]*running{"producer": producer, "consumer": consumer} {
		if got := r.Holds([]abi.Kid{{1}, lease.Kid}); !slices.Equal(got, []abi.Kid{lease.Kid}) {
			t.Errorf("the %s has %x alone, and holds %x", name, lease.Kid, got)
		}
		r.stop()
		if got := r.Holds([]abi.Kid{lease.Kid}); len(got) != 0 {
			t.Errorf("the %s has ended, and holds %x", name, got)
		}
	}
}

func TestADataPlaneMayNotKeepWhatItsAgentErased(t *testing.T) {
	w := newWorld(t)
	short := quick
	short.HardCap = 2 * time.Second
	consumer := w.start(w.enrol(wire.RoleConsume, orders, billing), short).ready()
	producer := w.start(w.enrol(wire.RoleProduce, orders, nil), short).ready()
	lease := producer.lease("orders")
	consumer.opens(lease)
	for name, r := range map[string]*running{"producer": producer, "consumer": consumer} {
		eventually(t, name+" erases", func() bool { return r.hasErased(lease.Kid) })
		if got := r.Holds([]abi.Kid{lease.Kid}); len(got) != 0 {
			t.Errorf("the %s may keep what was erased", name)
		}
	}
}
