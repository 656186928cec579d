package envoy

import (
	"crypto/rand"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/channel"
	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
)

// recorded has the worker's events kept.
func recorded(events *[]Event) Config {
	return Config{Event: func(e Event) { *events = append(*events, e) }}
}

func TestEveryEventHasALineAndANextStep(t *testing.T) {
	seen := map[string]bool{}
	for kind := EventSeal; kind <= EventChannelUp; kind++ {
		e := Event{Kind: kind, Status: abi.StatusNoRecipient}
		text := e.String()
		if strings.HasPrefix(text, "event ") || seen[text] {
			t.Errorf("kind %d: %q", kind, text)
		}
		seen[text] = true
		if e.Warning() && !strings.Contains(text, "(hint: ") {
			t.Errorf("%q has no hint", text)
		}
	}
	for _, status := range []int{0, 200, 400, 404, 410} {
		e := Event{Kind: EventChannel, HTTP: status}
		if seen[e.String()] && status != 0 || e.Warning() != (e.Hint() != "") {
			t.Errorf("%d: %q", status, e)
		}
	}
}

func TestRefusalsAreReportedWithPlaceAndReason(t *testing.T) {
	var events []Event
	w := newWorld(t, recorded(&events))
	w.keys.leases["orders"] = &leasing{refused: abi.StatusNoRecipient, refusedAt: w.now}
	id := w.request(produceRequest(9, 1, "orders"))
	w.respond(id, kmsg.NewPtrApiVersionsResponse())
	want := Event{Kind: EventSeal, Topic: "orders", Status: abi.StatusNoRecipient}
	if len(events) != 1 || events[0] != want {
		t.Fatalf("produce: %+v", events)
	}

	events = nil
	w.root("orders")
	good := w.sealedBatch("orders", 0, "one", 5)
	bad := w.sealedBatch("orders", 0, "two", 6)
	bad[len(bad)-8] ^= 1
	kafka.SetBatchCRC(bad)
	id = w.request(fetchRequest(11))
	w.respond(id, fetchResponse(11, "orders", slices.Concat(good, bad)))
	want = Event{Kind: EventOpen, Topic: "orders", Offset: 6, Status: abi.StatusUnauthentic}
	if len(events) != 1 || events[0] != want {
		t.Fatalf("fetch: %+v", events)
	}
	if a, b := events[0].Subject(), (Event{Kind: EventOpen, Topic: "orders", Offset: 7, Status: abi.StatusUnauthentic}).Subject(); a != b {
		t.Errorf("%+v and %+v are two subjects", a, b)
	}
}

func TestFailingChannelIsReportedUntilItWorks(t *testing.T) {
	var events []Event
	w := newWorld(t, recorded(&events))
	a := &agent{realm: testRealm, pairing: [channel.KeySize]byte{9}, say: func(channel.Request) channel.Answer { return channel.Answer{Status: abi.StatusPending} }}
	c, err := NewChannel(testRealm, &testPairing, rand.Reader, w.keys)
	if err != nil {
		t.Fatal(err)
	}
	step := func(answer func(Call) (int, []byte)) {
		t.Helper()
		w.now += lastRetry + 1
		w.keys.NeedLease("orders", w.now)
		call, ok := c.Next(w.now)
		if !ok {
			t.Fatal("no call")
		}
		status, body := answer(call)
		c.Answered(status, body, w.now)
	}
	step(func(Call) (int, []byte) { return 0, nil })
	step(a.post) // another pairing key
	a.pairing = testPairing
	step(a.post)
	step(a.post)
	a.channels = nil // the agent has begun anew
	step(a.post)
	step(a.post)
	var got []string
	for _, e := range events {
		got = append(got, e.text())
	}
	want := []string{"key channel: the agent cannot be reached", "key channel: the agent refused this proxy",
		"key channel: connected to the agent", "key channel: the agent has begun anew"}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

// The first batches of each epoch come before their root, at every worker and partition.
func TestARootIsReportedOnlyOnceItIsLate(t *testing.T) {
	var events []Event
	w := newWorld(t, recorded(&events))
	batch := w.sealedBatch("orders", 0, "one", 5)
	begin := w.now
	for _, after := range []uint64{0, 1000, rootLate - fetchHold, rootLate} {
		w.now = begin + after
		id := w.request(fetchRequest(11))
		w.respond(id, fetchResponse(11, "orders", batch))
		if n := w.worker.stats.OpenRefused[abi.StatusPending]; n == 0 {
			t.Fatal("the batch opened")
		}
		if late := after == rootLate; (len(events) > 0) != late {
			t.Fatalf("after %d ms: %+v", after, events)
		}
	}
	if want := (Event{Kind: EventOpen, Topic: "orders", Offset: 5, Status: abi.StatusPending}); events[0] != want {
		t.Errorf("%+v", events[0])
	}
}

// A producer's application and the log lead to the agent where it is the agent that is missing,
// and to the control topics where the agent says that it lacks them.
func TestWithoutAnAgentProducersAreLedToIt(t *testing.T) {
	var events []Event
	w := newWorld(t, recorded(&events))
	a := &agent{realm: testRealm, pairing: testPairing, say: func(channel.Request) channel.Answer { return channel.Answer{Status: abi.StatusUnavailable} }}
	c, err := NewChannel(testRealm, &testPairing, rand.Reader, w.keys)
	if err != nil {
		t.Fatal(err)
	}
	refused := func(answer func(Call) (int, []byte)) string {
		t.Helper()
		events = nil
		id := w.request(produceRequest(8, 1, "orders"))
		for end := w.now + DefaultProduceWait; w.now <= end; w.now += lastRetry {
			for call, ok := c.Next(w.now); ok; call, ok = c.Next(w.now) {
				status, body := answer(call)
				c.Answered(status, body, w.now)
			}
		}
		if err := w.stream.Resume(w.now); err != nil {
			t.Fatal(err)
		}
		w.respond(id, kmsg.NewPtrApiVersionsResponse())
		r := received(w, id, 8, kmsg.NewPtrProduceResponse())
		if e := events[len(events)-1]; e.Kind != EventSeal || !strings.Contains(e.String(), e.Hint()) {
			t.Errorf("logged last: %q", e)
		}
		w.now += unasked + 1
		return *r.Topics[0].Partitions[0].ErrorMessage
	}
	const control, leads = "_e2ee.roster", "wasm-e2ee agent"
	for name, answer := range map[string]func(Call) (int, []byte){
		"gone":     func(Call) (int, []byte) { return httpUnavailable, nil },
		"silent":   func(Call) (int, []byte) { return 0, nil },
		"stranger": func(Call) (int, []byte) { return 404, nil },
		"unpaired": func(Call) (int, []byte) { return 400, nil },
	} {
		if got := refused(answer); !strings.Contains(got, leads) || strings.Contains(got, "control") {
			t.Errorf("%s: %q", name, got)
		}
	}
	if got := refused(a.post); !strings.Contains(got, control) || strings.Contains(got, leads) {
		t.Errorf("an agent that lacks the control topics: %q", got)
	}
}
