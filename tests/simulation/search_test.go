package simulation

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// prologue is how every run begins: a prekey, an epoch with a value, and its grant read.
var prologue = []step{rotate, prepare, begin, follow}

// afterPrologue is the model where the search starts.
func afterPrologue() model {
	var m model
	for _, s := range prologue {
		m.do(s)
	}
	return m
}

// TestNoOrderOfStepsBreaksTheClaims searches the model's states up to a depth (C2 to C4, C13).
func TestNoOrderOfStepsBreaksTheClaims(t *testing.T) {
	const depth = 9
	layer := map[model]string{afterPrologue(): ""}
	total, closed, erasures := 0, 0, 0
	for d := 1; d <= depth; d++ {
		next := map[model]string{}
		for m, way := range layer {
			for _, s := range steps {
				n := m
				if !n.do(s) {
					continue
				}
				if err := n.check(s); err != nil {
					t.Fatalf("after %s%c: %v", way, s, err)
				}
				if _, ok := next[n]; !ok {
					next[n] = way + string(s)
				}
			}
		}
		layer = next
		total += len(layer)
	}
	for m := range layer {
		for _, e := range m.epochs[:m.begun] {
			if e.closed {
				closed++
			}
			if e.status == erased {
				erasures++
			}
		}
	}
	t.Logf("%d states to depth %d; in the last, %d epochs are readable no more, %d of them were erased", total, depth, closed, erasures)
	if closed == 0 || erasures == 0 {
		t.Error("nothing was erased: nothing was tested")
	}
}

// TestKeyringDoesWhatTheModelSays runs every order of steps to a small depth, and random orders to
// a larger one, in the model and in keyring.
func TestKeyringDoesWhatTheModelSays(t *testing.T) {
	t.Logf("seed %d", *seedFlag)
	rng := rand.New(rand.NewPCG(*seedFlag, 3))
	const depth, runs, length = 3, 100, 16
	n := 0
	var walk func(way []step, m model)
	walk = func(way []step, m model) {
		if len(way) == depth {
			n++
			newPair(t, *seedFlag).run(way)
			return
		}
		for _, s := range steps {
			if next := m; next.do(s) {
				walk(append(way[:len(way):len(way)], s), next)
			}
		}
	}
	walk(nil, afterPrologue())
	for range runs {
		m := afterPrologue()
		var way []step
		for len(way) < length {
			s := steps[rng.IntN(len(steps))]
			if next := m; next.do(s) {
				m, way = next, append(way, s)
			}
		}
		newPair(t, *seedFlag).run(way)
	}
	// What chance seldom finds: a grant that comes again while its prekey is still there.
	for _, way := range []string{"CXCXZF", "CXCXZFPFXCX", "CCCCCXZF"} {
		newPair(t, *seedFlag).run([]step(way))
	}
	t.Logf("%d orders of %d steps, %d of %d", n, depth, runs, length)
}

// unit is the model's unit of time.
const unit = 30 * time.Second

// A pair is the model's producer and consumer as keyring has them.
type pair struct {
	t        *testing.T
	model    model
	way      string
	now      time.Time
	timing   keyring.Timing
	producer *keyring.Producer
	pstate   *keyring.State
	proster  *keyring.Roster
	pread    int
	draft    *keyring.Draft
	written  time.Time
	consumer *keyring.Consumer
	state    *keyring.State
	croster  *keyring.Roster
	cread    int
	roster   []keyring.Record
	grants   []keyring.Record // of the consumer's partition
	epochs   []epoch          // in order
	values   []abi.Kid
	read     int64
}

func newPair(t *testing.T, seed uint64) *pair {
	p := &pair{t: t, now: began, timing: keyring.Timing{
		Epoch: 2 * unit, Lead: unit, PrekeyRotation: unit, PrekeyGrace: grace * unit, Skew: time.Millisecond, Settle: time.Millisecond,
		Window: window * unit, HardCap: hardCap * unit, Offline: offline * unit, MaxEpoch: time.Hour,
	}}
	p.must(p.timing.Validate())
	random := (&fleet{seed: seed}).random("pair")
	root, err := keyring.NewRealm(random)
	p.must(err)
	issuer, err := root.CertifyIssuer(random, p.now, p.now.Add(365*day))
	p.must(err)
	p.pstate = p.enrol(issuer, random, keyring.Attributes{Roles: wire.RoleProduce})
	p.state = p.enrol(issuer, random, keyring.Attributes{Roles: wire.RoleConsume, Groups: []wire.Pattern{{Name: "readers"}}, OfflineAllow: time.Hour})
	p.proster, p.croster = keyring.NewRoster(p.pstate, p.timing), keyring.NewRoster(p.state, p.timing)
	p.consumer = keyring.NewConsumer(p.state, p.timing, random)
	p.producer, err = keyring.NewProducer(p.pstate.Node(), p.timing, nil, random)
	p.must(err)
	return p
}

func (p *pair) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatalf("after %s: %v", p.way, err)
	}
}

func (p *pair) enrol(issuer *keyring.Issuer, random io.Reader, want keyring.Attributes) *keyring.State {
	s, err := keyring.NewState(random)
	p.must(err)
	want.Topics = []wire.Pattern{{Name: "orders"}}
	file, err := issuer.Issue(random, s.Node().CSR(want), nil, keyring.Validity{NotBefore: p.now, NotAfter: p.now.Add(30 * day)})
	p.must(err)
	p.must(s.Node().Install(file, p.now))
	p.roster = append(p.roster, s.Node().RosterRecords()...)
	return s
}

// run takes both through the prologue and a sequence of steps, and compares after each.
func (p *pair) run(way []step) {
	for _, s := range append(prologue[:len(prologue):len(prologue)], way...) {
		p.now = p.now.Add(unit)
		p.way += string(s)
		if !p.model.do(s) {
			p.t.Fatalf("%s: nothing to do", p.way)
		}
		p.do(s)
		p.compare()
	}
}

func (p *pair) do(s step) {
	switch s {
	case rotate:
		rec, err := p.consumer.NewPrekey(p.now)
		p.must(err)
		p.roster = append(p.roster, rec)
		for ; p.cread < len(p.roster); p.cread++ {
			rec := p.roster[p.cread]
			p.must(p.croster.Apply(rec.Key, rec.Value, p.now))
			_, err := p.consumer.NoteRoster(rec.Key, rec.Value, p.now)
			p.must(err)
		}
	case prepare:
		for ; p.pread < len(p.roster); p.pread++ {
			p.must(p.proster.Apply(p.roster[p.pread].Key, p.roster[p.pread].Value, p.now))
		}
		drafts, refused, err := p.producer.Prepare([]string{"orders"}, p.proster, p.now)
		if err != nil || len(refused) > 0 || len(drafts) != 1 {
			p.t.Fatalf("after %s: %v, %v", p.way, refused, err)
		}
		p.draft = drafts[0]
	case begin:
		p.begin()
	case follow:
		for i := max(p.consumer.GrantsNext(), 0); i < int64(len(p.grants)); i++ {
			rec := p.grants[i]
			if _, err := p.consumer.ApplyGrant(p.state.Node().GrantPartition(), i, rec.Key, rec.Value, p.croster, p.now); !errors.Is(err, abi.StatusErased) {
				p.must(err)
			}
			p.consumer.NoteGrants(i + 1)
		}
	case commit:
		p.read = int64(len(p.values))
	case erase:
		p.erase()
	case repeat:
		p.grants = append(p.grants, p.grants[:len(p.epochs)]...)
	}
}

// begin has the draft's grant written, and seals a value with the first leaf. What the producer
// keeps is below none that it used (C2).
func (p *pair) begin() {
	d := p.draft
	p.draft = nil
	if err := p.producer.Activate(d, p.now, p.now); err != nil {
		if p.model.begun != int8(len(p.epochs)) {
			p.t.Fatalf("after %s: %v", p.way, err)
		}
		return
	}
	rec := d.Records[p.state.Node().GrantPartition()]
	g, err := wire.ParseGrant(rec.Value)
	p.must(err)
	p.grants = append(p.grants, rec)
	kid := keyring.KidOf(g.Header.Topics[0].Commit)
	p.epochs = append(p.epochs, epoch{header: &g.Header, kid: kid})
	used, err := p.producer.Lease("orders", p.now)
	p.must(err)
	rest, err := p.producer.Lease("orders", p.now)
	p.must(err)
	live := p.producer.Epochs()
	if used.Kid != kid || rest.Start <= used.Start || len(live) != 1 || live[0].Kid != kid {
		p.t.Fatalf("after %s: C2: the producer keeps what it has used", p.way)
	}
	p.values = append(p.values, kid)
}

func (p *pair) erase() {
	end := int64(len(p.values))
	for _, topic := range p.consumer.EndsWanted(p.now) {
		p.consumer.NoteEnds(topic, map[int32]int64{0: end}, p.now)
	}
	for _, topic := range p.consumer.Watched() {
		progress := keyring.Progress{LogStart: map[int32]int64{0: 0}}
		if p.read > 0 {
			progress.Groups, progress.Known = map[string]map[int32]int64{"readers": {0: p.read}}, []string{"readers"}
		}
		scans, _ := p.consumer.NoteProgress(topic, progress, p.now)
		for _, s := range scans {
			kids := map[abi.Kid]bool{}
			for _, kid := range p.values[s.From:s.To] {
				kids[kid] = true
			}
			p.consumer.NoteScan(s, kids, false)
		}
		p.consumer.NoteProgress(topic, progress, p.now)
	}
	if p.consumer.PrekeysWaiting(p.now) {
		p.consumer.NoteGrantsEnd(int64(len(p.grants)), p.now)
	}
	p.consumer.Tick(p.now)
}

// compare holds what a leak of the consumer opens, now and of what is sealed later, against the
// model: the topic secrets and the prekeys that its state file has.
func (p *pair) compare() {
	p.t.Helper()
	var prekeys, secrets, want strings.Builder
	for _, k := range p.state.View().Prekeys {
		fmt.Fprint(&prekeys, int(k.Created.Sub(began)/unit), " ")
	}
	for i, e := range p.epochs {
		if _, is := p.consumer.Ends(e.kid); is {
			fmt.Fprint(&secrets, i, " ")
		}
	}
	for i := range p.model.made {
		if k := p.model.prekeys[i]; !k.gone {
			fmt.Fprint(&want, k.made, " ")
		}
	}
	fmt.Fprint(&want, "| ")
	for i := range p.model.begun {
		if p.model.epochs[i].status == held {
			fmt.Fprint(&want, i, " ")
		}
	}
	if got := prekeys.String() + "| " + secrets.String(); got != want.String() {
		p.t.Fatalf("after %s: keyring holds the prekeys and secrets %q, the model %q", p.way, got, want.String())
	}
}
