package broker

import (
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// C13: a key that the consumer erased stays erased, whatever the broker shows again, and what
// was sealed with it is not delivered once more.
func TestReplayedGrantsResurrectNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 8)
	tr := newTraffic(w)
	tr.produceThrough(w.start("producer", w.enrolProducer("producer")))
	topic := w.makeTopics(2, "erased")[0]
	at, later := place{topic, 0}, place{topic, 1}
	defer tr.consumeWith(kgo.ConsumeTopics(topic), kgo.ConsumerGroup(group), kgo.AutoCommitInterval(100*time.Millisecond))()
	first, err := tr.send(at, 3)
	must(t, err)
	if !eventually(15*time.Second, func() bool { return tr.arrived(first) }) {
		t.Fatalf("nothing arrives:\n%s", w.log.from(0))
	}
	old := w.seen.other(func(o place, _ []byte, _ wire.PackedHeader) bool { return o == at })
	h, ok := sealedHeader(old)
	if !ok {
		t.Fatal("the stored batch does not parse")
	}
	held := func(kid abi.Kid) bool {
		return slices.ContainsFunc(w.consumer.Agent.Snapshot().Held, func(k keyring.KidView) bool { return k.Kid == kid })
	}
	if !held(h.Kid) {
		t.Error("the key of what was just read is not held")
	}
	if !eventually(20*time.Second, func() bool { return !held(h.Kid) }) {
		t.Fatalf("the key was not erased:\n%s", w.log.from(0))
	}

	replayed := 0
	w.seen.mu.Lock()
	grants := slices.Clone(w.seen.grants)
	w.seen.mu.Unlock()
	for _, r := range grants {
		if r.partition == w.consumerPartition() && w.again(&r) {
			replayed++
		}
	}
	if replayed == 0 {
		t.Error("no grant was replayed")
	}
	mark := w.log.size()
	if !w.append(at, old) {
		t.Fatal("the old batch was not stored again")
	}
	if !eventually(10*time.Second, func() bool { return w.log.says(mark, is(abi.StatusErased), "topic="+topic+" partition=0 ") }) {
		t.Errorf("nobody says that the key is gone:\n%s", w.log.from(mark))
	}
	// A grant that follows the replayed ones was read: so were they.
	next, err := tr.send(later, 2)
	must(t, err)
	if !eventually(15*time.Second, func() bool { return tr.arrived(next) }) {
		t.Errorf("what follows does not arrive:\n%s", w.log.from(mark))
	}
	if held(h.Kid) {
		t.Error("a replayed grant brought an erased key back")
	}
	tr.check()
}
