package exposure

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// reported are the kids of a report, by the way they are had.
func reported(r *Report) map[string]keyring.Via {
	out := map[string]keyring.Via{}
	for _, e := range r.Epochs {
		out[e.Kid] |= keyring.ViaTopicSecret
	}
	for _, p := range r.Prekeys {
		for _, e := range p.Epochs {
			out[e.Kid] |= keyring.ViaPrekey
		}
	}
	return out
}

// opened are the kids that a thief gets, by the way.
func opened(t *testing.T, state []byte, grants []*wire.Grant) map[string]keyring.Via {
	t.Helper()
	roots, err := keyring.UnsafeRoots(state, grants)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]keyring.Via{}
	for _, r := range roots {
		out[kidText(r.Kid)] |= r.Via
	}
	return out
}

// A leak is one moment's state, and whether the consumer stayed online since.
type leak struct {
	at     time.Time
	state  []byte
	view   keyring.View
	online bool
}

// TestReportIsWhatAThiefOpens leaks a consumer's state at random moments of six virtual
// hours. With the grants of that moment, and again with those of the whole time, a thief
// opens just what the report made of the same grants lists, each within its prekey's
// bounds.
func TestReportIsWhatAThiefOpens(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	w := newWorld(t, keyring.DefaultTiming(), "billing")
	w.step(true)
	var leaks []*leak
	online, groups := true, []string{"billing"}
	for i := range 1080 {
		w.now = w.now.Add(20 * time.Second)
		switch n := random.IntN(60); {
		case n == 0 || i == 500:
			online = !online
		case n == 1 && groups == nil:
			groups = []string{"billing"}
		case n == 1:
			groups = nil
		}
		w.step(online, groups...)
		for _, l := range leaks {
			l.online = l.online && online
		}
		for _, topic := range topics {
			if random.IntN(4) > 0 {
				w.produce(topic)
			}
		}
		if random.IntN(20) == 0 || i == 400 {
			state, view := w.leak()
			checkReport(t, &leak{w.now, state, view, online}, w.timing, w.grants)
			leaks = append(leaks, &leak{w.now, state, view, online})
		}
	}
	kids := map[string]bool{}
	for _, g := range w.grants {
		for _, topic := range g.Header.Topics {
			kids[kidText(keyring.KidOf(topic.Commit))] = true
		}
	}
	var bySecret, byPrekey, never int
	for _, l := range leaks {
		got := checkReport(t, l, w.timing, w.grants)
		never += len(kids) - len(got)
		for _, via := range got {
			bySecret += int(via & keyring.ViaTopicSecret)
			byPrekey += int(via&keyring.ViaPrekey) / int(keyring.ViaPrekey)
		}
	}
	t.Logf("%d leaks of %d epochs: %d by topic secrets, %d by prekeys, %d not opened", len(leaks), len(kids), bySecret, byPrekey, never)
	if bySecret == 0 || byPrekey == 0 || never == 0 {
		t.Error("a case was not met")
	}
}

// checkReport compares a leak's report with what a thief opens, and returns that.
func checkReport(t *testing.T, l *leak, timing keyring.Timing, grants []*wire.Grant) map[string]keyring.Via {
	t.Helper()
	r, err := Of(l.view, timing, grants, l.at)
	if err != nil {
		t.Fatal(err)
	}
	got, want := reported(r), opened(t, l.state, grants)
	if !maps.Equal(got, want) {
		t.Fatalf("leak at %v: reported %v, opened %v", l.at, got, want)
	}
	for _, p := range r.Prekeys {
		until := p.Worst
		if l.online {
			until = p.Until
		}
		for _, e := range p.Epochs {
			if e.Start.Before(p.Created) || e.UseBy.After(until) {
				t.Errorf("leak at %v: prekey made at %v, good to %v, opens an epoch of %v to %v", l.at, p.Created, until, e.Start, e.UseBy)
			}
			if l.online && !p.Overdue && e.UseBy.After(l.at.Add(timing.Forward())) {
				t.Errorf("leak at %v: an epoch to %v is beyond the forward window", l.at, e.UseBy)
			}
		}
	}
	return want
}

// TestSecretsGoWhenTheReportSays walks one epoch through its life.
func TestSecretsGoWhenTheReportSays(t *testing.T) {
	w := newWorld(t, keyring.DefaultTiming(), "billing")
	w.step(true)
	w.produce("orders")
	w.step(true)
	r := w.report()
	useBy := w.now.Add(w.timing.Epoch + w.timing.Lead)
	if len(r.Epochs) != 1 || r.Epochs[0].Topic != "orders" || !r.Epochs[0].UseBy.Equal(useBy) || r.Epochs[0].Below != nil {
		t.Fatalf("%+v", r.Epochs)
	}
	kid := r.Epochs[0].Kid // of the earliest start, and so the first from here on
	at := useBy.Add(w.timing.Skew + w.timing.Settle)
	want := Stay{Rule: RuleConsumed, Earliest: at.Add(w.timing.Window), Latest: useBy.Add(w.timing.HardCap)}
	if *r.Epochs[0].Stays != want || !r.Holds {
		t.Fatalf("before its end: %+v, want %+v; %+v", *r.Epochs[0].Stays, want, r.Conditions)
	}

	w.now = at
	w.step(true, "billing")
	r = w.report()
	want = Stay{Rule: RuleWindow, Earliest: at.Add(w.timing.Window), Latest: at.Add(w.timing.Window)}
	if *r.Epochs[0].Stays != want || !maps.Equal(r.Epochs[0].Below, map[int32]int64{0: 1, 1: 1}) {
		t.Fatalf("once consumed: %+v, below %v", *r.Epochs[0].Stays, r.Epochs[0].Below)
	}
	w.now = want.Latest.Add(-time.Millisecond)
	w.step(true, "billing")
	if r = w.report(); r.Epochs[0].Kid != kid {
		t.Fatal("it went before its time")
	}
	w.now = want.Latest
	w.step(true, "billing")
	if r = w.report(); reported(r)[kid] != 0 || r.Erased != 1 || r.Remembered != 1 {
		t.Fatalf("after its time: %+v, erased %d", r.Epochs, r.Erased)
	}
}

func TestConditionsAreNamed(t *testing.T) {
	replay := keyring.DefaultTiming()
	replay.Window = time.Hour
	short := keyring.DefaultTiming()
	short.Epoch, short.Window = time.Minute, 5*time.Minute
	long := keyring.DefaultTiming()
	long.Epoch = 20 * time.Minute
	for name, c := range map[string]struct {
		timing keyring.Timing
		groups []string
		after  time.Duration // of the leak, after the node's last step
		lag    time.Duration // in which the node runs and the group does not read
		want   string
	}{
		"nothing":                      {timing: keyring.DefaultTiming(), groups: []string{"billing"}},
		NoGroups:                       {timing: keyring.DefaultTiming(), want: NoGroups},
		Replay:                         {timing: replay, groups: []string{"billing"}, want: Replay},
		"a window that P has room for": {timing: short, groups: []string{"billing"}},
		LongPeriod:                     {timing: long, groups: []string{"billing"}, want: LongPeriod},
		Offline:                        {timing: keyring.DefaultTiming(), groups: []string{"billing"}, after: time.Hour, want: Offline},
		Unconsumed:                     {timing: keyring.DefaultTiming(), groups: []string{"billing"}, lag: time.Hour, want: Unconsumed},
		"a long lag":                   {timing: keyring.DefaultTiming(), groups: []string{"billing"}, lag: 5 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, c.timing, c.groups...)
			w.step(true)
			w.produce("orders")
			w.step(true)
			for end := w.now.Add(c.lag); w.now.Before(end); {
				w.now = w.now.Add(time.Minute)
				w.step(true)
			}
			w.now = w.now.Add(c.after)
			r := w.report()
			var got, want []string
			for _, x := range r.Conditions {
				got = append(got, x.Name)
			}
			if c.want != "" {
				want = append(want, c.want)
			}
			if c.want == Offline {
				want = append(want, Unconsumed) // whether the group read meanwhile, nobody noted
			}
			if fmt.Sprint(got) != fmt.Sprint(want) || r.Holds != (len(want) == 0) {
				t.Errorf("%q, want %q; holds %v", got, want, r.Holds)
			}
			var text bytes.Buffer
			if err := r.WriteText(&text); err != nil {
				t.Fatal(err)
			}
			for _, line := range append(want, "P = "+c.timing.P().String(), "topic orders, epochs by topic secrets: ") {
				if !strings.Contains(text.String(), line) {
					t.Errorf("the text lacks %q:\n%s", line, &text)
				}
			}
		})
	}
}

// TestHeldPrekeyOfAnAbsentNodeIsGoodForItsValidity: nothing else bounds it.
func TestHeldPrekeyOfAnAbsentNodeIsGoodForItsValidity(t *testing.T) {
	w := newWorld(t, keyring.DefaultTiming(), "billing")
	w.step(true)
	fresh := w.report()
	p := fresh.Prekeys[0]
	if p.Overdue || !p.Until.Equal(w.now.Add(w.timing.Forward())) || !p.ErasedFrom.Equal(w.now.Add(w.timing.PrekeyRotation+w.timing.PrekeyGrace)) {
		t.Errorf("fresh: %+v", p)
	}
	worst := w.now.Add(w.timing.Offline + w.timing.Epoch + 2*w.timing.Lead + w.timing.Skew)
	w.now = w.now.Add(time.Hour)
	stale := w.report()
	if p := stale.Prekeys[0]; !p.Overdue || !p.Until.Equal(worst) || !p.Worst.Equal(worst) {
		t.Errorf("an hour later: %+v, want %v", p, worst)
	}
}

func TestTimingThatDoesNotHoldTogetherIsRefused(t *testing.T) {
	timing := keyring.DefaultTiming()
	timing.PrekeyGrace = timing.Epoch + timing.Window
	if _, err := Of(keyring.View{}, timing, nil, time.Now()); err == nil {
		t.Error("reported on prekeys that outlive what they open")
	}
}

func TestStateOfANodeThatIsNotEnrolledExposesNothing(t *testing.T) {
	r, err := Of(keyring.View{}, keyring.DefaultTiming(), nil, time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	if err != nil || !r.Holds || !r.From.IsZero() {
		t.Fatalf("%+v %v", r, err)
	}
	b, err := json.Marshal(r)
	want := `{"as_of":"2026-01-02T03:04:05Z","p_s":570,"backward_s":570,"forward_s":540,"holds":true,"conditions":[],"epochs":[],"prekeys":[],"erased":0,"remembered":0,"grants":false,"offsets":false,"produces":false,"running":false}`
	if err != nil || string(b) != want {
		t.Errorf("%s %v", b, err)
	}
	var text bytes.Buffer
	if err := r.WriteText(&text); err != nil || !strings.Contains(text.String(), "nothing would be readable") {
		t.Errorf("%s %v", &text, err)
	}
}

func TestARunningProducerExposesWhatItSealsNextAndNothingBefore(t *testing.T) {
	asOf := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	view := keyring.View{Credential: &wire.Credential{Roles: wire.RoleProduce, NotAfter: uint64(asOf.Add(time.Hour).UnixMilli())}}
	r, err := Of(view, keyring.DefaultTiming(), nil, asOf)
	if err != nil {
		t.Fatal(err)
	}
	if !r.From.IsZero() || r.Running {
		t.Errorf("the file alone exposes %+v", r)
	}
	r.AddSending([]keyring.EpochView{
		{Topic: "orders", Epoch: 1, Start: asOf.Add(-4 * time.Minute), UseBy: asOf.Add(-time.Second)},
		{Topic: "orders", Epoch: 2, Start: asOf.Add(-2 * time.Minute), UseBy: asOf.Add(90 * time.Second)},
		{Topic: "audit", Epoch: 3, Start: asOf.Add(time.Minute), UseBy: asOf.Add(4 * time.Minute)},
	})
	if !r.Running || len(r.Sending) != 2 || r.Sending[0].Topic != "audit" || r.Sending[1].Epoch != 2 {
		t.Errorf("sending %+v", r.Sending)
	}
	if !r.From.Equal(asOf) || !r.Until.Equal(asOf.Add(4*time.Minute)) {
		t.Errorf("readable from %v until %v", r.From, r.Until)
	}
	var text bytes.Buffer
	if err := r.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"topic orders: what this node seals from 2026-01-02T03:04:05Z to 2026-01-02T03:05:35Z", "what this node sealed so far", r.Summary()} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in\n%s", want, &text)
		}
	}
}

func TestWhatPeersSharedForAPrekeyIsExposedHoweverOld(t *testing.T) {
	asOf := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	at := func(d time.Duration) uint64 { return uint64(asOf.Add(d).UnixMilli()) }
	held := wire.PrekeyID{1}
	share := func(prekey wire.PrekeyID, begin time.Duration) *wire.KeyShare {
		h := wire.GrantHeader{Start: at(begin), UseBy: at(begin + time.Minute), Topics: []wire.GrantTopic{{Name: "orders", Commit: wire.Digest{byte(begin / time.Hour)}}}}
		return &wire.KeyShare{Proof: wire.GrantProof{Header: h}, Prekey: prekey, Topic: "orders"}
	}
	r, err := Of(keyring.View{Prekeys: []keyring.PrekeyView{{ID: held, Created: asOf.Add(-time.Minute), NotAfter: asOf.Add(time.Hour)}}},
		keyring.DefaultTiming(), []*wire.Grant{}, asOf)
	if err != nil {
		t.Fatal(err)
	}
	twice := share(held, -5*time.Hour)
	r.AddShares([]*wire.KeyShare{share(held, -2*time.Hour), twice, twice, share(wire.PrekeyID{2}, -24*time.Hour)})
	if got := r.Prekeys[0].Epochs; len(got) != 2 || got[0].Start.After(got[1].Start) || got[0].Kid == got[1].Kid {
		t.Errorf("by the prekey: %+v", got)
	}
	if !r.From.Equal(asOf.Add(-5 * time.Hour)) {
		t.Errorf("readable from %v", r.From)
	}
}
