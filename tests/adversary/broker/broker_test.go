package broker

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wasm-e2ee/wasm-e2ee/host/config"
)

// Each action alone: it is seen for what it is, or listed with the reason why it need not be.
func TestEachActionIsDetectedOrOutsideTheModel(t *testing.T) {
	t.Parallel()
	all := actions()
	names := map[string]bool{}
	for _, a := range all {
		ways := 0
		for _, how := range []string{a.detected, string(a.alarm), a.outside} {
			if how != "" {
				ways++
			}
		}
		if ways != 1 || names[a.name] {
			t.Errorf("%s: is it detected, or outside the model? It is listed %d times", a.name, ways)
		}
		names[a.name] = true
	}
	t.Logf("%d actions", len(all))
	if len(all) < 20 {
		t.Error("too few to judge by")
	}
	for name, test := range map[string]struct {
		policy  config.Policy
		actions []*action
		prepare func(tr *traffic)
	}{
		"records, stop": {actions: recordActions()},
		"records, skip": {config.Policy{OnUnreadable: config.Skip}, dataActions(), nil},
		"realm":         {actions: realmActions(), prepare: func(tr *traffic) { tr.w.issuing() }},
		"members":       {actions: memberActions(), prepare: func(tr *traffic) { tr.lacking(6) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorldUnder(t, 1, test.policy)
			tr := newTraffic(w)
			tr.produceThrough(w.start("producer", w.enrolProducer("producer")))
			if test.prepare != nil {
				test.prepare(tr)
			}
			tr.each(test.actions)
		})
	}
}

// each performs every action, each on a partition of its own.
func (tr *traffic) each(all []*action) {
	t, w := tr.w.t, tr.w
	topics := w.makeTopics(int32(len(all)), "a", "b")
	defer tr.consume(topics...)()
	if _, err := tr.send(place{topics[1], 0}, 2); err != nil {
		t.Fatal(err)
	}
	for i, a := range all {
		at := place{topics[0], int32(i)}
		before, err := tr.send(at, 1+i%3)
		if err != nil {
			t.Fatal(err)
		}
		if (a.client == consumerClient || a.script != nil) && !eventually(15*time.Second, func() bool { return tr.arrived(before) }) {
			t.Fatalf("%s: what was produced before did not arrive:\n%s", a.name, w.log.from(max(0, w.log.size()-20)))
		}
		mark, raised := w.log.size(), w.alarms(a.alarm)
		if !tr.perform(a, at) {
			t.Errorf("%s: could not be applied:\n%s", a.name, w.log.from(mark))
			continue
		}
		detected := a.detected
		if detected == unopened && w.policy.OnUnreadable == config.Skip {
			detected = passedOver
		}
		if detected != "" && !eventually(10*time.Second, func() bool { return w.log.says(mark, detected, w.edited(a)) }) {
			t.Errorf("%s: nothing in the log says %q:\n%s", a.name, detected, w.log.from(mark))
		}
		if a.alarm != "" && !eventually(10*time.Second, func() bool { return w.alarms(a.alarm) > raised }) {
			t.Errorf("%s: nobody raises the alarm %q:\n%s", a.name, a.alarm, w.log.from(mark))
		}
		t.Logf("%-50s %s", a.name, a.seen())
	}
	tr.resumes("resumed")
	tr.check()
}

// edited is how the log names the partition whose data was edited; "" where the log has no
// reason to name it.
func (w *world) edited(a *action) string {
	at := w.edit.where()
	if a.client != consumerClient || a.detected == closed {
		return ""
	}
	return fmt.Sprintf("topic=%s partition=%d ", at.topic, at.partition)
}

// The long form: `make adversary-broker`, or these variables.
const (
	seedsVariable = "ADVERSARY_SEEDS" // how many sequences
	firstVariable = "ADVERSARY_SEED"  // the first one's seed
)

// number reads a variable of the environment.
func number(t *testing.T, name string, without int) int {
	text, ok := os.LookupEnv(name)
	if !ok {
		return without
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s=%q is no count", name, text)
	}
	return n
}

func TestNoSequenceOfActionsDeliversWhatWasNotSent(t *testing.T) {
	t.Parallel()
	first := number(t, firstVariable, 1)
	applied := map[string]int{}
	var mu sync.Mutex
	t.Run("sequences", func(t *testing.T) {
		for seed := first; seed < first+number(t, seedsVariable, 2); seed++ {
			t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
				t.Parallel()
				done := sequence(t, uint64(seed))
				mu.Lock()
				defer mu.Unlock()
				for name, n := range done {
					applied[name] += n
				}
			})
		}
	})
	for _, a := range actions() {
		t.Logf("%-50s %d times", a.name, applied[a.name])
		if applied[a.name] == 0 {
			t.Errorf("%s: was not applied in any sequence", a.name)
		}
	}
}

// perRound is how many actions share a set of topics: where the policy of the sidecars is to
// stop, some of them end a partition for good.
const perRound = 16

// policyOf gives half of the sequences each policy.
func policyOf(seed uint64) (p config.Policy) {
	if seed%2 == 1 {
		p.OnUnreadable = config.Skip
	}
	if seed/2%2 == 1 {
		p.Freshness = config.Require
	}
	return p
}

// sequence applies every action in an order that the seed decides, in rounds on fresh topics,
// with a producer that is restarted in between, members that come late, and one that is
// revoked. It returns how often each action was applied.
func sequence(t *testing.T, seed uint64) (applied map[string]int) {
	w := newWorldUnder(t, seed, policyOf(seed))
	tr := newTraffic(w)
	w.issuing()
	state := w.enrolProducer("producer")
	all := actions()
	rng := rand.New(rand.NewPCG(seed, 3))
	rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	const partitions = 4
	missed := map[string]bool{}
	rounds := (len(all) + perRound - 1) / perRound
	for round := 0; len(all) > 0; round++ {
		side, stop := w.stopping("producer", state)
		tr.produceThrough(side)
		switch round {
		case 0:
			tr.lacking(6)
		case rounds / 2:
			w.revoke(w.leaver)
		}
		topics := w.makeTopics(partitions, fmt.Sprintf("%d-a", round), fmt.Sprintf("%d-b", round))
		anywhere := func() place { return place{topics[rng.IntN(len(topics))], int32(rng.IntN(partitions))} }
		stopConsumer := tr.consume(topics...)
		for _, topic := range topics {
			for p := range int32(partitions) {
				tr.produce(place{topic, p}, 2)
			}
		}
		n := min(perRound, len(all))
		now := all[:n]
		all = all[n:]
		for _, a := range now {
			// What ends partitions can leave an action without anything to work on: once more
			// then, in a later round.
			if !tr.perform(a, anywhere()) && !missed[a.name] {
				missed[a.name] = true
				all = append(all, a)
			}
		}
		w.edit.arm(nil)
		if w.policy.OnUnreadable == config.Skip {
			tr.goesOn(topics, partitions)
		}
		tr.resumes(fmt.Sprintf("%d-resumed", round))
		stopConsumer()
		tr.producer.Close()
		stop()
	}
	tr.lateReads()
	w.leaverHasNothing()
	tr.check()
	w.edit.mu.Lock()
	defer w.edit.mu.Unlock()
	return maps.Clone(w.edit.applied)
}

// perform applies one action, with records that it can work on, and reports whether it was.
func (tr *traffic) perform(a *action, at place) bool {
	w := tr.w
	if a.script != nil {
		ok := a.script(tr, at)
		if ok {
			w.edit.did(a.name)
		}
		return ok
	}
	if a.store != nil {
		tr.produce(at, 2)
		ok := eventually(3*time.Second, func() bool { return a.store(w, at) })
		if ok {
			w.edit.did(a.name)
		}
		return ok
	}
	count := w.edit.count(a.name)
	if a.several {
		w.edit.hold(at)
		for range 3 {
			_, _ = tr.send(at, 1+tr.w.rng.IntN(3))
		}
	}
	w.edit.arm(a)
	defer w.edit.arm(nil)
	if a.stage != nil {
		if after := a.stage(w); after != nil {
			defer func() {
				w.edit.arm(nil)
				after()
			}()
		}
	}
	return eventually(4*time.Second, func() bool {
		tr.produce(at, 2)
		time.Sleep(10 * time.Millisecond)
		return w.edit.count(a.name) > count
	})
}

// produce sends records without waiting.
func (tr *traffic) produce(at place, n int) {
	for _, r := range tr.records(at, n) {
		tr.producer.TryProduce(tr.w.t.Context(), r, nil)
	}
}

// goesOn demands that what is produced from now on arrives on the same partitions: where the
// policy is to skip, nothing that was done to them ends one. An epoch whose grant was hidden is
// lost as a whole, so that it may be the next one's records that arrive.
func (tr *traffic) goesOn(topics []string, partitions int32) {
	tr.w.t.Helper()
	waiting := map[place][]*kgo.Record{}
	for _, topic := range topics {
		for p := range partitions {
			waiting[place{topic, p}] = nil
		}
	}
	if !eventually(40*time.Second, func() bool {
		for at := range waiting {
			records := tr.records(at, 2)
			waiting[at] = append(waiting[at], records...)
			for _, r := range records {
				tr.producer.TryProduce(tr.w.t.Context(), r, nil)
			}
		}
		eventually(time.Second, func() bool {
			maps.DeleteFunc(waiting, func(_ place, records []*kgo.Record) bool {
				return slices.ContainsFunc(records, func(r *kgo.Record) bool { return tr.arrived([]*kgo.Record{r}) })
			})
			return len(waiting) == 0
		})
		return len(waiting) == 0
	}) {
		tr.w.t.Errorf("%d partitions do not go on once the broker is honest:\n%s", len(waiting), tr.w.log.from(max(0, tr.w.log.size()-20)))
	}
}

// resumes makes the broker honest and demands that what is produced from now on arrives, on
// partitions that nobody spoilt.
func (tr *traffic) resumes(name string) {
	tr.w.t.Helper()
	tr.w.edit.arm(nil)
	const tries = 20
	topic := tr.w.makeTopics(tries, name)[0]
	defer tr.consume(topic)()
	for i := range int32(tries) {
		var records []*kgo.Record
		var err error
		if records, err = tr.send(place{topic, i}, 3); err != nil {
			tr.w.t.Logf("producing again: %v", err)
		}
		if eventually(time.Second, func() bool { return tr.arrived(records) }) {
			return
		}
	}
	tr.w.t.Errorf("service did not resume once the broker was honest:\n%s", strings.TrimSpace(tr.w.log.from(max(0, tr.w.log.size()-20))))
}
