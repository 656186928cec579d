package keyring

import (
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

// bundle makes a signed bundle for p with a fresh key, after change has had its way.
func (p *party) bundle(change func(b *wire.PrekeyBundle)) Record {
	p.t.Helper()
	var seed secretKey
	if err := readAll(rand.Reader, seed[:]); err != nil {
		p.t.Fatal(err)
	}
	pub, err := kemPublic(&seed)
	if err != nil {
		p.t.Fatal(err)
	}
	n := p.state.Node()
	b := &wire.PrekeyBundle{
		Realm: n.Realm(), Node: n.ID(), Credential: n.Credential().Serial,
		Generation: unixMs(p.now), Created: unixMs(p.now), NotAfter: unixMs(p.now.Add(time.Hour)),
		KEMPub: [wire.KEMPublicSize]byte(pub),
	}
	if change != nil {
		change(b)
	}
	b.Signature = sign(&n.seed, wire.TypePrekeyBundle, b.Realm, b.AppendBody(nil))
	return Record{Key: b.Key(), Value: b.Append(nil)}
}

func ids(rs []Recipient) []wire.NodeID {
	var out []wire.NodeID
	for _, r := range rs {
		out = append(out, r.Node)
	}
	return out
}

func TestRecipientsAreTheEntitledWithABundle(t *testing.T) {
	w := newWorld(t)
	prod := w.node(produce, []string{"*"}, nil)
	a := w.node(consume, []string{"orders"}, []string{"billing"})
	b := w.node(consume, []string{"ord*"}, []string{"audit"})
	other := w.node(consume, []string{"payments"}, nil)
	silent := w.node(consume, []string{"orders"}, nil)
	both := w.node(produce|consume, []string{"orders"}, nil)
	producerOnly := w.node(produce, []string{"orders"}, nil)
	for _, p := range []*party{a, b, other, both} {
		p.publish()
	}
	w.roster = append(w.roster, producerOnly.bundle(nil))
	prod.sync()
	got, err := prod.roster.Recipients("orders", []string{"billing", "audit"}, w.now)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []*party{a, b, both} {
		if !slices.Contains(ids(got), p.state.Node().ID()) {
			t.Errorf("node %v is missing", p.state.Node().ID())
		}
	}
	for _, p := range []*party{other, silent, producerOnly} {
		if slices.Contains(ids(got), p.state.Node().ID()) {
			t.Errorf("node %v is no recipient", p.state.Node().ID())
		}
	}
	if !slices.IsSortedFunc(got, compareRecipients) {
		t.Error("not in order of node id")
	}
	if _, err := prod.roster.Recipients("orders", []string{"billing", "fraud"}, w.now); !errors.Is(err, abi.StatusNoRecipient) || !strings.Contains(err.Error(), "group fraud") {
		t.Errorf("a required group is missing: %v", err)
	}
	if _, err := prod.roster.Recipients("shipments", nil, w.now); !errors.Is(err, abi.StatusNoRecipient) || !strings.Contains(err.Error(), "shipments") {
		t.Errorf("nobody at all: %v", err)
	}
}

func TestRecipientsEndWithCredentialAndBundle(t *testing.T) {
	w := newWorld(t)
	prod := w.node(produce, []string{"*"}, nil)
	brief := w.nodeUntil(consume, []string{"a"}, nil, Validity{NotBefore: w.now, NotAfter: w.now.Add(time.Hour)})
	sleepy := w.node(consume, []string{"b"}, nil)
	embargo := w.nodeUntil(consume, []string{"c"}, nil, Validity{NotBefore: w.now, NotAfter: w.now.Add(100 * time.Hour), DataNotBefore: w.now.Add(2 * time.Hour)})
	for _, p := range []*party{brief, sleepy, embargo} {
		p.publish()
	}
	prod.sync()
	for _, tt := range []struct {
		topic string
		after time.Duration
		ok    bool
	}{
		{"a", time.Hour, true}, {"a", time.Hour + time.Second, false},
		{"b", 72*time.Hour - time.Second, true}, {"b", 72 * time.Hour, false},
		{"c", time.Hour, false}, {"c", 2 * time.Hour, true},
	} {
		if _, err := prod.roster.Recipients(tt.topic, nil, w.now.Add(tt.after)); (err == nil) != tt.ok {
			t.Errorf("topic %s after %v: %v", tt.topic, tt.after, err)
		}
	}
}

func TestInterestNarrowsAndNeverWidens(t *testing.T) {
	w := newWorld(t)
	prod := w.node(produce, []string{"*"}, nil)
	cons := w.node(consume, []string{"a", "b"}, nil)
	w.roster = append(w.roster, cons.bundle(func(b *wire.PrekeyBundle) { b.Interest = patterns(t, "a", "z") }))
	prod.sync()
	for topic, ok := range map[string]bool{"a": true, "b": false, "z": false} {
		if _, err := prod.roster.Recipients(topic, nil, w.now); (err == nil) != ok {
			t.Errorf("topic %s: %v", topic, err)
		}
	}
}

// Two nodes that are within the skew of the broker's clock are up to twice that apart.
func TestNodesAtBothEndsOfTheSkewReachEachOther(t *testing.T) {
	w := newWorld(t)
	skew := w.timing.Skew
	prod := w.node(produce, []string{"*"}, nil)
	cons := w.node(consume, []string{"*"}, nil)
	prod.sync()
	w.pass(2 * skew)
	bundle, state := cons.bundle(nil), recordOf(w.authority(nil))
	revoked := recordOf(w.authority(w.authority(nil), cons))
	w.pass(-2 * skew)
	for _, rec := range []Record{bundle, state} {
		if err := prod.roster.Apply(rec.Key, rec.Value, w.now); err != nil {
			t.Fatal(err)
		}
	}
	if rs, err := prod.roster.Recipients("orders", nil, w.now); err != nil || len(rs) != 1 {
		t.Fatalf("%v, %v", rs, err)
	}
	if err := prod.roster.Apply(revoked.Key, revoked.Value, w.now); err != nil {
		t.Fatal(err)
	}
	if rs, err := prod.roster.Recipients("orders", nil, w.now); err == nil {
		t.Fatalf("%v, whom a clock that is ahead revoked", rs)
	}
}

func TestBundlesThatAreNotRightAreRefused(t *testing.T) {
	w := newWorld(t)
	prod := w.node(produce, []string{"*"}, nil)
	cons := w.node(consume, []string{"*"}, nil)
	prod.sync()
	for name, change := range map[string]func(b *wire.PrekeyBundle){
		"generation ahead": func(b *wire.PrekeyBundle) { b.Generation += 2*ms(w.timing.Skew) + 1 },
		"created ahead": func(b *wire.PrekeyBundle) {
			b.Created += 2*ms(w.timing.Skew) + 1
			b.NotAfter += 2*ms(w.timing.Skew) + 1
		},
		"good for too long":   func(b *wire.PrekeyBundle) { b.NotAfter = b.Created + ms(73*time.Hour) },
		"made before its own": func(b *wire.PrekeyBundle) { b.Created -= ms(time.Hour) },
		"another realm":       func(b *wire.PrekeyBundle) { b.Realm[0] ^= 1 },
		"another's node id":   func(b *wire.PrekeyBundle) { b.Node = prod.state.Node().ID() },
		"low-order key":       func(b *wire.PrekeyBundle) { clear(b.KEMPub[wire.KEMPublicSize-32:]) },
		"malformed key":       func(b *wire.PrekeyBundle) { b.KEMPub = [wire.KEMPublicSize]byte{0: 0xff, 1: 0xff, 2: 0xff} },
	} {
		rec := cons.bundle(change)
		if err := prod.roster.Apply(rec.Key, rec.Value, w.now); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	rec := cons.bundle(nil)
	if err := prod.roster.Apply(prod.bundle(nil).Key, rec.Value, w.now); !errors.Is(err, wire.ErrMalformed) {
		t.Errorf("a bundle under another's key: %v", err)
	}
	if len(prod.roster.Bundles()) != 0 {
		t.Fatal("something was kept")
	}
	if err := prod.roster.Apply(rec.Key, rec.Value, w.now); err != nil {
		t.Errorf("the right one: %v", err)
	}
}

func TestEveryBitOfASignedBundleCounts(t *testing.T) {
	w := newWorld(t)
	prod := w.node(produce, []string{"*"}, nil)
	cons := w.node(consume, []string{"*"}, nil)
	prod.sync()
	rec := cons.bundle(nil)
	for i := range 8 * len(rec.Value) {
		rec.Value[i/8] ^= 1 << (i % 8)
		// A changed serial is that of a credential that may still come; it waits.
		err := prod.roster.Apply(rec.Key, rec.Value, w.now)
		if serial := i/8 >= 35 && i/8 < 51; err == nil && !serial || len(prod.roster.Bundles()) != 0 {
			t.Fatalf("bit %d flipped and accepted", i)
		}
		rec.Value[i/8] ^= 1 << (i % 8)
	}
}

func TestRollbackOfABundleIsRefusedAcrossARestart(t *testing.T) {
	w := newWorld(t)
	prod := w.node(produce, []string{"*"}, nil)
	cons := w.node(consume, []string{"*"}, nil)
	old := cons.publish()
	w.pass(time.Minute)
	cons.publish()
	prod.sync()
	if err := prod.roster.Apply(old.Key, old.Value, w.now); !errors.Is(err, ErrRollback) {
		t.Errorf("an older generation: %v", err)
	}
	again := prod.restart()
	w.roster = w.roster[:len(w.roster)-1] // the broker shows the old one only
	for i, rec := range w.roster {
		if err := again.roster.Apply(rec.Key, rec.Value, w.now); err != nil && !errors.Is(err, ErrRollback) {
			t.Fatalf("record %d: %v", i, err)
		}
	}
	if _, err := again.roster.Recipients("a", nil, w.now); !errors.Is(err, abi.StatusNoRecipient) {
		t.Errorf("a rolled-back bundle makes a recipient: %v", err)
	}
}

func TestTwoBundlesOfOneGenerationAreToldApart(t *testing.T) {
	w := newWorld(t)
	prod := w.node(produce, []string{"*"}, nil)
	cons := w.node(consume, []string{"*"}, nil)
	prod.sync()
	first := cons.bundle(nil)
	for range 2 {
		if err := prod.roster.Apply(first.Key, first.Value, w.now); err != nil {
			t.Fatal(err)
		}
	}
	second := cons.bundle(nil)
	if err := prod.roster.Apply(second.Key, second.Value, w.now); !errors.Is(err, ErrDuplicateNode) {
		t.Errorf("got %v", err)
	}
}

func TestRecordsWaitForTheirSigner(t *testing.T) {
	w := newWorld(t)
	prod := w.node(produce, []string{"*"}, nil)
	issuer2, err := w.root.CertifyIssuer(rand.Reader, w.now, w.now.Add(300*24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	w.issuer = issuer2
	cons := w.node(consume, []string{"*"}, nil)
	cons.publish()
	slices.Reverse(w.roster) // bundle, node's credential, its issuer's, ...
	prod.sync()
	if got, err := prod.roster.Recipients("a", nil, w.now); err != nil || len(got) != 1 {
		t.Errorf("%d recipients, %v", len(got), err)
	}
	if n := len(prod.roster.waiting); n != 0 {
		t.Errorf("%d records still wait", n)
	}
}

func TestWaitingRecordsAreBounded(t *testing.T) {
	w := newWorld(t)
	prod := w.node(produce, []string{"*"}, nil)
	cons := w.node(consume, []string{"*"}, nil)
	value := cons.bundle(nil)
	b, err := wire.ParsePrekeyBundle(value.Value)
	if err != nil {
		t.Fatal(err)
	}
	var last error
	for i := range maxWaiting + 1 {
		b.Node = wire.NodeID{byte(i), byte(i >> 8)}
		last = prod.roster.Apply(b.Key(), b.Append(nil), w.now)
	}
	if !errors.Is(last, ErrUnknownCredential) || len(prod.roster.waiting) != maxWaiting {
		t.Errorf("%d records wait; %v", len(prod.roster.waiting), last)
	}
}

func TestCredentialOfAForeignRealmIsRefused(t *testing.T) {
	w, other := newWorld(t), newWorld(t)
	prod := w.node(produce, []string{"*"}, nil)
	foreign := other.node(consume, []string{"*"}, nil)
	for _, rec := range foreign.state.Node().RosterRecords() {
		// The foreign issuer is unknown here, so its node waits for ever.
		if err := prod.roster.Apply(rec.Key, rec.Value, w.now); err == nil && prod.roster.waiting[string(rec.Key)].value == nil {
			t.Error("accepted")
		}
	}
	if n := len(prod.roster.Credentials()); n != 2 {
		t.Errorf("%d credentials, want the own chain", n)
	}
}

func TestSecondIdentityInALineageIsRefused(t *testing.T) {
	w := newWorld(t)
	prod := w.node(produce, []string{"*"}, nil)
	cons := w.node(consume, []string{"*"}, nil)
	prod.sync()
	thief, err := NewState(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := *cons.state.Node().Credential()
	c.Subject, c.Serial = thief.Node().PublicKey(), wire.Serial{1}
	c.Signature = sign(&w.issuer.seed, wire.TypeCredential, c.Realm, c.AppendBody(nil))
	if err := prod.roster.Apply(c.Key(), c.Append(nil), w.now); !errors.Is(err, ErrUnauthentic) {
		t.Errorf("got %v", err)
	}
}

func TestTheCredentialIssuedLastCounts(t *testing.T) {
	w := newWorld(t)
	prod := w.node(produce, []string{"*"}, nil)
	cons := w.node(consume, []string{"a", "b"}, nil)
	cons.publish()
	w.pass(time.Hour)
	narrow := attributes(t, consume, []string{"a"}, nil)
	file, err := w.issuer.Issue(rand.Reader, cons.state.Node().CSR(narrow), nil, w.validity())
	if err != nil {
		t.Fatal(err)
	}
	if err := cons.state.Node().Install(file, w.now); err != nil {
		t.Fatal(err)
	}
	w.roster = append(w.roster, cons.state.Node().RosterRecords()...)
	prod.sync()
	// The bundle was signed under the older credential; it counts until a newer comes.
	for topic, ok := range map[string]bool{"a": true, "b": false} {
		if _, err := prod.roster.Recipients(topic, nil, w.now); (err == nil) != ok {
			t.Errorf("topic %s: %v", topic, err)
		}
	}
}

func TestCredentialOfTheFutureDisplacesNothing(t *testing.T) {
	w := newWorld(t)
	prod := w.node(produce, []string{"*"}, nil)
	cons := w.node(consume, []string{"*"}, nil)
	cons.publish()
	v := w.validity()
	v.NotBefore = w.now.Add(time.Hour)
	file, err := w.issuer.Issue(rand.Reader, cons.state.Node().CSR(attributes(t, consume, []string{"b"}, nil)), nil, v)
	if err != nil {
		t.Fatal(err)
	}
	_, chain, err := ParseCredentialFile(file)
	if err != nil {
		t.Fatal(err)
	}
	w.roster = append(w.roster, Record{Key: chain[0].Key(), Value: chain[0].Append(nil)})
	prod.sync()
	for after, ok := range map[time.Duration]bool{0: true, time.Hour: false} {
		if _, err := prod.roster.Recipients("a", nil, w.now.Add(after)); (err == nil) != ok {
			t.Errorf("after %v: %v", after, err)
		}
	}
}

func TestTombstonesTakeNothingThatIsAlive(t *testing.T) {
	w := newWorld(t)
	prod := w.node(produce, []string{"*"}, nil)
	cons := w.node(consume, []string{"*"}, nil)
	bundle := cons.publish()
	prod.sync()
	cred := cons.state.Node().RosterRecords()[1]
	for _, key := range [][]byte{cred.Key, bundle.Key} {
		if err := prod.roster.Apply(key, nil, w.now); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := prod.roster.Recipients("a", nil, w.now); err != nil {
		t.Errorf("an unsigned tombstone took a recipient: %v", err)
	}
	w.pass(9*24*time.Hour + w.timing.HardCap + time.Second)
	if err := prod.roster.Apply(cred.Key, nil, w.now); err != nil {
		t.Fatal(err)
	}
	if id := cons.state.Node().ID(); prod.roster.nodes[id] != nil || prod.state.marks[id] != (mark{}) {
		t.Error("an expired node is not forgotten")
	}
}

func FuzzRoster(f *testing.F) {
	f.Add([]byte{1}, []byte{1, 1, 1})
	f.Fuzz(func(t *testing.T, key, value []byte) {
		s, err := NewState(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		r := NewRoster(s, DefaultTiming())
		_ = r.Apply(key, value, time.UnixMilli(0))
		if len(r.creds) != 0 || len(r.Bundles()) != 0 {
			t.Fatal("something unsigned was kept")
		}
	})
}
