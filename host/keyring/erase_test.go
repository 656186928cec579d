package keyring

import (
	"bytes"
	"crypto/rand"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

var billing = []string{"billing"}

// held starts a world in which cons, a member of groups, holds the only epoch of "orders".
func held(t *testing.T, groups ...string) (w *world, cons *party, kid abi.Kid) {
	t.Helper()
	w = newWorld(t)
	prod := w.node(produce, []string{"orders"}, nil)
	cons = w.node(consume, []string{"orders"}, groups)
	cons.publish()
	prod.grant("orders")
	cons.follow()
	return w, cons, prod.lease("orders").Kid
}

// settle goes to where end offsets are wanted, and notes them.
func (p *party) settle(ends map[int32]int64) {
	p.t.Helper()
	p.pass(p.timing.Epoch + p.timing.Lead + p.timing.Skew + p.timing.Settle)
	if got := p.consumer.EndsWanted(p.now); !slices.Equal(got, []string{"orders"}) {
		p.t.Fatalf("ends wanted: %v", got)
	}
	p.consumer.NoteEnds("orders", ends, p.now)
}

// progress tells the consumer about groups of the topic and others that are known; log
// starts are 0.
func (p *party) progress(groups map[string]map[int32]int64, others ...string) ([]Scan, []string) {
	return p.consumer.NoteProgress("orders", Progress{LogStart: map[int32]int64{0: 0, 1: 0}, Groups: groups, Known: known(groups, others...)}, p.now)
}

func known(groups map[string]map[int32]int64, others ...string) []string {
	return slices.AppendSeq(others, maps.Keys(groups))
}

// mustErase checks that kid goes at exactly now + after, and that nothing of it stays.
func (p *party) mustErase(kid abi.Kid, after time.Duration) {
	p.t.Helper()
	x := p.state.secrets[kid]
	if x == nil {
		p.t.Fatal("the secret is not held")
	}
	ts := bytes.Clone(x.ts[:])
	p.pass(after - time.Millisecond)
	if kids := p.consumer.Tick(p.now); len(kids) != 0 {
		p.t.Fatalf("erased before its time: %x", kids)
	}
	if !bytes.Contains(p.state.Marshal(), ts) {
		p.t.Fatal("the search finds nothing even while the secret is held")
	}
	if _, err := p.consumer.Root("orders", kid, p.now); err != nil {
		p.t.Fatal(err)
	}
	p.pass(time.Millisecond)
	if _, err := p.consumer.Root("orders", kid, p.now); !errors.Is(err, abi.StatusErased) {
		p.t.Errorf("root at its end, before Tick: %v", err)
	}
	if kids := p.consumer.Tick(p.now); !slices.Equal(kids, []abi.Kid{kid}) {
		p.t.Fatalf("erased %x, want %x", kids, kid)
	}
	if bytes.Contains(p.state.Marshal(), ts) || x.ts != (secretKey{}) {
		p.t.Error("the topic secret is still there")
	}
	if _, err := p.consumer.Root("orders", kid, p.now); !errors.Is(err, abi.StatusErased) {
		p.t.Errorf("root after: %v", err)
	}
}

func TestConsumedEpochIsErasedAfterTheWindow(t *testing.T) {
	_, cons, kid := held(t, "billing", "audit")
	cons.settle(map[int32]int64{0: 10, 1: 0})
	for i, groups := range []map[string]map[int32]int64{
		{"billing": {0: 9}, "audit": {0: 10}},
		{"billing": {0: 10}, "audit": {}},
	} {
		if cons.progress(groups); cons.state.secrets[kid].pastAt != 0 {
			t.Errorf("step %d: past although a group is not", i)
		}
	}
	cons.progress(map[string]map[int32]int64{"billing": {0: 10}, "audit": {0: 11}})
	if got := cons.consumer.Watched(); len(got) != 0 {
		t.Errorf("still watched: %v", got)
	}
	cons.mustErase(kid, cons.timing.Window)
}

func TestEndsAreNotedOnlyWhenTheEpochHasSettled(t *testing.T) {
	_, cons, kid := held(t, "billing")
	cons.pass(cons.timing.Epoch + cons.timing.Lead + cons.timing.Skew + cons.timing.Settle - time.Millisecond)
	cons.consumer.NoteEnds("orders", map[int32]int64{0: 1}, cons.now)
	if x := cons.state.secrets[kid]; x.endsAt != 0 || len(cons.consumer.EndsWanted(cons.now)) != 0 {
		t.Error("noted before its time: something may still be sealed under it")
	}
	cons.pass(time.Millisecond)
	cons.consumer.NoteEnds("orders", map[int32]int64{0: 2}, cons.now)
	cons.consumer.NoteEnds("orders", map[int32]int64{0: 3}, cons.now)
	if got := cons.state.secrets[kid].ends[0]; got != 2 {
		t.Errorf("end %d, want the first one noted", got)
	}
}

// TestMarkersAndEmptyPartitionsAreScanned: the committed offset stays below E_p for ever
// where a transaction marker ends the log.
func TestMarkersAndEmptyPartitionsAreScanned(t *testing.T) {
	_, cons, kid := held(t, "billing")
	cons.settle(map[int32]int64{0: 6, 1: 4})
	groups := map[string]map[int32]int64{"billing": {0: 5}}
	scans, _ := cons.progress(groups)
	if want := []Scan{{"orders", 0, 5, 6}, {"orders", 1, 0, 4}}; !slices.Equal(scans, want) {
		t.Fatalf("scans %v, want %v", scans, want)
	}
	cons.consumer.NoteScan(scans[0], map[abi.Kid]bool{{9}: true}, false)
	cons.consumer.NoteScan(scans[1], map[abi.Kid]bool{kid: true}, false)
	if scans, _ := cons.progress(groups); len(scans) != 0 || cons.state.secrets[kid].pastAt != 0 {
		t.Errorf("a value of the epoch was found: scans %v", scans)
	}
	groups["billing"][1] = 3
	if scans, _ := cons.progress(groups); !slices.Equal(scans, []Scan{{"orders", 1, 3, 4}}) {
		t.Fatalf("after progress: %v", scans)
	}
	cons.consumer.NoteScan(Scan{"orders", 1, 3, 4}, nil, false)
	cons.progress(groups)
	cons.mustErase(kid, cons.timing.Window)
}

// TestCommitInsideABatchIsNotPastIt: the batch's one value stands before the committed
// offset, so that a scan from there cannot see its kid.
func TestCommitInsideABatchIsNotPastIt(t *testing.T) {
	_, cons, kid := held(t, "billing")
	cons.settle(map[int32]int64{0: 10})
	groups := map[string]map[int32]int64{"billing": {0: 5}}
	scans, _ := cons.progress(groups)
	if len(scans) != 1 {
		t.Fatalf("scans %v", scans)
	}
	cons.consumer.NoteScan(scans[0], nil, true)
	if scans, _ := cons.progress(groups); len(scans) != 0 || cons.state.secrets[kid].pastAt != 0 {
		t.Errorf("past, or read again although the group did not move: scans %v", scans)
	}
	groups["billing"][0] = 8 // the batch ends here; what follows is another epoch's
	scans, _ = cons.progress(groups)
	if !slices.Equal(scans, []Scan{{"orders", 0, 8, 10}}) {
		t.Fatalf("scans %v", scans)
	}
	cons.consumer.NoteScan(scans[0], nil, false)
	cons.progress(groups)
	cons.mustErase(kid, cons.timing.Window)
}

// TestRestartDoesNotBeginTheWindowAnew: what scans have shown is in memory only, and a group
// that stands inside a later epoch's batch cannot be scanned for again.
func TestRestartDoesNotBeginTheWindowAnew(t *testing.T) {
	for _, inside := range []bool{false, true} {
		_, cons, kid := held(t, "billing")
		cons.settle(map[int32]int64{0: 10})
		groups := map[string]map[int32]int64{"billing": {0: 8}}
		scans, _ := cons.progress(groups)
		cons.consumer.NoteScan(scans[0], nil, false)
		cons.progress(groups)
		cons.pass(cons.timing.Window / 2)
		cons = cons.restart()
		groups["billing"][0] = 9
		scans, _ = cons.progress(groups)
		if len(scans) != 1 {
			t.Fatalf("scans %v", scans)
		}
		cons.consumer.NoteScan(scans[0], nil, inside)
		cons.progress(groups)
		cons.mustErase(kid, cons.timing.Window-cons.timing.Window/2)
	}
}

// TestGroupThatWentBackIsFoundAfterARestart: a value of the epoch beyond the committed offset
// says so.
func TestGroupThatWentBackIsFoundAfterARestart(t *testing.T) {
	_, cons, kid := held(t, "billing")
	cons.settle(map[int32]int64{0: 10})
	cons.progress(map[string]map[int32]int64{"billing": {0: 10}})
	cons = cons.restart()
	groups := map[string]map[int32]int64{"billing": {0: 2}}
	scans, _ := cons.progress(groups)
	cons.consumer.NoteScan(scans[0], map[abi.Kid]bool{kid: true}, false)
	if cons.progress(groups); cons.state.secrets[kid].pastAt != 0 {
		t.Error("past an epoch that the group reads again")
	}
}

func TestLongStretchesAreNotScanned(t *testing.T) {
	_, cons, _ := held(t, "billing")
	cons.settle(map[int32]int64{0: maxScan + 1})
	if scans, _ := cons.progress(map[string]map[int32]int64{"billing": {0: 0}}); len(scans) != 0 {
		t.Errorf("scans %v", scans)
	}
	if scans, _ := cons.progress(map[string]map[int32]int64{"billing": {0: 1}}); len(scans) != 1 {
		t.Errorf("scans %v", scans)
	}
}

func TestExpiredDataCountsAsRead(t *testing.T) {
	_, cons, kid := held(t, "billing")
	cons.settle(map[int32]int64{0: 10})
	cons.consumer.NoteProgress("orders", Progress{LogStart: map[int32]int64{0: 10}, Groups: map[string]map[int32]int64{"billing": {}}, Known: billing}, cons.now)
	cons.mustErase(kid, cons.timing.Window)
}

func TestLogStartBeyondTheCommitCounts(t *testing.T) {
	_, cons, kid := held(t, "billing")
	cons.settle(map[int32]int64{0: 10})
	cons.consumer.NoteProgress("orders", Progress{LogStart: map[int32]int64{0: 10}, Groups: map[string]map[int32]int64{"billing": {0: 3}}, Known: billing}, cons.now)
	cons.mustErase(kid, cons.timing.Window)
}

func TestUnknownLogStartHoldsTheEpoch(t *testing.T) {
	_, cons, kid := held(t, "billing")
	cons.settle(map[int32]int64{0: 10})
	cons.consumer.NoteProgress("orders", Progress{Groups: map[string]map[int32]int64{"billing": {}}, Known: billing}, cons.now)
	if cons.state.secrets[kid].pastAt != 0 {
		t.Error("past without any evidence")
	}
}

// TestGroupThatHasNotStartedHoldsItsEpochs: an application that starts long after its
// sidecar, and reads from the beginning, reads all of it.
func TestGroupThatHasNotStartedHoldsItsEpochs(t *testing.T) {
	for name, groups := range map[string][]string{"named": {"ghost"}, "covered by a prefix": {"gh*"}, "beside others": {"billing", "ghost", "gh*"}} {
		t.Run(name, func(t *testing.T) {
			_, cons, kid := held(t, groups...)
			cons.settle(map[int32]int64{0: 10})
			seen := map[string]map[int32]int64{}
			if len(groups) > 1 {
				seen["billing"] = map[int32]int64{0: 10}
			}
			if _, warnings := cons.progress(seen); len(warnings) != 0 {
				t.Errorf("warned before the group had time to start: %v", warnings)
			}
			cons.pass(cons.timing.HardCap / 2)
			_, warnings := cons.progress(seen)
			if len(warnings) != 1 || !strings.Contains(warnings[0], "hint: start") {
				t.Errorf("warnings %v", warnings)
			}
			if _, again := cons.progress(seen); len(again) != 0 {
				t.Errorf("warned twice: %v", again)
			}
			cons.pass(cons.timing.Window)
			if kids := cons.consumer.Tick(cons.now); len(kids) != 0 {
				t.Fatal("erased although the group has not read it")
			}
			seen["ghost"] = map[int32]int64{0: 3}
			if cons.progress(seen); cons.state.secrets[kid].pastAt != 0 {
				t.Error("past although the group has read only a part")
			}
			seen["ghost"][0] = 10
			cons.progress(seen)
			cons.mustErase(kid, cons.timing.Window)
		})
	}
}

// TestGroupOfOtherTopicsHoldsNothing: a node may list groups that read other topics of its
// credential, and prefixes for groups that come and go.
func TestGroupOfOtherTopicsHoldsNothing(t *testing.T) {
	_, cons, kid := held(t, "billing", "audit", "console-*")
	cons.settle(map[int32]int64{0: 10})
	groups := map[string]map[int32]int64{"billing": {0: 10}}
	cons.pass(cons.timing.Window - time.Millisecond)
	if cons.progress(groups, "audit"); cons.state.secrets[kid].pastAt != 0 {
		t.Error("audit had no time to join")
	}
	cons.pass(time.Millisecond)
	cons.progress(groups, "audit")
	cons.mustErase(kid, cons.timing.Window)
}

// TestTopicThatNobodyReadsYet: a known group may subscribe to it later. Only a node that
// also produces may have it to write alone.
func TestTopicThatNobodyReadsYet(t *testing.T) {
	for _, roles := range []wire.Roles{consume, produce | consume} {
		w := newWorld(t)
		cons := w.node(roles, []string{"orders"}, billing)
		prod := w.node(produce, []string{"orders"}, nil)
		cons.publish()
		prod.grant("orders")
		cons.follow()
		kid := prod.lease("orders").Kid
		cons.settle(map[int32]int64{0: 10})
		cons.pass(w.timing.Window)
		if _, warnings := cons.progress(nil, "billing"); len(warnings) != 1 || !strings.Contains(warnings[0], "topic orders") {
			t.Errorf("%v: warnings %v", roles, warnings)
		}
		if roles.Has(produce) {
			cons.mustErase(kid, w.timing.Window)
		} else if cons.state.secrets[kid].pastAt != 0 {
			t.Error("a topic that nobody has read counts as read")
		}
	}
}

func TestPrefixOfGroupsWaitsForEachThatExists(t *testing.T) {
	_, cons, kid := held(t, "team.*")
	cons.settle(map[int32]int64{0: 10})
	cons.progress(map[string]map[int32]int64{"team.a": {0: 10}, "team.b": {0: 4}, "other": {}})
	if cons.state.secrets[kid].pastAt != 0 {
		t.Error("past although team.b is not")
	}
	cons.progress(map[string]map[int32]int64{"team.a": {0: 10}, "team.b": {0: 10}, "other": {}})
	cons.mustErase(kid, cons.timing.Window)
}

func TestWithoutGroupsOnlyTheHardCapErases(t *testing.T) {
	w, cons, kid := held(t)
	useBy := fromMs(cons.state.secrets[kid].useBy)
	cons.settle(map[int32]int64{0: 0})
	if scans, warnings := cons.progress(nil); len(scans)+len(warnings) != 0 || cons.state.secrets[kid].pastAt != 0 {
		t.Error("something counts as consumed")
	}
	cons.mustErase(kid, useBy.Add(w.timing.HardCap).Sub(w.now))
}

func TestHardCapErasesWhatALaggardHasNotRead(t *testing.T) {
	w, cons, kid := held(t, "billing")
	useBy := fromMs(cons.state.secrets[kid].useBy)
	cons.settle(map[int32]int64{0: 10})
	cons.progress(map[string]map[int32]int64{"billing": {0: 1}})
	cons.mustErase(kid, useBy.Add(w.timing.HardCap).Sub(w.now))
}

func TestRetentionShortensTheHardCap(t *testing.T) {
	w, cons, kid := held(t, "billing")
	cons.consumer.NoteRetention("orders", 30*24*time.Hour)
	if got := cons.consumer.hardCap("orders"); got != ms(w.timing.HardCap) {
		t.Errorf("a long retention gives %d ms", got)
	}
	cons.consumer.NoteRetention("orders", time.Hour)
	cons.mustErase(kid, fromMs(cons.state.secrets[kid].useBy).Add(time.Hour).Sub(w.now))
}

func TestLostTopicErasesItsSecrets(t *testing.T) {
	w, cons, kid := held(t, "billing")
	narrow := attributes(t, consume, []string{"payments"}, nil)
	file, err := w.issuer.Issue(rand.Reader, cons.state.Node().CSR(narrow), nil, w.validity())
	if err != nil {
		t.Fatal(err)
	}
	if err := cons.state.Node().Install(file, w.now); err != nil {
		t.Fatal(err)
	}
	if kids := cons.consumer.Tick(w.now); !slices.Equal(kids, []abi.Kid{kid}) {
		t.Errorf("erased %x", kids)
	}
}

func TestErasedKidIsNotResurrected(t *testing.T) {
	w, cons, kid := held(t, "billing")
	cons.settle(map[int32]int64{0: 0})
	cons.progress(map[string]map[int32]int64{"billing": {}})
	cons.mustErase(kid, w.timing.Window)
	rec := w.grants[cons.state.Node().GrantPartition()][0]
	again := cons.restart()
	for _, p := range []*party{cons, again} {
		if kids, err := p.apply(rec); err != nil || len(kids) != 0 {
			t.Errorf("the same grant again: %x %v", kids, err)
		}
		if _, err := p.consumer.Root("orders", kid, w.now); !errors.Is(err, abi.StatusErased) {
			t.Errorf("got %v", err)
		}
	}
	w.pass(w.timing.HardCap + w.timing.Epoch + w.timing.Lead)
	again.consumer.Tick(w.now)
	if n := again.state.View().ErasedKids; n != 0 {
		t.Errorf("%d erased kids are remembered for ever", n)
	}
	if kids, err := again.apply(rec); err != nil || len(kids) != 0 {
		t.Errorf("long after: %x %v", kids, err)
	}
	if n := again.state.View().ErasedTotal; n != 1 {
		t.Errorf("%d erased in all", n)
	}
}

func TestStateKeepsItsClocksAcrossARestart(t *testing.T) {
	_, cons, kid := held(t, "billing")
	cons.settle(map[int32]int64{0: 10, 3: 7})
	cons.progress(map[string]map[int32]int64{"billing": {0: 10, 3: 7}})
	cons.pass(time.Minute)
	again := cons.restart()
	again.mustErase(kid, again.timing.Window-time.Minute)
}

func TestPrekeyGoesWhenReadBackGraceAndReaderAllow(t *testing.T) {
	w, prod, cons := pair(t)
	old := cons.consumer.newest()
	seed := bytes.Clone(old.seed[:])
	gone := func() bool {
		t.Helper()
		cons.consumer.Tick(w.now)
		return !bytes.Contains(cons.state.Marshal(), seed)
	}
	w.pass(w.timing.PrekeyRotation)
	if !cons.consumer.PrekeyDue(w.now) {
		t.Fatal("no rotation is due")
	}
	rec, err := cons.consumer.NewPrekey(w.now)
	if err != nil {
		t.Fatal(err)
	}
	if cons.consumer.Published() {
		t.Error("published before it was read back")
	}
	w.pass(time.Hour)
	cons.consumer.NoteGrantsEnd(0, w.now)
	cons.consumer.NoteGrants(0)
	if gone() {
		t.Fatal("erased before the newer bundle was read back")
	}
	// A producer that has not seen it grants to the old one; this must stay readable.
	d := prod.grant("orders")[0]
	w.roster = append(w.roster, rec)
	cons.sync()
	if !cons.consumer.Published() {
		t.Error("not published after it was read back")
	}
	w.pass(w.timing.PrekeyGrace - time.Millisecond)
	cons.consumer.NoteGrantsEnd(1, w.now)
	if cons.consumer.PrekeysWaiting(w.now) || gone() {
		t.Fatal("erased before its grace was over")
	}
	w.pass(time.Millisecond)
	if !cons.consumer.PrekeysWaiting(w.now) {
		t.Error("nothing waits")
	}
	cons.consumer.NoteGrantsEnd(1, w.now.Add(-time.Millisecond))
	cons.consumer.NoteGrantsEnd(1, w.now)
	if gone() {
		t.Fatal("erased before the reader had passed the end")
	}
	if kids := cons.follow(); len(kids) != 1 {
		t.Errorf("opened %d epochs", len(kids))
	}
	if !gone() || old.seed != (secretKey{}) {
		t.Fatal("not erased")
	}
	// What was wrapped for it opens no more, even without the memory of its kid.
	clear(cons.state.secrets)
	if kids, err := cons.apply(cons.part(d)); len(kids) != 0 || !errors.Is(err, abi.StatusErased) {
		t.Errorf("an erased prekey opens %x, %v", kids, err)
	}
}

// TestPrekeyWaitsForTheReaderOfANewLog: offsets of a grants topic that was deleted say
// nothing about the one that took its place.
func TestPrekeyWaitsForTheReaderOfANewLog(t *testing.T) {
	w, _, cons := pair(t)
	old := cons.consumer.newest()
	cons.consumer.NoteGrants(1000)
	w.pass(w.timing.PrekeyRotation)
	cons.publish()
	cons.consumer.RestartGrants(0)
	w.pass(w.timing.PrekeyGrace)
	cons.consumer.NoteGrantsEnd(5, w.now)
	if cons.consumer.Tick(w.now); old.seed == (secretKey{}) {
		t.Error("erased although its grants were not read")
	}
	cons.consumer.NoteGrants(5)
	if cons.consumer.Tick(w.now); old.seed != (secretKey{}) {
		t.Error("not erased once they were")
	}
	again := cons.restart()
	if got := again.consumer.GrantsNext(); got != 5 {
		t.Errorf("reads on from %d", got)
	}
}

func TestPrekeysRotateAndGenerationsGrow(t *testing.T) {
	w, _, cons := pair(t)
	if cons.consumer.PrekeyDue(w.now) {
		t.Error("due right after one was made")
	}
	first := cons.consumer.newest().generation
	w.pass(-time.Second) // the clock steps back
	cons.publish()
	if got := cons.consumer.newest().generation; got != first+1 {
		t.Errorf("generation %d after %d", got, first)
	}
	for range 2 { // neither is read back
		if _, err := cons.consumer.NewPrekey(w.now); err != nil {
			t.Fatal(err)
		}
	}
	if got := cons.consumer.newest().generation; got != first+3 {
		t.Errorf("generation %d, want %d", got, first+3)
	}
	again := cons.restart()
	if !again.consumer.PrekeyDue(w.now) {
		t.Error("not due at start")
	}
	again.publish()
	if got := again.consumer.newest().generation; got != first+4 {
		t.Errorf("generation %d after a restart", got)
	}
	p := again.consumer.newest()
	if p.notAfter-p.created != ms(w.timing.Offline) {
		t.Errorf("good for %d ms", p.notAfter-p.created)
	}
}

func TestPrekeysAreBoundedWhileNothingIsReadBack(t *testing.T) {
	w, _, cons := pair(t)
	var last Record
	for range 2 * maxPrekeys {
		w.pass(time.Second)
		var err error
		if last, err = cons.consumer.NewPrekey(w.now); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(cons.state.prekeys); n != maxPrekeys {
		t.Errorf("%d prekeys are held", n)
	}
	w.roster = append(w.roster, last)
	cons.sync()
	if !cons.consumer.Published() {
		t.Error("what is published again is not the newest")
	}
}

func TestOverwrittenBundleIsPublishedAgain(t *testing.T) {
	w, _, cons := pair(t)
	old := w.roster[len(w.roster)-1]
	w.pass(time.Minute)
	cons.publish()
	for name, value := range map[string][]byte{"rolled back": old.Value, "garbage": []byte("x"), "tombstone": nil} {
		if again, err := cons.consumer.NoteRoster(old.Key, value, w.now); err != nil || !again {
			t.Errorf("%s: %v %v", name, again, err)
		}
	}
	rec, ok := cons.consumer.Bundle()
	if !ok {
		t.Fatal("there is no bundle")
	}
	if again, err := cons.consumer.NoteRoster(rec.Key, rec.Value, w.now); err != nil || again {
		t.Errorf("the newest itself: %v %v", again, err)
	}
	w.pass(time.Second)
	twin := cons.bundle(nil)
	if _, err := cons.consumer.NoteRoster(twin.Key, twin.Value, w.now); !errors.Is(err, ErrDuplicateNode) {
		t.Errorf("another process with this identity: %v", err)
	}
	if again, err := cons.consumer.NoteRoster([]byte{3}, nil, w.now); again || err != nil {
		t.Errorf("somebody else's record: %v %v", again, err)
	}
}

func TestProducersHaveNoPrekeys(t *testing.T) {
	w, prod, _ := pair(t)
	if _, err := prod.consumer.NewPrekey(w.now); !errors.Is(err, abi.StatusNotEntitled) {
		t.Errorf("got %v", err)
	}
	if _, ok := prod.consumer.Bundle(); ok {
		t.Error("a bundle without a prekey")
	}
}
