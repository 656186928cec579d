package envoy

import (
	"testing"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/channel"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

// exchange has an agent answer what is asked now, each request through say.
func (w *world) exchange(say func(q channel.Request) channel.Answer) (asked []channel.Request) {
	w.Helper()
	w.keys.expire(w.now)
	asked = w.keys.requests(w.now)
	answers := make([]channel.Answer, len(asked))
	for i, q := range asked {
		answers[i] = say(q)
	}
	if len(asked) > 0 {
		if err := w.keys.answered(answers, w.now); err != nil {
			w.Fatal(err)
		}
	}
	return asked
}

// answer refuses leases of these topics, by status.
func (w *world) answer(refused map[string]abi.Status) {
	w.exchange(func(q channel.Request) channel.Answer { return channel.Answer{Status: refused[q.Topic]} })
}

// answerRoot answers every ROOT, and nothing else.
func (w *world) answerRoot(topic string, s abi.Status) {
	w.exchange(func(q channel.Request) channel.Answer {
		switch {
		case q.Op != channel.OpRoot:
			return channel.Answer{Status: abi.StatusUnavailable}
		case s != abi.StatusOK:
			return channel.Answer{Status: s}
		}
		r := rootOf(topic)
		return channel.Answer{Body: r.Append(nil)}
	})
}

// generous is an agent that gives everything, and keeps what keep says.
func generous(keep bool) func(q channel.Request) channel.Answer {
	return func(q channel.Request) channel.Answer {
		switch q.Op {
		case channel.OpLease:
			l := leaseOf(q.Topic)
			return channel.Answer{Body: l.Append(nil)}
		case channel.OpRoot:
			r := rootOf(q.Topic)
			r.Kid = q.Kid
			return channel.Answer{Body: r.Append(nil)}
		case channel.OpRenew:
			if !keep {
				q.Kids = nil
			}
			return channel.Answer{Body: channel.AppendKids(nil, q.Kids)}
		case channel.OpGroups:
			return channel.Answer{Body: wire.AppendPatterns(nil, []wire.Pattern{{Prefix: true}})}
		}
		return channel.Answer{}
	}
}

func (w *world) roots() uint64 { return w.filter.Counters()[abi.CounterRoots] }

func TestRootsExpireByThemselvesUnlessTheyAreRenewed(t *testing.T) {
	w := newWorld(t, Config{})
	w.keys.NeedRoot("orders", 0, testKid, w.now)
	w.exchange(generous(true))
	renewals := 0
	for range 20 * renewEvery / 2 / 500 {
		w.now += 500
		for _, q := range w.exchange(generous(true)) {
			if q.Op == channel.OpRenew {
				renewals++
			}
		}
	}
	if w.roots() != 1 || renewals > 11 {
		t.Fatalf("%d roots after %d renewals", w.roots(), renewals)
	}
	last := w.keys.held[testKid].root
	for w.now <= last {
		if w.roots() != 1 {
			t.Fatal("a root expired early")
		}
		w.now += 500
		w.keys.expire(w.now)
		w.keys.requests(w.now) // which no agent answers
	}
	if w.roots() != 0 || last > w.now || w.now-start < 20*renewEvery/2+rootLife-renewEvery {
		t.Errorf("%d roots are left after %d ms", w.roots(), w.now-start)
	}
}

// The agent counts from when it answers, and the module must not be the later of the two.
func TestARootsTimeBeginsWhenItIsAskedFor(t *testing.T) {
	w := newWorld(t, Config{})
	w.keys.NeedRoot("orders", 0, testKid, w.now)
	w.keys.requests(w.now)
	r := rootOf("orders")
	if err := w.keys.answered([]channel.Answer{{Body: r.Append(nil)}}, w.now+5000); err != nil {
		t.Fatal(err)
	}
	w.keys.expire(w.now + rootLife)
	if w.roots() != 1 {
		t.Error("it expired early")
	}
	w.keys.expire(w.now + rootLife + 1)
	if w.roots() != 0 {
		t.Error("it lives on")
	}
}

func TestLeasesThatEndAtOnceAreNotAskedForInALoop(t *testing.T) {
	w := newWorld(t, Config{})
	given := byte(0)
	give := func(q channel.Request) channel.Answer {
		if q.Op != channel.OpLease {
			return generous(true)(q)
		}
		given++
		l := leaseOf(q.Topic)
		l.Kid, l.UseBy = abi.Kid{given}, w.now+aheadTime/2
		return channel.Answer{Body: l.Append(nil)}
	}
	w.keys.NeedLease("orders", w.now)
	for range 100 {
		w.exchange(give)
		w.keys.sealed("orders", abi.Kid{given}, 0, w.now)
		w.now += 50
	}
	if given < 4 || given > 7 {
		t.Errorf("%d leases in 5 s", given)
	}
}

// TestAnIdleTopicIsNotLeasedAgain has epochs so short that each lease is soon due for another: with
// nobody who produces, epochs must end (PROTOCOL.md §2.7.4).
func TestAnIdleTopicIsNotLeasedAgain(t *testing.T) {
	w := newWorld(t, Config{})
	given := byte(0)
	give := func(q channel.Request) channel.Answer {
		if q.Op != channel.OpLease {
			return generous(true)(q)
		}
		given++
		l := leaseOf(q.Topic)
		l.Kid, l.UseBy = abi.Kid{given}, w.now+3500
		return channel.Answer{Body: l.Append(nil)}
	}
	w.keys.NeedLease("orders", w.now)
	for range 600 {
		w.exchange(give)
		w.now += 50
	}
	if given == 0 || given > 2 {
		t.Errorf("%d leases in 30 s", given)
	}
}

func TestAClockThatGoesBackKeepsNoRoot(t *testing.T) {
	w := newWorld(t, Config{})
	w.keys.NeedRoot("orders", 0, testKid, w.now)
	w.exchange(generous(true))
	w.keys.expire(w.now - 3_600_000)
	if w.roots() != 0 {
		t.Error("the root would live for an hour more")
	}
}

func TestWhatTheAgentDoesNotNameIsErasedAtOnce(t *testing.T) {
	w := newWorld(t, Config{})
	w.keys.NeedRoot("orders", 0, testKid, w.now)
	w.keys.NeedLease("orders", w.now)
	w.exchange(generous(true))
	if c := w.filter.Counters(); c[abi.CounterRoots] != 1 || c[abi.CounterLeases] != 1 {
		t.Fatalf("counters %v", c)
	}
	w.now += renewEvery
	w.exchange(generous(false))
	if c := w.filter.Counters(); c[abi.CounterRoots] != 0 || c[abi.CounterLeases] != 0 {
		t.Errorf("counters %v", c)
	}
}

func TestAFinalAnswerIsRememberedForAWhile(t *testing.T) {
	w := newWorld(t, Config{})
	w.keys.NeedRoot("orders", 0, testKid, w.now)
	w.answerRoot("orders", abi.StatusErased)
	if s := w.keys.NeedRoot("orders", 0, testKid, w.now+rootKept-1); s != abi.StatusErased {
		t.Error(s)
	}
	if s := w.keys.NeedRoot("orders", 1, testKid, w.now); s != abi.StatusPending {
		t.Errorf("another partition: %v", s)
	}
	if s := w.keys.NeedRoot("orders", 0, testKid, w.now+rootKept); s != abi.StatusPending {
		t.Errorf("later: %v", s)
	}
}

func TestAKeyThatIsNotThereYetIsAskedForAgainButNotAtOnce(t *testing.T) {
	w := newWorld(t, Config{})
	later := func(channel.Request) channel.Answer { return channel.Answer{Status: abi.StatusPending} }
	for range 5 {
		w.keys.NeedRoot("orders", 0, testKid, w.now)
		w.keys.NeedLease("orders", w.now)
		if n := len(w.exchange(later)); n != 2 {
			t.Fatalf("%d requests", n)
		}
		w.keys.NeedRoot("orders", 0, testKid, w.now)
		w.keys.NeedLease("orders", w.now)
		if n := len(w.exchange(later)); n != 0 {
			t.Fatalf("%d requests at once", n)
		}
		w.now += askAgain
	}
}

func TestALeaseIsFollowedByAnotherBeforeItIsUsedUp(t *testing.T) {
	w := newWorld(t, Config{})
	start := uint32(0)
	give := func(q channel.Request) channel.Answer {
		l := leaseOf(q.Topic)
		l.Start, l.Level = start, abi.TreeDepth-4
		start += 16
		return channel.Answer{Body: l.Append(nil)}
	}
	w.keys.NeedLease("orders", w.now)
	w.exchange(give)
	for i := range 1000 {
		w.now++
		b := append(batchOf("x", 0), make([]byte, 300)...)
		r, s := w.filter.SealBatch(b, len(b)-300, []byte("orders"), 0, w.now)
		if s != abi.StatusOK {
			t.Fatalf("batch %d: %v", i, s)
		}
		w.keys.sealed("orders", r.Kid, r.Leaf, w.now)
		w.exchange(give)
	}
	if start > 1000+4*16 {
		t.Errorf("%d leaves were leased for 1000 batches", start)
	}
}

func TestALeaseInUseIsFollowedByAnotherBeforeItsEnd(t *testing.T) {
	w := newWorld(t, Config{})
	epoch := byte(0)
	give := func(q channel.Request) channel.Answer {
		if q.Op != channel.OpLease {
			return generous(true)(q)
		}
		epoch++
		l := leaseOf(q.Topic)
		l.Kid, l.UseBy = abi.Kid{epoch}, w.now+5000
		return channel.Answer{Body: l.Append(nil)}
	}
	w.keys.NeedLease("orders", w.now)
	w.exchange(give)
	for range 600 {
		w.now += 100
		b := append(batchOf("x", 0), make([]byte, 300)...)
		r, s := w.filter.SealBatch(b, len(b)-300, []byte("orders"), 0, w.now)
		if s != abi.StatusOK {
			t.Fatalf("after %d ms: %v", w.now-start, s)
		}
		w.keys.sealed("orders", r.Kid, r.Leaf, w.now)
		w.exchange(give)
	}
	if epoch > 30 {
		t.Errorf("%d leases in a minute", epoch)
	}
	used := epoch
	for range 600 {
		w.now += 100
		w.exchange(give)
	}
	if epoch > used+1 {
		t.Errorf("%d leases for a topic that nobody produces to", epoch-used)
	}
}

func TestTheAgentIsToldOfEachBatchUntilItTakesIt(t *testing.T) {
	w := newWorld(t, Config{})
	for offset := range int64(3) {
		if s := w.keys.Opened("orders", testKid, uint32(offset), 0, offset); s != abi.StatusOK {
			t.Fatal(s)
		}
	}
	w.exchange(func(q channel.Request) channel.Answer {
		return channel.Answer{Status: []abi.Status{abi.StatusOK, abi.StatusUnavailable, abi.StatusReplayed}[q.Leaf]}
	})
	asked := w.exchange(generous(true))
	if len(asked) != 1 || asked[0].Offset != 1 {
		t.Errorf("asked again: %+v", asked)
	}
	if s := w.keys.Opened("orders", testKid, 2, 0, 2); s != abi.StatusReplayed {
		t.Errorf("what the agent saw elsewhere before: %v", s)
	}
}

func TestWhatIsRememberedIsBounded(t *testing.T) {
	w := newWorld(t, Config{})
	for i := range uint32(maxTopicsAsked + maxRootsAsked + 10) {
		kid := abi.Kid{byte(i), byte(i >> 8)}
		lease, root := w.keys.NeedLease(string(kid[:]), w.now), w.keys.NeedRoot("orders", 0, kid, w.now)
		if full := i >= maxTopicsAsked; full != (lease == abi.StatusFull) || full != (root == abi.StatusFull) {
			t.Fatalf("%d: %v, %v", i, lease, root)
		}
	}
	w.now += unasked + 1
	w.keys.expire(w.now)
	if len(w.keys.leases) != 0 || len(w.keys.wanted) != 0 {
		t.Errorf("%d and %d are still remembered", len(w.keys.leases), len(w.keys.wanted))
	}
	var r replays
	for i := range uint32(maxReplayEntries + 10) {
		r.note(abi.Kid{byte(i >> 16)}, i, 0, int64(i))
	}
	if r.n > maxReplayEntries || len(r.kids) > 4 {
		t.Errorf("%d batches of %d kids", r.n, len(r.kids))
	}
	for i := 0; w.keys.Opened("orders", testKid, uint32(i), 0, int64(i)) == abi.StatusOK; i++ {
		if i > maxOpened {
			t.Fatal("batches of which the agent does not know are delivered without bound")
		}
	}
}

func TestAnswersToSomethingElseAreNotTaken(t *testing.T) {
	for name, spoil := range map[string]func(l *abi.Lease, r *abi.Root){
		"topic": func(l *abi.Lease, r *abi.Root) { l.Topic, r.Topic = "other", "other" },
		"kid":   func(l *abi.Lease, r *abi.Root) { l.Topic, r.Kid = "other", abi.Kid{9} },
	} {
		for _, op := range []channel.Op{channel.OpLease, channel.OpRoot} {
			w := newWorld(t, Config{})
			l, r := leaseOf("orders"), rootOf("orders")
			spoil(&l, &r)
			body := l.Append(nil)
			if op == channel.OpRoot {
				w.keys.NeedRoot("orders", 0, testKid, w.now)
				body = r.Append(nil)
			} else {
				w.keys.NeedLease("orders", w.now)
			}
			w.keys.requests(w.now)
			if err := w.keys.answered([]channel.Answer{{Body: body}}, w.now); err == nil {
				t.Errorf("%v, %s: taken", op, name)
			}
			if c := w.filter.Counters(); c[abi.CounterLeases]+c[abi.CounterRoots] != 0 {
				t.Errorf("%v, %s: installed", op, name)
			}
		}
	}
}
