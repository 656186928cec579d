package broker

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

// leavesOfLease is how many leaves a worker gets at a time.
const leavesOfLease = 1 << 14

// Nonces of a leaf differ by their salt alone, so no leaf may seal twice whatever its salt:
// across two producers, restarts, several workers, and retries whose first answer was lost.
func TestNoLeafOfAnyProducerSealsTwice(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 4)
	topics := w.makeTopics(4, "ledger-a", "ledger-b")
	lost := slices.IndexFunc(actions(), func(a *action) bool { return a.name == "drop the answer to a Produce" })
	var producers sync.WaitGroup
	flow := func(tr *traffic, seed uint64, d time.Duration) {
		rng := rand.New(rand.NewPCG(seed, 5))
		for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
			for range 3 {
				tr.produce(place{topics[rng.IntN(2)], int32(rng.IntN(4))}, 1+rng.IntN(3))
			}
			if rng.IntN(20) == 0 {
				w.edit.arm(actions()[lost])
			}
		}
		if err := tr.producer.Flush(t.Context()); err != nil {
			t.Errorf("flush: %v", err)
		}
	}
	steady := newTraffic(w)
	steady.produceThrough(w.start("steady", w.enrolProducer("steady")))
	producers.Go(func() { flow(steady, 6, 5*time.Second) })
	restarted := newTraffic(w)
	restarted.n = 1 << 20
	state := w.enrolProducer("restarted")
	for i := range uint64(4) {
		side, stop := w.stopping("restarted", state)
		restarted.produceThrough(side)
		flow(restarted, 7+i, time.Second)
		restarted.producer.Close()
		stop()
	}
	producers.Wait()
	w.edit.arm(nil)

	o := w.seen
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, f := range o.faults {
		t.Error(f)
	}
	salts := map[[wire.SaltSize]byte]bool{}
	kids := map[abi.Kid][]uint32{}
	for l, salt := range o.leaves {
		salts[salt] = true
		kids[l.kid] = append(kids[l.kid], l.index)
	}
	if len(salts) != len(o.leaves) {
		t.Errorf("%d salts for %d batches", len(salts), len(o.leaves))
	}
	instances := map[wire.InstanceID]bool{}
	for _, r := range o.grants {
		if g, err := wire.ParseGrant(r.value); err == nil {
			instances[g.Header.Instance] = true
		}
	}
	workers := 0 // leases of one kid that were in use
	for _, leaves := range kids {
		leases := map[uint32]bool{}
		for _, l := range leaves {
			leases[l/leavesOfLease] = true
		}
		workers = max(workers, len(leases))
	}
	t.Logf("%d batches, %d kids, %d instances, %d leases of one kid, %d answers lost",
		len(o.leaves), len(kids), len(instances), workers, w.edit.count("drop the answer to a Produce"))
	if len(instances) < 5 || workers < min(2, runtime.GOMAXPROCS(0)) || len(kids) < 2*5 || len(o.leaves) < 500 || w.edit.count("drop the answer to a Produce") == 0 {
		t.Error("too little was seen to judge by")
	}
}

// Whoever says that nothing is wrong must be able to see that something is.
func TestTheObserversSeeWhatMustNeverBe(t *testing.T) {
	entitled, stranger := wire.NodeID{1}, wire.NodeID{2}
	o := newObservations(func(_ string, node wire.NodeID) bool { return node == entitled })
	faults := 0
	seen := func(what string, wrong bool) {
		t.Helper()
		if got := len(o.faults) > faults; got != wrong {
			t.Errorf("%s: seen %v: %v", what, got, o.faults)
		}
		faults = len(o.faults)
	}
	data := place{"orders-x", 0}
	sealed := func(leaf uint32) []byte {
		h := wire.PackedHeader{Leaf: leaf, NumRecords: 1, Salt: [wire.SaltSize]byte{byte(leaf)}}
		return batchOf(append(h.Append(nil), make([]byte, wire.PackedOverhead)...))
	}
	o.produced(data, sealed(1))
	o.produced(data, sealed(2))
	seen("two leaves", false)
	o.produced(data, sealed(1))
	seen("a leaf used twice", true)
	o.produced(data, batchOf([]byte(marker)))
	seen("a value that is not sealed", true)
	o.request(newEditor(1, o), exchange{}, []byte("..."+marker), nil)
	seen("plaintext in a request", true)

	var kem [wire.KEMPublicSize]byte
	grant := func(node wire.NodeID) controlRecord {
		g := &wire.Grant{Header: wire.GrantHeader{UseBy: 1, Topics: []wire.GrantTopic{{Name: "orders-x"}}},
			Wraps: []wire.Wrap{{Node: node, Prekey: wire.PrekeyIDOf(kem[:])}}}
		return controlRecord{0, g.Header.Key(), g.Append(nil)}
	}
	for _, node := range []wire.NodeID{stranger, entitled} {
		b := &wire.PrekeyBundle{Node: node, KEMPub: kem}
		o.published(controlRecord{0, b.Key(), b.Append(nil)})
		o.published(grant(node))
		seen(fmt.Sprintf("a grant to %v", node), node == stranger)
	}
	o.published(grant(stranger))
	seen("a grant to somebody else's prekey", true)

	tr := &traffic{w: &world{seen: o}, sent: map[string]*kgo.Record{}, got: map[string]int64{}}
	delivered := func(what string, wrong bool, change func(r *kgo.Record)) {
		t.Helper()
		before := len(tr.faults)
		r := *tr.records(data, 1)[0]
		tr.match(&r)
		again := r
		change(&again)
		tr.match(&again)
		if (len(tr.faults) > before) != wrong {
			t.Errorf("%s: %v", what, tr.faults[before:])
		}
	}
	delivered("the same once more", false, func(*kgo.Record) {})
	delivered("another offset", true, func(r *kgo.Record) { r.Offset++ })
	delivered("another partition", true, func(r *kgo.Record) { r.Partition++ })
	delivered("another topic", true, func(r *kgo.Record) { r.Topic = "orders-y" })
	delivered("another key", true, func(r *kgo.Record) { r.Key = nil })
	delivered("another header", true, func(r *kgo.Record) { r.Headers = nil })
	delivered("another time", true, func(r *kgo.Record) { r.Timestamp = r.Timestamp.Add(time.Hour) })
	delivered("another value", true, func(r *kgo.Record) { r.Value = []byte("injected") })
}
