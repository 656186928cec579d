package keyring

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

func TestWhatCannotBeOpenedIsToldApart(t *testing.T) {
	_, _, late, kid := group(t)
	classify := func(kid abi.Kid, topic string, committed bool) error {
		return late.consumer.Unreadable(topic, kid, committed)
	}
	expect := func(what string, err error, want abi.Status) {
		t.Helper()
		if !errors.Is(err, want) || !strings.Contains(err.Error(), "\nhint: ") {
			t.Errorf("%s: %v, want %q with a hint", what, err, want)
		}
	}
	expect("before the node joined", classify(kid, "orders", false), abi.StatusHistory)
	expect("where the group has read", classify(kid, "orders", true), abi.StatusUnreadable)
	expect("as another topic's", classify(kid, "payments", false), abi.StatusUnreadable)
	expect("named by nobody", classify(abi.Kid{9}, "orders", false), abi.StatusUnreadable)

	_, cons, own := held(t, "billing")
	expect("held for another topic", cons.consumer.Unreadable("payments", own, false), abi.StatusUnreadable)
	expect("held, and due to go", cons.consumer.Unreadable("orders", own, false), abi.StatusErased)

	late.consumer.state.erased[abi.Kid{8}] = 1 << 60
	expect("erased", classify(abi.Kid{8}, "orders", false), abi.StatusErased)

	m := late.consumer.missing[kid]
	m.wraps, m.why = true, abi.StatusErased
	late.consumer.missing[kid] = m
	expect("wrapped for a prekey that is gone", classify(kid, "orders", false), abi.StatusErased)
	m.wraps, m.why, m.start = false, abi.StatusUnreadable, late.state.firstBundle+ms(joining)
	late.consumer.missing[kid] = m
	expect("after the node joined", classify(kid, "orders", false), abi.StatusUnreadable)
	late.state.node.chain[0].DataNotBefore = m.start + 1
	expect("before data_not_before", classify(kid, "orders", false), abi.StatusHistory)
}

// TestSecondHeaderMakesNothingHistory: a dishonest producer lists another's commitment under
// a header of its own that looks older.
func TestSecondHeaderMakesNothingHistory(t *testing.T) {
	w := newWorld(t)
	cons := w.node(member, []string{"orders"}, billing)
	cons.state.firstBundle = 1
	kid := abi.Kid{1}
	young, old := unixMs(w.now), uint64(1)
	for _, starts := range [][]uint64{{young, old}, {old, young}} {
		clear(cons.consumer.missing)
		for _, start := range starts {
			cons.consumer.miss(kid, missing{topic: "orders", start: start, why: abi.StatusUnreadable, final: start == old})
		}
		if err := cons.consumer.Unreadable("orders", kid, false); !errors.Is(err, abi.StatusUnreadable) {
			t.Errorf("starts %v: %v", starts, err)
		}
		if !cons.consumer.Askable("orders", kid) {
			t.Errorf("starts %v: not asked for", starts)
		}
	}
}

func TestRequestListsWhatTheReaderComesToNext(t *testing.T) {
	w := newWorld(t)
	cons := w.node(member, []string{"orders", "payments"}, billing)
	kid := func(i int) abi.Kid { return abi.Kid{byte(i >> 8), byte(i)} }
	for i := range 600 {
		topic := "orders"
		if i%2 == 1 {
			topic = "payments"
		}
		cons.consumer.miss(kid(i), missing{topic: topic, start: uint64(i), why: abi.StatusUnreadable, final: i == 104})
	}
	none := func(abi.Kid) bool { return false }
	got := cons.consumer.Requestable([]abi.Kid{kid(100)}, func(k abi.Kid) bool { return k == kid(102) })
	if want := []abi.Kid{kid(100), kid(106), kid(108)}; !slices.Equal(got[:3], want) || len(got) != 248 {
		t.Errorf("%d kids, first %x, want 248 and %x", len(got), got[:3], want)
	}
	got = cons.consumer.Requestable(nil, none)
	if len(got) != wire.MaxRequested || got[0] != kid(599) || got[255] != kid(344) {
		t.Errorf("%d kids from %x to %x, want the newest", len(got), got[0], got[len(got)-1])
	}
	if _, err := cons.consumer.EpochRequest("billing", got, w.now); err != nil {
		t.Error(err)
	}
	for name, err := range map[string]error{
		"no kids":       func() error { _, err := cons.consumer.EpochRequest("billing", nil, w.now); return err }(),
		"another group": func() error { _, err := cons.consumer.EpochRequest("audit", got, w.now); return err }(),
		"after the credential's end": func() error {
			_, err := cons.consumer.EpochRequest("billing", got, w.now.Add(10*24*time.Hour))
			return err
		}(),
	} {
		if err == nil {
			t.Errorf("a request with %s is made", name)
		}
	}
}

// TestHistoryIsToldAfterARestart: the headers are read once more, and nothing comes back by it.
func TestHistoryIsToldAfterARestart(t *testing.T) {
	_, holder, late, kid := group(t)
	late, holder = late.restart(), holder.restart()
	if err := late.consumer.Unreadable("orders", kid, false); !errors.Is(err, abi.StatusUnreadable) {
		t.Errorf("before the headers are read again: %v", err)
	}
	for _, p := range []*party{late, holder} {
		p.sync()
		part := p.state.Node().GrantPartition()
		held := len(p.state.secrets)
		for i, rec := range p.world.grants[part] {
			if err := p.consumer.Recall(part, int64(i), rec.Key, rec.Value, p.roster, p.now); err != nil {
				t.Fatal(err)
			}
		}
		if len(p.state.secrets) != held {
			t.Errorf("%d secrets are held, and %d were before", len(p.state.secrets), held)
		}
	}
	if err := late.consumer.Unreadable("orders", kid, false); !errors.Is(err, abi.StatusHistory) {
		t.Errorf("after it: %v", err)
	}
}
