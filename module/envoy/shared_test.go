package envoy

import (
	"crypto/rand"
	"fmt"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
	"github.com/wasm-e2ee/wasm-e2ee/module/filter"
)

// A sharedData is a proxy's, as Envoy has it: numbers of changes are one sequence, and number 0
// replaces whatever is there.
type sharedData struct {
	mu     sync.Mutex
	values alone
	refuse func(key string) bool // a change, as if another worker were faster
	gone   bool
}

func (d *sharedData) Get(key string) ([]byte, uint32, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.gone {
		return nil, 0, false
	}
	return d.values.Get(key)
}

func (d *sharedData) Set(key string, value []byte, cas uint32) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.gone || d.refuse != nil && d.refuse(key) {
		return false
	}
	return d.values.Set(key, value, cas)
}

// workers are n of them on one proxy.
func workers(t *testing.T, n int) ([]*world, *sharedData) {
	d := &sharedData{values: alone{}}
	all := make([]*world, n)
	for i := range all {
		all[i] = newWorld(t, Config{Shared: d})
	}
	return all, d
}

func metadata(id [16]byte, name string) *kmsg.MetadataResponse {
	resp := kmsg.NewPtrMetadataResponse()
	resp.Version = 12
	topic := kmsg.NewMetadataResponseTopic()
	topic.Topic, topic.TopicID = &name, id
	resp.Topics = append(resp.Topics, topic)
	return resp
}

// told has a client be told a topic's id through the world's worker.
func (w *world) told(id [16]byte, name string) {
	w.Helper()
	req := kmsg.NewPtrMetadataRequest()
	req.Version = 12
	w.respond(w.request(req), metadata(id, name))
	gathered(w.stream.ToClient)
	gathered(w.stream.ToBroker)
}

func TestTopicIDToldByOneWorkerWorksInAnother(t *testing.T) {
	all, _ := workers(t, 2)
	all[0].told(testID, "orders")
	all[1].lease("orders")
	all[1].request(produceRequest(13, 1, ""))
	if r := all[1].produced(); len(r.Topics) != 1 || r.Topics[0].ID != testID {
		t.Errorf("%+v", r.Topics)
	}
}

func TestSecondNameOfAnIDCountsInEveryWorker(t *testing.T) {
	all, _ := workers(t, 3)
	all[0].told(testID, "orders")
	all[1].told(testID, "public")
	for i, w := range all {
		if got := w.worker.topics.name(testID); got != "" {
			t.Errorf("worker %d takes it for %q", i, got)
		}
		w.told(testID, "orders")
		if got := w.worker.topics.name(testID); got != "" {
			t.Errorf("worker %d takes it for %q again", i, got)
		}
	}
	if all[1].worker.Stats().TopicIDs == 0 || all[0].worker.Stats().TopicIDs == 0 {
		t.Error("it is not counted")
	}
}

func TestRememberedTopicIDsAreBoundedAndKept(t *testing.T) {
	small := topics{newSlots(alone{}, 1, 't')}
	id := func(i int) [16]byte { return [16]byte{1, byte(i), byte(i >> 8), byte(i >> 16)} }
	n := 0
	for ; small.learn(id(n), "orders") == learnedOne; n++ {
		if n > topicSlotSize {
			t.Fatal("no bound")
		}
	}
	if small.learn(id(n), "orders") != learnedNever || small.name(id(n)) != "" {
		t.Error("an id beyond the bound is known")
	}
	for i := range n {
		if small.name(id(i)) != "orders" {
			t.Fatalf("id %d of %d gave way", i, n)
		}
	}
	if small.learn(id(0), "public") != learnedTwo || small.name(id(0)) != "" || small.name(id(1)) != "orders" {
		t.Error("a second name does not count where there is no room")
	}
}

func TestBatchIsOpenedAtOneOffsetInAllWorkers(t *testing.T) {
	all, _ := workers(t, 3)
	for i, w := range all {
		if s := w.keys.Opened("orders", testKid, 7, 2, 100); s != abi.StatusOK {
			t.Errorf("worker %d, the same offset: %v", i, s)
		}
	}
	for i, w := range all {
		if s := w.keys.Opened("orders", testKid, 7, 2, 101); s != abi.StatusReplayed {
			t.Errorf("worker %d, another offset: %v", i, s)
		}
	}
	if s := all[0].keys.Opened("orders", testKid, 8, 2, 200); s != abi.StatusOK {
		t.Fatal(s)
	}
	if s := all[1].keys.Opened("orders", testKid, 8, 2, 201); s != abi.StatusReplayed {
		t.Errorf("opened first by another worker: %v", s)
	}
	if s := all[1].keys.Opened("orders", testKid, 8, 2, 200); s != abi.StatusOK {
		t.Errorf("an attempt at replay denies the genuine batch: %v", s)
	}
	if s := all[2].keys.Opened("orders", testKid, 8, 3, 201); s != abi.StatusOK {
		t.Errorf("another partition: %v", s)
	}
}

func TestBatchBarredByTheAgentOpensInNoWorker(t *testing.T) {
	all, _ := workers(t, 3)
	for _, w := range all[:2] {
		if s := w.keys.Opened("orders", testKid, 7, 2, 100); s != abi.StatusOK {
			t.Fatal(s)
		}
	}
	q := all[0].keys.opened[0]
	if again := all[0].keys.told(&q, abi.StatusReplayed); again {
		t.Error("the agent is told again")
	}
	for i, w := range all {
		if s := w.keys.Opened("orders", testKid, 7, 2, 100); s != abi.StatusReplayed {
			t.Errorf("worker %d: %v", i, s)
		}
	}
}

func TestNothingOpensThatCannotBeNoted(t *testing.T) {
	all, d := workers(t, 1)
	w := all[0]
	var events []Event
	w.worker.cfg.Event = func(e Event) { events = append(events, e) }
	w.root("orders")
	batch := w.sealedBatch("orders", 0, "one", 5)
	races := 0
	d.refuse = func(string) bool { races++; return true }
	p := w.fetch(11, batch).Topics[0].Partitions[0]
	if len(p.RecordBatches) != 0 || p.ErrorCode != 0 || races != maxRaces {
		t.Errorf("%d bytes, code %d, after %d races", len(p.RecordBatches), p.ErrorCode, races)
	}
	if len(events) == 0 || events[0].Kind != EventShared {
		t.Errorf("%v", events)
	}
	d.refuse = func(string) bool { races++; return races%3 != 0 }
	if p := w.fetch(11, batch).Topics[0].Partitions[0]; len(p.RecordBatches) == 0 {
		t.Error("a lost race is not run again")
	}
	d.refuse, d.gone = nil, true
	if p := w.fetch(11, batch).Topics[0].Partitions[0]; len(p.RecordBatches) != 0 {
		t.Error("opened without the shared data")
	}
}

// TestRacingWorkersAgreeOnOneOffset has workers open each batch at an offset of their own at the
// same time: one of them has it.
func TestRacingWorkersAgreeOnOneOffset(t *testing.T) {
	const n, batches = 4, 500
	d := &sharedData{values: alone{}}
	keys := make([]*Keys, n)
	for i := range keys {
		f := filter.New(rand.Reader)
		keys[i] = NewKeys(f)
		NewWorker(Config{Shared: d}, f, keys[i])
	}
	var opened [batches][n]abi.Status
	var wg sync.WaitGroup
	for i, k := range keys {
		wg.Go(func() {
			for leaf := range batches {
				opened[leaf][i] = k.Opened("orders", testKid, uint32(leaf), 0, int64(i))
			}
		})
	}
	wg.Wait()
	for leaf, by := range opened {
		got := 0
		for _, s := range by {
			switch s {
			case abi.StatusOK:
				got++
			case abi.StatusReplayed:
			default:
				if !kafka.FetchRetries(s) {
					t.Errorf("leaf %d: %v", leaf, by)
				}
			}
		}
		if got != 1 {
			t.Fatalf("leaf %d was opened at %d offsets: %v", leaf, got, by)
		}
	}
}

func TestReplayStateOfAllWorkersIsBounded(t *testing.T) {
	r := sharedReplays{newSlots(alone{}, 2, 'r')}
	for i := range 1000 {
		if r.note(sharedID(testKid, uint32(i), 0), 1, false) != notedHere {
			t.Fatal(i)
		}
	}
	size := 0
	for _, key := range r.keys {
		value, _, _ := r.shared.Get(key)
		size += len(value)
	}
	if size != 2*replayEntries*replaySize {
		t.Errorf("%d bytes", size)
	}
	if r.note(sharedID(testKid, 999, 0), 2, false) != notedElsewhere {
		t.Error("the newest gave way")
	}
}

// TestLaterWorkerFindsWhatIsShared is what a virtual machine does that is begun anew after a trap.
func TestLaterWorkerFindsWhatIsShared(t *testing.T) {
	all, d := workers(t, 1)
	all[0].told(testID, "orders")
	all[0].keys.Opened("orders", testKid, 7, 0, 100)
	keysBefore := len(d.values)
	later := newWorld(t, Config{Shared: d})
	if later.worker.topics.name(testID) != "orders" {
		t.Error("the topic id is lost")
	}
	if s := later.keys.Opened("orders", testKid, 7, 0, 101); s != abi.StatusReplayed {
		t.Errorf("%v", s)
	}
	if len(d.values) != keysBefore || keysBefore != replaySlots+topicSlots {
		t.Error(fmt.Errorf("%d keys, then %d", keysBefore, len(d.values)))
	}
}
