package keyring

import (
	"errors"
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

func TestRosterThatLacksWhatWasSeenIsNoticed(t *testing.T) {
	w := newWorld(t)
	prod := w.node(produce, []string{"*"}, nil)
	cons := w.node(consume, []string{"*"}, nil)
	other := w.node(consume, []string{"*"}, nil)
	add := func(seq *wire.AuthorityState, revoke ...wire.Revocation) *wire.AuthorityState {
		t.Helper()
		a, err := w.issuer.NextState(seq, revoke, w.now, StateValidity)
		if err != nil {
			t.Fatal(err)
		}
		w.roster = append(w.roster, Record{Key: a.Key(), Value: a.Append(nil)})
		return a
	}
	state := add(nil)
	cons.publish()
	other.publish()
	w.pass(time.Minute)
	beforeNewer := len(w.roster)
	cons.publish()
	beforeState := len(w.roster)
	add(state)
	all := w.roster
	prod.sync()

	lost := func(records []Record, at time.Time) []error {
		t.Helper()
		prod = prod.restart()
		w.roster = records
		prod.sync()
		errs := prod.roster.Lost(at)
		for _, err := range errs {
			if !errors.Is(err, ErrRollback) {
				t.Errorf("%v does not wrap %v", err, ErrRollback)
			}
		}
		return errs
	}
	without := func(t wire.Type) (out []Record) {
		for _, rec := range all {
			if wire.Type(rec.Key[0]) != t {
				out = append(out, rec)
			}
		}
		return out
	}
	newest := append(append([]Record{}, all[:beforeNewer-2]...), all[beforeNewer-1:]...) // without the older bundle, as compacted
	late := w.now.Add(w.timing.HardCap + time.Second)
	for name, tc := range map[string]struct {
		records []Record
		at      time.Time
		want    int
	}{
		"all of it":                 {all, w.now, 0},
		"after compaction":          {newest, w.now, 0},
		"an older state":            {all[:beforeState], w.now, 1},
		"an older bundle and state": {all[:beforeNewer], w.now, 2},
		"no bundles":                {without(wire.TypePrekeyBundle), w.now, 2},
		"no state":                  {without(wire.TypeAuthorityState), w.now, 1},
		"no credentials":            {without(wire.TypeCredential), w.now, 2},
		"nothing":                   {nil, w.now, 3},
		"nothing, much later":       {nil, late, 1}, // bundles may have been removed for good by then
	} {
		if got := lost(tc.records, tc.at); len(got) != tc.want {
			t.Errorf("%s: %v, want %d", name, got, tc.want)
		}
	}
	// A bundle that a revocation reaches back to is refused, not lost.
	w.roster = all
	prod = prod.restart()
	prod.sync()
	add(prod.roster.Authority(), wire.Revocation{Serial: other.state.Node().Credential().Serial, At: 1})
	if got := lost(w.roster, w.now); len(got) != 0 {
		t.Errorf("after a revocation: %v", got)
	}
	if got := w.start(cons.state).roster.Lost(w.now); len(got) == 0 {
		t.Error("a roster that was not read at all lacks nothing")
	}
	if got := w.node(consume, []string{"*"}, nil).roster.Lost(w.now); len(got) != 0 {
		t.Errorf("a new node misses %v", got)
	}
}

// Whoever has the key of a revoked node puts bundles in the place of its last good one, and
// compaction keeps only the newest, which is refused.
func TestBundleThatARevokedNodeReplacedIsNotLost(t *testing.T) {
	w := newWorld(t)
	prod := w.node(produce, []string{"*"}, nil)
	cons := w.node(consume, []string{"*"}, nil)
	first := w.revoke(nil)
	cons.publish()
	good := len(w.roster) - 1
	prod.sync()
	w.pass(time.Hour)
	stolen, err := cons.consumer.NewPrekey(w.now)
	if err != nil {
		t.Fatal(err)
	}
	w.revoke(first, cons)
	w.roster[good] = w.roster[len(w.roster)-1] // compacted: the state first
	w.roster[len(w.roster)-1] = stolen
	prod = prod.restart()
	for _, rec := range w.roster {
		_ = prod.roster.Apply(rec.Key, rec.Value, w.now)
	}
	if len(prod.roster.Bundles()) != 0 {
		t.Fatal("the thief's bundle counts")
	}
	if got := prod.roster.Lost(w.now); len(got) != 0 {
		t.Errorf("missed: %v", got)
	}
}
