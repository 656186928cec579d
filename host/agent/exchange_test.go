package agent

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

var (
	orders  = []string{"orders"}
	billing = []string{"billing"}
)

// slow is quick with epochs that outlive a test, for tests that are not about rotation.
var slow = func() keyring.Timing {
	t := quick
	t.Epoch, t.Lead, t.Window = time.Minute, 10*time.Second, time.Minute
	t.HardCap = time.Hour
	t.MaxEpoch = time.Hour
	return t
}()

func TestLeaseAndRootAgree(t *testing.T) {
	w := newWorld(t)
	consumer := w.start(w.enrol(wire.RoleConsume, orders, billing), slow).ready()
	producer := w.start(w.enrol(wire.RoleProduce, orders, nil), slow).ready()
	first := producer.lease("orders")
	consumer.opens(first)

	second := producer.lease("orders")
	if second.Kid != first.Kid {
		t.Errorf("two leases of one epoch have kids %x and %x", first.Kid, second.Kid)
	}
	size := func(l abi.Lease) uint32 { return 1 << (abi.TreeDepth - l.Level) }
	if first.Start < second.Start+size(second) && second.Start < first.Start+size(first) {
		t.Errorf("leases overlap: %d+%d and %d+%d", first.Start, size(first), second.Start, size(second))
	}
	consumer.opens(second)

	p, c := producer.Snapshot(), consumer.Snapshot()
	if len(p.Epochs) != 1 || p.Epochs[0].Kid != first.Kid || p.Epochs[0].Recipients != 1 || p.EpochsBegun != 1 || len(p.Held) != 0 {
		t.Errorf("producer's snapshot: %+v", p)
	}
	if len(c.Held) != 1 || c.Held[0].Kid != first.Kid || c.RootsReceived != 1 || c.PrekeysMade == 0 || len(c.Epochs) != 0 {
		t.Errorf("consumer's snapshot: %+v", c)
	}
}

func TestCallersAtOnceShareOneGrant(t *testing.T) {
	w := newWorld(t)
	topics := []string{"orders", "payments", "returns"}
	for _, topic := range topics[1:] {
		w.topic(topic, nil)
	}
	consumer := w.start(w.enrol(wire.RoleConsume, topics, billing), slow).ready()
	producer := w.start(w.enrol(wire.RoleProduce, []string{"*"}, nil), slow).ready()
	var wg sync.WaitGroup
	var mu sync.Mutex
	var leases []abi.Lease
	for i := range 30 {
		wg.Go(func() {
			l := producer.lease(topics[i%len(topics)])
			mu.Lock()
			defer mu.Unlock()
			leases = append(leases, l)
		})
	}
	wg.Wait()
	for _, l := range leases {
		consumer.opens(l)
	}
	for _, p := range w.c.PartitionInfos(grantsTopic) {
		if p.HighWatermark != 1 {
			t.Errorf("partition %d of the grants topic holds %d records, want one grant", p.Partition, p.HighWatermark)
		}
	}
}

func TestEpochsRotateWhileLeasesAreTaken(t *testing.T) {
	w := newWorld(t)
	consumer := w.start(w.enrol(wire.RoleConsume, orders, billing), quick).ready()
	producer := w.start(w.enrol(wire.RoleProduce, orders, nil), quick).ready()
	seen := make(map[abi.Kid]bool)
	var previous abi.Kid
	eventually(t, "five epochs", func() bool {
		l := producer.lease("orders")
		if l.UseBy < uint64(time.Now().UnixMilli()) {
			t.Fatalf("lease of kid %x is past its use_by", l.Kid)
		}
		consumer.opens(l)
		if l.Kid != previous && seen[l.Kid] {
			t.Fatalf("kid %x is used again", l.Kid)
		}
		seen[l.Kid], previous = true, l.Kid
		return len(seen) >= 5
	})
	for kid := range seen {
		if kid != previous {
			eventually(t, "replaced epochs taken from the data plane", func() bool { return producer.hasErased(kid) })
		}
	}
	if s := consumer.Snapshot(); s.PrekeysMade < 2 {
		t.Errorf("%d prekeys in %d epochs", s.PrekeysMade, len(seen))
	}
}

func TestIdleTopicPublishesNothing(t *testing.T) {
	w := newWorld(t)
	w.start(w.enrol(wire.RoleConsume, orders, billing), quick).ready()
	producer := w.start(w.enrol(wire.RoleProduce, orders, nil), quick).ready()
	l := producer.lease("orders")
	eventually(t, "the epoch's end", func() bool { return producer.hasErased(l.Kid) })
	if s := producer.Snapshot(); s.EpochsBegun > 2 { // traffic in the first may prepare one more
		t.Errorf("%d epochs begun without traffic", s.EpochsBegun)
	}
}

func TestEveryGroupReads(t *testing.T) {
	w := newWorld(t)
	one := w.start(w.enrol(wire.RoleConsume, orders, billing), slow).ready()
	two := w.start(w.enrol(wire.RoleConsume, []string{"ord*"}, []string{"audit"}), slow).ready()
	producer := w.start(w.enrol(wire.RoleProduce, orders, nil), slow).ready()
	l := producer.lease("orders")
	one.opens(l)
	two.opens(l)
}

func TestLateConsumerIsInLaterEpochs(t *testing.T) {
	w := newWorld(t)
	timing := quick
	w.start(w.enrol(wire.RoleConsume, orders, billing), timing).ready()
	producer := w.start(w.enrol(wire.RoleProduce, orders, nil), timing).ready()
	before := producer.lease("orders")
	late := w.start(w.enrol(wire.RoleConsume, orders, billing), timing).ready()
	late.refuses("orders", before.Kid, abi.StatusHistory)
	eventually(t, "an epoch for the late consumer", func() bool {
		l := producer.lease("orders")
		_, err := late.root("orders", l.Kid)
		return err == nil
	})
}

func TestConsumerReadsWhatWasSealedWhileItWasAway(t *testing.T) {
	w := newWorld(t)
	state := w.enrol(wire.RoleConsume, orders, billing)
	w.start(state, slow).ready().stop()
	producer := w.start(w.enrol(wire.RoleProduce, orders, nil), slow).ready()
	l := producer.lease("orders")
	producer.stop()
	w.start(state, slow).opens(l)
}

func TestNodeWithoutTheRoleOrTopicIsNotEntitled(t *testing.T) {
	w := newWorld(t)
	w.topic("payments", nil)
	consumer := w.start(w.enrol(wire.RoleConsume, orders, billing), slow).ready()
	producer := w.start(w.enrol(wire.RoleProduce, orders, nil), slow).ready()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := producer.Lease(ctx, "payments"); !errors.Is(err, abi.StatusNotEntitled) {
		t.Errorf("lease for a topic outside the credential: %v", err)
	}
	if _, err := consumer.Lease(ctx, "orders"); !errors.Is(err, abi.StatusNotEntitled) {
		t.Errorf("lease without the role: %v", err)
	}
	producer.refuses("orders", abi.Kid{1}, abi.StatusNotEntitled)
	consumer.refuses("payments", abi.Kid{1}, abi.StatusNotEntitled)
	if ctx.Err() != nil {
		t.Error("the answers did not come at once")
	}
}

func TestNobodyToReadIsRefusedByName(t *testing.T) {
	w := newWorld(t)
	producer := w.start(w.enrol(wire.RoleProduce, orders, nil), slow, func(c *Config) {
		c.RequireGroups = func(string) []string { return []string{"billing", "audit"} }
	}).ready()
	refused := func(want string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		_, err := producer.Lease(ctx, "orders")
		if !errors.Is(err, abi.StatusNoRecipient) || !strings.Contains(err.Error(), "orders") || !strings.Contains(err.Error(), want) {
			t.Fatalf("lease: %v, want one that names topic and %q", err, want)
		}
	}
	refused("orders")
	one := w.start(w.enrol(wire.RoleConsume, orders, billing), slow).ready()
	refused("audit")
	two := w.start(w.enrol(wire.RoleConsume, orders, []string{"audit"}), slow).ready()
	l := producer.lease("orders")
	one.opens(l)
	two.opens(l)
}

func TestUnknownKidIsUnreadableInTime(t *testing.T) {
	w := newWorld(t)
	consumer := w.start(w.enrol(wire.RoleConsume, orders, billing), slow).ready()
	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	began := time.Now()
	if _, err := consumer.Root(short, "orders", 0, abi.Kid{7}); !errors.Is(err, abi.StatusPending) {
		t.Fatalf("within the first moments: %v, want pending", err)
	}
	consumer.refuses("orders", abi.Kid{7}, abi.StatusUnreadable)
	if took := time.Since(began); took > lateness+2*time.Second {
		t.Errorf("took %v", took)
	}
}

func TestGrantThatArrivesLateEndsTheWait(t *testing.T) {
	w := newWorld(t)
	consumer := w.start(w.enrol(wire.RoleConsume, orders, billing), slow).ready()
	producer := w.start(w.enrol(wire.RoleProduce, orders, nil), slow).ready()
	l := producer.lease("orders")
	consumer.opens(l)
	// Another consumer starts where the broker does not serve it the grants yet.
	state := w.enrol(wire.RoleConsume, orders, billing)
	w.start(state, slow).ready().stop()
	producer.stop()
	producer = w.start(w.enrol(wire.RoleProduce, orders, nil), slow).ready()
	l = producer.lease("orders")
	held := make(chan struct{})
	w.c.ControlKey(int16(kmsg.Fetch), func(kmsg.Request) (kmsg.Response, error, bool) {
		w.c.KeepControl()
		select {
		case <-held:
			return nil, nil, false
		default:
			return nil, errors.New("not yet"), true
		}
	})
	late := w.start(state, slow)
	for began := time.Now(); time.Since(began) < lateness+time.Second; {
		short, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		_, err := late.Root(short, "orders", 0, l.Kid)
		cancel()
		if !errors.Is(err, abi.StatusPending) {
			t.Fatalf("while the grants cannot be read: %v, want pending", err)
		}
	}
	close(held)
	late.opens(l)
}

func TestTopicJoinsTheFlightThatHasIt(t *testing.T) {
	var fs flights
	started, end := make(chan *flight), make(chan struct{})
	fly := func(f *flight) { started <- f; <-end }
	first := fs.join("orders", fly)
	if fs.join("orders", fly) != first || fs.join("payments", fly) != first {
		t.Error("topics that gather are in different flights")
	}
	<-started
	if fs.join("orders", fly) != first {
		t.Error("a topic under way starts a second flight")
	}
	second := fs.join("returns", fly)
	if second == first {
		t.Error("a topic joins a flight that has left without it")
	}
	end <- struct{}{}
	<-first.done
	<-started
	close(end)
	fs.close()
	late := fs.join("orders", fly)
	<-late.done
	if !errors.Is(late.errs["orders"], abi.StatusShuttingDown) {
		t.Errorf("after the end: %v", late.errs)
	}
}
