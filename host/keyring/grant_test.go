package keyring

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

// part returns the recipient's part of a draft's grant.
func (p *party) part(d *Draft) Record { return d.Records[p.state.Node().GrantPartition()] }

// apply gives one grant record to the consumer.
func (p *party) apply(rec Record) ([]abi.Kid, error) {
	p.t.Helper()
	p.sync()
	return p.consumer.ApplyGrant(rec.Partition, 0, rec.Key, rec.Value, p.roster, p.now)
}

// resign lets change spoil a grant's part and signs it again as signer.
func (p *party) resign(rec Record, change func(g *wire.Grant)) Record {
	p.t.Helper()
	g, err := wire.ParseGrant(rec.Value)
	if err != nil {
		p.t.Fatal(err)
	}
	change(g)
	g.Signature = sign(&p.state.node.seed, wire.TypeEpochGrant, g.Header.Realm, g.AppendBody(nil))
	return Record{Partition: int32(g.Partition), Key: g.Header.Key(), Value: g.Append(nil)}
}

func TestGrantReachesEveryRecipientAndNobodyElse(t *testing.T) {
	w := newWorld(t)
	prod := w.node(produce, []string{"*"}, nil)
	var in, out []*party
	for range 3 {
		in = append(in, w.node(consume, []string{"orders"}, nil))
		out = append(out, w.node(consume, []string{"payments"}, nil))
	}
	late := w.node(consume, []string{"orders"}, nil) // no bundle yet
	for _, p := range slices.Concat(in, out) {
		p.publish()
	}
	d := prod.grant("orders")[0]
	kid := prod.lease("orders").Kid
	for _, p := range in {
		if kids := p.follow(); !slices.Equal(kids, []abi.Kid{kid}) {
			t.Errorf("recipient opened %x, want %x", kids, kid)
		}
		if root, err := p.consumer.Root("orders", kid, w.now); err != nil || root.Kid != kid || root.Topic != "orders" || root.Root == ([32]byte{}) {
			t.Errorf("root: %v", err)
		}
		if _, err := p.consumer.Root("payments", kid, w.now); !errors.Is(err, abi.StatusNotEntitled) {
			t.Errorf("under another topic: %v", err)
		}
		if _, err := p.consumer.Root("orders", abi.Kid{1}, w.now); !errors.Is(err, abi.StatusPending) {
			t.Errorf("an unknown kid: %v", err)
		}
	}
	late.publish()
	for _, p := range append(out, late) {
		if kids := p.follow(); len(kids) != 0 {
			t.Errorf("a stranger opened %x", kids)
		}
	}
	if _, err := late.consumer.Root("orders", kid, w.now); !errors.Is(err, abi.StatusUnreadable) {
		t.Errorf("a grant for others: %v", err)
	}
	if len(d.Records) != GrantPartitions || len(d.Recipients) != 3 {
		t.Errorf("%d parts for %d recipients", len(d.Records), len(d.Recipients))
	}
}

func TestTopicsWithEqualRecipientsShareAGrant(t *testing.T) {
	w := newWorld(t)
	prod := w.node(produce, []string{"*"}, nil)
	ab := w.node(consume, []string{"a", "b"}, nil)
	abc := w.node(consume, []string{"a", "b", "c"}, nil)
	ab.publish()
	abc.publish()
	drafts := prod.grant("c", "b", "a", "b")
	if len(drafts) != 2 || !slices.Equal(drafts[0].Topics, []string{"a", "b"}) || !slices.Equal(drafts[1].Topics, []string{"c"}) {
		t.Fatalf("%d drafts: %v", len(drafts), drafts)
	}
	if got := len(ab.follow()); got != 2 {
		t.Errorf("recipient of a and b opened %d", got)
	}
	if got := len(abc.follow()); got != 3 {
		t.Errorf("recipient of all opened %d", got)
	}
	g0, err := wire.ParseGrant(drafts[0].Records[0].Value)
	if err != nil {
		t.Fatal(err)
	}
	g1, err := wire.ParseGrant(drafts[1].Records[0].Value)
	if err != nil {
		t.Fatal(err)
	}
	if g0.Header.Epoch != 0 || g1.Header.Epoch != 1 || g0.Header.Prev != (wire.Digest{}) || g1.Header.Prev != g0.Header.Digest() {
		t.Error("headers do not form a chain")
	}
}

func TestGrantOfTooManyTopicsIsSplit(t *testing.T) {
	w := newWorld(t)
	prod := w.node(produce, []string{"*"}, nil)
	cons := w.node(consume, []string{"*"}, nil)
	cons.publish()
	var topics []string
	for i := range wire.MaxTopics + 1 {
		topics = append(topics, string([]byte{'t', byte('a' + i/26/26), byte('a' + i/26%26), byte('a' + i%26)}))
	}
	if drafts := prod.grant(topics...); len(drafts) != 2 {
		t.Fatalf("%d drafts", len(drafts))
	}
	if got := len(cons.follow()); got != len(topics) {
		t.Errorf("opened %d of %d", got, len(topics))
	}
}

func TestTheSameGrantAgainChangesNothing(t *testing.T) {
	_, prod, cons := pair(t)
	d := prod.grant("orders")[0]
	cons.follow()
	before := cons.state.Version()
	if kids, err := cons.apply(cons.part(d)); err != nil || len(kids) != 0 || cons.state.Version() != before {
		t.Errorf("%x %v", kids, err)
	}
}

func TestEveryBitOfASignedGrantCounts(t *testing.T) {
	_, prod, cons := pair(t)
	rec := cons.part(prod.grant("orders")[0])
	cons.sync()
	for i := range 8 * len(rec.Value) {
		rec.Value[i/8] ^= 1 << (i % 8)
		if kids, err := cons.apply(rec); err == nil || len(kids) != 0 {
			t.Fatalf("bit %d flipped and accepted", i)
		}
		rec.Value[i/8] ^= 1 << (i % 8)
	}
	if kids, err := cons.apply(rec); err != nil || len(kids) != 1 {
		t.Errorf("the right one: %x %v", kids, err)
	}
}

func TestGrantsThatAreNotRightAreRefused(t *testing.T) {
	w, prod, cons := pair(t)
	other := w.node(produce, []string{"orders", "payments"}, nil)
	consumerOnly := w.node(consume, []string{"orders"}, nil)
	rec := cons.part(prod.grant("orders")[0])
	as := func(p *party) func(g *wire.Grant) {
		return func(g *wire.Grant) {
			g.Header.Producer = p.state.Node().ID()
			g.Header.Credential = p.state.Node().Credential().Serial
		}
	}
	for name, tt := range map[string]struct {
		signer *party
		change func(g *wire.Grant)
		want   error
	}{
		"signed by another":       {other, func(*wire.Grant) {}, ErrUnauthentic},
		"another's wraps as own":  {other, as(other), ErrUnauthentic},
		"without the role":        {consumerOnly, as(consumerOnly), abi.StatusNotEntitled},
		"another's credential":    {other, func(g *wire.Grant) { g.Header.Credential = other.state.Node().Credential().Serial }, ErrUnauthentic},
		"unknown credential":      {prod, func(g *wire.Grant) { g.Header.Credential[0] ^= 1 }, ErrUnknownCredential},
		"topic not covered":       {prod, func(g *wire.Grant) { g.Header.Topics[0].Name = "payments" }, abi.StatusNotEntitled},
		"another realm":           {prod, func(g *wire.Grant) { g.Header.Realm[0] ^= 1 }, ErrOtherRealm},
		"starts in the future":    {prod, func(g *wire.Grant) { g.Header.Start += ms(time.Hour); g.Header.UseBy += ms(time.Hour) }, abi.StatusClockSkew},
		"lasts for days":          {prod, func(g *wire.Grant) { g.Header.UseBy += ms(25 * time.Hour) }, abi.StatusNotEntitled},
		"before its credential":   {prod, func(g *wire.Grant) { g.Header.Start -= ms(time.Hour) }, abi.StatusNotEntitled},
		"another commit":          {prod, func(g *wire.Grant) { g.Header.Topics[0].Commit[0] ^= 1 }, ErrUnauthentic},
		"another epoch":           {prod, func(g *wire.Grant) { g.Header.Epoch++ }, ErrUnauthentic},
		"another instance":        {prod, func(g *wire.Grant) { g.Header.Instance[0] ^= 1 }, ErrUnauthentic},
		"a prekey not ours":       {prod, func(g *wire.Grant) { g.Wraps[0].Prekey[0] ^= 1 }, abi.StatusErased},
		"a broken encapsulation":  {prod, func(g *wire.Grant) { g.Wraps[0].HPKE[0] ^= 1 }, ErrUnauthentic},
		"a broken sealed secret":  {prod, func(g *wire.Grant) { g.Wraps[0].HPKE[wire.WrapSize-1] ^= 1 }, ErrUnauthentic},
		"an X25519 share of zero": {prod, func(g *wire.Grant) { clear(g.Wraps[0].HPKE[1088:1120]) }, ErrUnauthentic},
	} {
		if kids, err := cons.apply(tt.signer.resign(rec, tt.change)); !errors.Is(err, tt.want) || len(kids) != 0 {
			t.Errorf("%s: %x %v, want %v", name, kids, err, tt.want)
		}
	}
	moved := rec
	moved.Partition = (rec.Partition + 1) % GrantPartitions
	if _, err := cons.apply(moved); !errors.Is(err, wire.ErrMalformed) {
		t.Errorf("in another partition: %v", err)
	}
	moved = rec
	moved.Key = append([]byte{}, rec.Key...)
	moved.Key[1] ^= 1
	if _, err := cons.apply(moved); !errors.Is(err, wire.ErrMalformed) {
		t.Errorf("under another key: %v", err)
	}
	if len(cons.state.secrets) != 0 {
		t.Fatal("something was kept")
	}
	if kids, err := cons.apply(rec); err != nil || len(kids) != 1 {
		t.Errorf("the right one: %x %v", kids, err)
	}
}

func TestProducerMustBeValidAtTheStartNotNow(t *testing.T) {
	w := newWorld(t)
	prod := w.nodeUntil(produce, []string{"orders"}, nil, Validity{NotBefore: w.now, NotAfter: w.now.Add(time.Hour)})
	cons := w.node(consume, []string{"orders"}, nil)
	cons.publish()
	d := prod.grant("orders")[0]
	w.pass(2 * time.Hour)
	late := prod.resign(cons.part(d), func(g *wire.Grant) { g.Header.Start += ms(90 * time.Minute); g.Header.UseBy += ms(90 * time.Minute) })
	if _, err := cons.apply(late); !errors.Is(err, abi.StatusNotEntitled) {
		t.Errorf("started after its credential's end: %v", err)
	}
	if kids, err := cons.apply(cons.part(d)); err != nil || len(kids) != 1 {
		t.Errorf("started before: %x %v", kids, err)
	}
	prod.sync()
	if _, refused, err := prod.producer.Prepare([]string{"orders"}, prod.roster, w.now); err != nil || !errors.Is(refused["orders"], abi.StatusNotEntitled) {
		t.Errorf("an expired producer prepares: %v %v", refused, err)
	}
}

func TestCredentialThatComesLateIsWaitedFor(t *testing.T) {
	_, prod, cons := pair(t)
	d := prod.grant("orders")[0]
	fresh := NewRoster(cons.state, cons.timing)
	rec := cons.part(d)
	if _, err := cons.consumer.ApplyGrant(rec.Partition, 0, rec.Key, rec.Value, fresh, cons.now); !errors.Is(err, ErrUnknownCredential) {
		t.Fatalf("before the roster was read: %v", err)
	}
	if kids, err := cons.apply(rec); err != nil || len(kids) != 1 {
		t.Errorf("after: %x %v", kids, err)
	}
}

func TestDataBeforeTheCredentialsLimitIsNotTaken(t *testing.T) {
	w := newWorld(t)
	prod := w.node(produce, []string{"orders"}, nil)
	v := w.validity()
	v.DataNotBefore = w.now.Add(time.Minute)
	cons := w.nodeUntil(consume, []string{"orders"}, nil, v)
	cons.publish()
	w.pass(2 * time.Minute)
	rec := cons.part(prod.grant("orders")[0])
	kid := prod.lease("orders").Kid
	early := prod.resign(rec, func(g *wire.Grant) { g.Header.Start -= ms(90 * time.Second) })
	if kids, err := cons.apply(early); err != nil || len(kids) != 0 {
		t.Errorf("%x %v", kids, err)
	}
	if _, err := cons.consumer.Root("orders", kid, w.now); !errors.Is(err, abi.StatusUnreadable) {
		t.Errorf("got %v", err)
	}
	if kids, err := cons.apply(rec); err != nil || len(kids) != 1 {
		t.Errorf("after the limit: %x %v", kids, err)
	}
}

func TestTheFirstHeaderOfAKidWins(t *testing.T) {
	w, prod, cons := pair(t)
	cons.sync()
	prod.sync()
	// A dishonest producer makes two headers with one es, instance and epoch: equal kids.
	h := wire.GrantHeader{
		Realm: w.root.Realm(), Producer: prod.state.Node().ID(), Credential: prod.state.Node().Credential().Serial,
		Start: unixMs(w.now), UseBy: unixMs(w.now.Add(time.Minute)),
	}
	var es secretKey
	count(es[:], 1)
	e, commit, err := newEpoch(&es, &h, "orders")
	if err != nil {
		t.Fatal(err)
	}
	h.Topics = []wire.GrantTopic{{Name: "orders", Commit: commit}}
	rs, err := prod.roster.Recipients("orders", nil, w.now)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []error{nil, ErrKidConflict} {
		d := &Draft{Recipients: rs}
		h.UseBy += uint64(i)
		if err := prod.producer.seal(d, &h, &es); err != nil {
			t.Fatal(err)
		}
		if _, err := cons.apply(cons.part(d)); !errors.Is(err, want) {
			t.Errorf("header %d: %v, want %v", i, err, want)
		}
	}
	if got := cons.state.secrets[e.kid].useBy; got != h.UseBy-1 {
		t.Error("the second header replaced the first")
	}
}

// TestProducerCannotSpeakForAnother: a grant that is right in all but whose it says it is.
func TestProducerCannotSpeakForAnother(t *testing.T) {
	w, prod, cons := pair(t)
	other := w.node(produce, []string{"orders"}, nil)
	cons.sync()
	prod.sync()
	rs, err := prod.roster.Recipients("orders", nil, w.now)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		producer wire.NodeID
		want     error
	}{{other.state.Node().ID(), ErrUnauthentic}, {prod.state.Node().ID(), nil}} {
		h := wire.GrantHeader{
			Realm: w.root.Realm(), Producer: tt.producer, Credential: prod.state.Node().Credential().Serial,
			Start: unixMs(w.now), UseBy: unixMs(w.now.Add(time.Minute)),
		}
		var es secretKey
		_, commit, err := newEpoch(&es, &h, "orders")
		if err != nil {
			t.Fatal(err)
		}
		h.Topics = []wire.GrantTopic{{Name: "orders", Commit: commit}}
		d := &Draft{Recipients: rs}
		if err := prod.producer.seal(d, &h, &es); err != nil {
			t.Fatal(err)
		}
		if _, err := cons.apply(cons.part(d)); !errors.Is(err, tt.want) {
			t.Errorf("as %v: %v, want %v", tt.producer, err, tt.want)
		}
	}
}

func FuzzApplyGrant(f *testing.F) {
	w := newFixedWorld(f)
	prod := w.node(produce, []string{"orders"}, nil)
	cons := w.node(consume, []string{"orders"}, nil)
	cons.publish()
	rec := cons.part(prod.grant("orders")[0])
	cons.sync()
	f.Add(rec.Key, rec.Value)
	f.Add([]byte{4}, []byte{1, 4, 1})
	producer := prod.state.Node().PublicKey()
	f.Fuzz(func(t *testing.T, key, value []byte) {
		kids, err := cons.consumer.ApplyGrant(rec.Partition, 0, key, value, cons.roster, w.now)
		if len(kids) == 0 {
			return
		}
		// Wraps are random, so another process's grant differs from rec and is right too.
		g, parseErr := wire.ParseGrant(value)
		if parseErr != nil || verify(producer, wire.TypeEpochGrant, w.root.Realm(), g.AppendBody(nil), &g.Signature) != nil {
			t.Fatalf("a grant that nobody signed was taken: %v", err)
		}
	})
}
