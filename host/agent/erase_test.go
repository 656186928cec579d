package agent

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// brief is quick with a window that lets a test look before an erasure.
var brief = func() keyring.Timing {
	t := quick
	t.Window = time.Second
	return t
}()

// sealed is a value that carries kid, as a data plane would write it.
func sealed(kid abi.Kid) []byte {
	h := wire.PackedHeader{Kid: kid, NumRecords: 1}
	return append(h.Append(nil), make([]byte, 64)...)
}

// send writes a value to a partition of orders and returns the offset after it.
func (w *world) send(partition int32, value []byte) int64 {
	w.t.Helper()
	cl := client(w.t, w.c)
	r := &kgo.Record{Topic: "orders", Partition: partition, Value: value}
	if err := cl.ProduceSync(w.t.Context(), r).FirstErr(); err != nil {
		w.t.Fatal(err)
	}
	return r.Offset + 1
}

func (w *world) commit(group string, offsets map[int32]int64) {
	w.t.Helper()
	var os kadm.Offsets
	for p, at := range offsets {
		os.AddOffset("orders", p, at, -1)
	}
	resp, err := kadm.NewClient(client(w.t, w.c)).CommitOffsets(w.t.Context(), group, os)
	if err == nil {
		err = resp.Error()
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// held makes one epoch of orders that the consumer holds, and ends its producer.
func (w *world) held(consumer *running, timing keyring.Timing) abi.Lease {
	w.t.Helper()
	producer := w.start(w.enrol(wire.RoleProduce, orders, nil), timing).ready()
	l := producer.lease("orders")
	consumer.opens(l)
	producer.stop()
	return l
}

func TestWhatTheGroupHasReadIsErased(t *testing.T) {
	w := newWorld(t)
	consumer := w.start(w.enrol(wire.RoleConsume, orders, billing), brief).ready()
	l := w.held(consumer, brief)
	end := w.send(0, sealed(l.Kid))
	w.send(1, []byte("something else")) // never committed: only a scan shows that it does not matter
	w.commit("billing", map[int32]int64{0: end})
	eventually(t, "erased", func() bool { return consumer.hasErased(l.Kid) })
	consumer.refuses("orders", l.Kid, abi.StatusErased)
	useBy := time.UnixMilli(int64(l.UseBy))
	if least := useBy.Add(brief.Skew + brief.Settle + brief.Window); time.Now().Before(least) {
		t.Errorf("erased %v before its window was over", time.Until(least))
	}
	if s := consumer.Snapshot(); s.RootsErased != 1 || len(s.Held) != 0 {
		t.Errorf("snapshot: %+v", s)
	}
}

func TestWhatTheGroupHasNotReadIsKept(t *testing.T) {
	w := newWorld(t)
	consumer := w.start(w.enrol(wire.RoleConsume, orders, billing), brief).ready()
	l := w.held(consumer, brief)
	first := w.send(0, sealed(l.Kid))
	end := w.send(0, sealed(l.Kid))
	w.commit("billing", map[int32]int64{0: first})
	eventually(t, "end offsets noted", func() bool {
		held := consumer.Snapshot().Held
		return len(held) == 1 && held[0].EndsNoted
	})
	// Two windows later: a second round of questions and everything that it could erase.
	wait := time.NewTimer(2*brief.Window + time.Second)
	for over := false; !over; {
		select {
		case <-wait.C:
			over = true
		default:
			consumer.opens(l)
			time.Sleep(20 * time.Millisecond)
		}
	}
	w.commit("billing", map[int32]int64{0: end})
	eventually(t, "erased once it was read", func() bool { return consumer.hasErased(l.Kid) })
}

// A client that stops in the middle of a batch commits there (Java does at each poll), and
// needs the batch's key when it goes on.
func TestCommitInsideABatchKeepsItsKey(t *testing.T) {
	w := newWorld(t)
	consumer := w.start(w.enrol(wire.RoleConsume, orders, billing), brief).ready()
	l := w.held(consumer, brief)
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ManualFlushing()}, w.kafka...)...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	var last *kgo.Record
	for _, value := range [][]byte{sealed(l.Kid), {}, {}, {}} {
		last = &kgo.Record{Topic: "orders", Value: value}
		cl.Produce(t.Context(), last, nil)
	}
	if err := cl.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.commit("billing", map[int32]int64{0: 2})
	eventually(t, "end offsets noted", func() bool {
		held := consumer.Snapshot().Held
		return len(held) == 1 && held[0].EndsNoted
	})
	for end := time.Now().Add(2*brief.Window + time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		consumer.opens(l)
	}
	w.commit("billing", map[int32]int64{0: last.Offset + 1})
	eventually(t, "erased once the batch was read", func() bool { return consumer.hasErased(l.Kid) })
}

func TestScanOfALogThatWasCutEndsAtOnce(t *testing.T) {
	w := newWorld(t)
	end := w.send(0, []byte("x"))
	began := time.Now()
	if _, _, err := scan(t.Context(), w.kafka, "orders", 0, 0, end+1); err == nil {
		t.Error("no error")
	}
	if took := time.Since(began); took > scanTimeout/3 {
		t.Errorf("took %v", took)
	}
	if _, _, err := scan(t.Context(), w.kafka, "orders", 0, 0, end); err != nil {
		t.Error(err)
	}
}

func TestMarkersAndAbortedValuesDoNotHoldKeysForEver(t *testing.T) {
	w := newWorld(t)
	consumer := w.start(w.enrol(wire.RoleConsume, orders, billing), brief).ready()
	l := w.held(consumer, brief)
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.TransactionalID("tx"), kgo.RecordPartitioner(kgo.ManualPartitioner())}, w.kafka...)...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if err := cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	r := &kgo.Record{Topic: "orders", Partition: 0, Value: sealed(l.Kid)}
	if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if err := cl.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
	w.commit("billing", map[int32]int64{0: r.Offset + 1}) // most clients stay before the marker
	eventually(t, "erased", func() bool { return consumer.hasErased(l.Kid) })
}

func TestGroupOfAnotherTopicDoesNotHoldKeys(t *testing.T) {
	w := newWorld(t)
	w.topic("payments", nil)
	consumer := w.start(w.enrol(wire.RoleConsume, []string{"orders", "payments"}, []string{"billing", "audit"}), brief).ready()
	l := w.held(consumer, brief)
	end := w.send(0, sealed(l.Kid))
	w.commit("billing", map[int32]int64{0: end})
	var os kadm.Offsets
	os.AddOffset("payments", 0, 0, -1)
	if _, err := kadm.NewClient(client(t, w.c)).CommitOffsets(t.Context(), "audit", os); err != nil {
		t.Fatal(err)
	}
	eventually(t, "erased", func() bool { return consumer.hasErased(l.Kid) })
}

// The application starts long after its sidecar and reads from the beginning.
func TestGroupThatHasNotStartedHoldsKeys(t *testing.T) {
	w := newWorld(t)
	consumer := w.start(w.enrol(wire.RoleConsume, orders, billing), brief).ready()
	l := w.held(consumer, brief)
	end := w.send(0, sealed(l.Kid))
	eventually(t, "end offsets noted", func() bool {
		held := consumer.Snapshot().Held
		return len(held) == 1 && held[0].EndsNoted
	})
	for over := time.Now().Add(3*brief.Window + time.Second); time.Now().Before(over); time.Sleep(20 * time.Millisecond) {
		consumer.opens(l)
	}
	w.commit("billing", map[int32]int64{0: end})
	eventually(t, "erased", func() bool { return consumer.hasErased(l.Kid) })
}

// It is not known whether somebody reads: that is not the same as nobody.
func TestGroupThatCannotBeDescribedHoldsKeys(t *testing.T) {
	w := newWorld(t)
	w.c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.DescribeGroups}, Count: -1, Err: kerr.CoordinatorLoadInProgress})
	consumer := w.start(w.enrol(wire.RoleConsume, orders, billing), brief).ready()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if got, err := consumer.assigned(ctx, billing); err == nil {
		t.Errorf("assigned: %v without an error", got)
	}
}

func TestMemberThatHasNotCommittedHoldsKeys(t *testing.T) {
	w := newWorld(t)
	consumer := w.start(w.enrol(wire.RoleConsume, orders, billing), brief).ready()
	l := w.held(consumer, brief)
	w.send(0, sealed(l.Kid))
	member, err := kgo.NewClient(append([]kgo.Opt{kgo.ConsumerGroup("billing"), kgo.ConsumeTopics("orders"), kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart())}, w.kafka...)...)
	if err != nil {
		t.Fatal(err)
	}
	defer member.Close()
	fetches := member.PollFetches(t.Context())
	if err := fetches.Err(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "end offsets noted", func() bool {
		held := consumer.Snapshot().Held
		return len(held) == 1 && held[0].EndsNoted
	})
	for end := time.Now().Add(2*brief.Window + time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		consumer.opens(l)
	}
	if err := member.CommitRecords(t.Context(), fetches.Records()...); err != nil {
		t.Fatal(err)
	}
	eventually(t, "erased", func() bool { return consumer.hasErased(l.Kid) })
}

func TestHardCapErasesWithoutKafka(t *testing.T) {
	w := newWorld(t)
	timing := brief
	timing.HardCap = 3 * time.Second
	consumer := w.start(w.enrol(wire.RoleConsume, orders, billing), timing).ready()
	l := w.held(consumer, timing)
	w.send(0, sealed(l.Kid)) // and nobody reads it
	w.c.Close()
	eventually(t, "erased", func() bool { return consumer.hasErased(l.Kid) })
	if least := time.UnixMilli(int64(l.UseBy)).Add(timing.HardCap); time.Now().Before(least) {
		t.Errorf("erased %v before the cap", time.Until(least))
	}
	if len(consumer.Snapshot().Held) != 0 {
		t.Error("a root is still held")
	}
}

func TestLeasesEndWithUseByWithoutKafka(t *testing.T) {
	w := newWorld(t)
	w.start(w.enrol(wire.RoleConsume, orders, billing), brief).ready()
	producer := w.start(w.enrol(wire.RoleProduce, orders, nil), brief).ready()
	l := producer.lease("orders")
	w.c.Close()
	eventually(t, "taken from the data plane", func() bool { return producer.hasErased(l.Kid) })
	if late := time.Since(time.UnixMilli(int64(l.UseBy))); late > time.Second {
		t.Errorf("%v after use_by", late)
	}
}

func TestRetentionShortensTheHardCap(t *testing.T) {
	w := newWorld(t)
	if err := w.c.CreateTopic("short", 1, map[string]string{"retention.ms": "2500"}); err != nil {
		t.Fatal(err)
	}
	short := []string{"short"}
	consumer := w.start(w.enrol(wire.RoleConsume, short, nil), brief).ready() // no groups: the cap alone
	producer := w.start(w.enrol(wire.RoleProduce, short, nil), brief).ready()
	l := producer.lease("short")
	consumer.opens(l)
	producer.stop()
	eventually(t, "erased", func() bool { return consumer.hasErased(l.Kid) })
}

func TestRetentionShortensTheHardCapAfterARestart(t *testing.T) {
	w := newWorld(t)
	if err := w.c.CreateTopic("short", 1, map[string]string{"retention.ms": "4000"}); err != nil {
		t.Fatal(err)
	}
	short := []string{"short"}
	state := w.enrol(wire.RoleConsume, short, nil)
	consumer := w.start(state, brief).ready()
	producer := w.start(w.enrol(wire.RoleProduce, short, nil), brief).ready()
	consumer.opens(producer.lease("short"))
	producer.stop()
	eventually(t, "end offsets noted", func() bool { // from then on nothing asks for them
		held := consumer.Snapshot().Held
		return len(held) == 1 && held[0].EndsNoted
	})
	consumer.stop()
	again := w.start(state, brief).ready()
	eventually(t, "erased", func() bool { return len(again.Snapshot().Held) == 0 })
}

func TestRestartKeepsRootsAndResurrectsNone(t *testing.T) {
	w := newWorld(t)
	state := w.enrol(wire.RoleConsume, orders, billing)
	consumer := w.start(state, brief).ready()
	read := w.held(consumer, brief)
	end := w.send(0, sealed(read.Kid))
	unread := w.held(consumer, brief)
	w.send(1, sealed(unread.Kid))
	w.commit("billing", map[int32]int64{0: end, 1: 0})
	eventually(t, "one erased", func() bool { return consumer.hasErased(read.Kid) })
	consumer.stop()

	again := w.start(state, brief).ready()
	again.opens(unread)
	again.refuses("orders", read.Kid, abi.StatusErased)
	again.stop()

	// A broker that shows the grants from the start once more resurrects nothing: the
	// prekeys that opened them are gone too, and the kids are remembered.
	store := openStore(t, state)
	b, err := store.Load()
	if err != nil {
		t.Fatal(err)
	}
	s, err := keyring.ParseState(b)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	if v := s.View(); len(v.Kids) != 1 || v.Kids[0].Kid != unread.Kid || v.ErasedKids != 1 || v.ErasedTotal != 1 {
		t.Errorf("state on disk: %+v", v)
	}
}

func TestErasedKeysAreOffTheDiskFirst(t *testing.T) {
	w := newWorld(t)
	state := w.enrol(wire.RoleConsume, orders, billing)
	timing := brief
	timing.HardCap = 2500 * time.Millisecond
	consumer := w.start(state, timing).ready()
	seen := make(chan keyring.View, 16)
	consumer.OnErase(func([]abi.Kid) {
		b, err := consumer.store.Load()
		if err != nil {
			t.Error(err)
			return
		}
		s, err := keyring.ParseState(b)
		if err != nil {
			t.Error(err)
			return
		}
		seen <- s.View()
	})
	l := w.held(consumer, timing)
	select {
	case v := <-seen:
		for _, k := range v.Kids {
			if k.Kid == l.Kid {
				t.Error("the data planes were told while the key was still on disk")
			}
		}
		if v.ErasedTotal == 0 {
			t.Error("no erasure on disk")
		}
	case <-time.After(patience):
		t.Fatal("nothing erased")
	}
}

func TestSupersededPrekeysAreErased(t *testing.T) {
	w := newWorld(t)
	state := w.enrol(wire.RoleConsume, orders, billing)
	consumer := w.start(state, quick).ready()
	first := consumer.Snapshot().Prekeys[0].ID
	eventually(t, "the first prekey erased", func() bool {
		for _, p := range consumer.Snapshot().Prekeys {
			if p.ID == first {
				return false
			}
		}
		return true
	})
	if n := len(consumer.Snapshot().Prekeys); n == 0 || n > 6 {
		t.Errorf("%d prekeys held", n)
	}
}

func TestPrekeyIsPublishedOnlyOnceItIsOnDisk(t *testing.T) {
	w := newWorld(t)
	state := w.enrol(wire.RoleConsume, orders, billing)
	consumer := w.start(state, quick).ready()
	cl := client(t, w.c)
	end := func() int64 {
		end, err := listOffset(t.Context(), cl, rosterTopic, 0, listEnd)
		if err != nil {
			t.Fatal(err)
		}
		return end
	}
	if err := os.MkdirAll(state+".tmp/in-the-way", 0o700); err != nil { // no write succeeds
		t.Fatal(err)
	}
	made := consumer.Snapshot().PrekeysMade
	before := end()
	eventually(t, "prekeys made", func() bool { return consumer.Snapshot().PrekeysMade >= made+2 })
	if n := end() - before; n > 2 { // what was on disk before may still be under way
		t.Errorf("%d records were published with no state on disk", n)
	}
	if err := os.RemoveAll(state + ".tmp"); err != nil {
		t.Fatal(err)
	}
	before = end()
	eventually(t, "published", func() bool { return end() >= before+2 })
}

func TestOverwrittenBundleIsPublishedAgain(t *testing.T) {
	w := newWorld(t)
	timing := slow
	timing.PrekeyRotation = 30 * time.Second // so that rotation does not mend it
	consumer := w.start(w.enrol(wire.RoleConsume, orders, billing), timing).ready()
	key := (&wire.PrekeyBundle{Node: consumer.Snapshot().Node}).Key()
	cl := client(t, w.c)
	r := &kgo.Record{Topic: rosterTopic, Key: key, Value: []byte("not a bundle")}
	if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
		t.Fatal(err)
	}
	// A producer that comes only now and sees a compacted roster still finds the bundle.
	w.c.Compact()
	eventually(t, "the bundle after the garbage", func() bool {
		end, err := listOffset(t.Context(), cl, rosterTopic, 0, listEnd)
		return err == nil && end > r.Offset+1
	})
	producer := w.start(w.enrol(wire.RoleProduce, orders, nil), slow).ready()
	consumer.opens(producer.lease("orders"))
}

func TestCompactedTopicIsRefused(t *testing.T) {
	w := newWorld(t)
	w.topic("tables", map[string]string{"cleanup.policy": "compact,delete"})
	topics := []string{"orders", "tables"}
	w.start(w.enrol(wire.RoleConsume, topics, billing), slow).ready()
	producer := w.start(w.enrol(wire.RoleProduce, topics, nil), slow).ready()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := producer.Lease(ctx, "tables"); !errors.Is(err, abi.StatusCompacted) {
		t.Fatalf("compacted topic: %v", err)
	}

	l := producer.lease("orders")
	alter := func(topic, policy string) {
		t.Helper()
		resp, err := kadm.NewClient(client(t, w.c)).AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Name: "cleanup.policy", Value: &policy}}, topic)
		if err == nil {
			_, err = resp.On(topic, func(r *kadm.AlterConfigsResponse) error { return r.Err })
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	alter("orders", "compact")
	producer.watchPolicies() // as every 15 s
	if _, err := producer.Lease(ctx, "orders"); !errors.Is(err, abi.StatusCompacted) {
		t.Errorf("after the switch: %v", err)
	}
	if !producer.hasErased(l.Kid) {
		t.Error("leases stay with the data plane")
	}
	alter("orders", "delete")
	alter("tables", "delete")
	producer.watchPolicies()
	producer.lease("orders")
	producer.lease("tables")
}
