package keyring

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

// authority signs the state that follows prev and revokes parties at once, without writing
// it to the roster.
func (w *world) authority(prev *wire.AuthorityState, revoke ...*party) *wire.AuthorityState {
	w.t.Helper()
	var list []wire.Revocation
	for _, p := range revoke {
		list = append(list, wire.Revocation{Serial: p.state.Node().Credential().Serial, At: unixMs(w.now)})
	}
	a, err := w.issuer.NextState(prev, list, w.now, StateValidity)
	if err != nil {
		w.t.Fatal(err)
	}
	return a
}

func recordOf(a *wire.AuthorityState) Record { return Record{Key: a.Key(), Value: a.Append(nil)} }

// revoke writes the state that follows prev to the roster.
func (w *world) revoke(prev *wire.AuthorityState, revoke ...*party) *wire.AuthorityState {
	w.t.Helper()
	a := w.authority(prev, revoke...)
	w.roster = append(w.roster, recordOf(a))
	return a
}

func TestRevokedRecipientGetsNoFurtherGrant(t *testing.T) {
	w := newWorld(t)
	prod := w.node(produce, []string{"orders"}, nil)
	stays := w.node(consume, []string{"orders"}, nil)
	leaves := w.node(consume, []string{"orders"}, nil)
	stays.publish()
	leaves.publish()
	prod.grant("orders")
	kid := prod.lease("orders").Kid
	w.pass(newcomerSpacer)
	a := w.revoke(nil, leaves)
	prod.sync()
	if due := prod.producer.Due(prod.roster, w.now); !slices.Equal(due, []string{"orders"}) {
		t.Fatalf("due: %v", due)
	}
	if _, err := prod.producer.Lease("orders", w.now); !errors.Is(err, abi.StatusNeedLease) {
		t.Errorf("before the next grant, the epoch that the revoked node reads is still leased: %v", err)
	}
	if kids := prod.producer.Retire(w.now); !slices.Equal(kids, []abi.Kid{kid}) {
		t.Errorf("retired %x, want %x", kids, kid)
	}
	d := prod.grant("orders")[0]
	if !slices.Equal(ids(d.Recipients), []wire.NodeID{stays.state.Node().ID()}) {
		t.Errorf("recipients %v", ids(d.Recipients))
	}
	g, err := wire.ParseGrant(d.Records[0].Value)
	if err != nil || g.Header.AuthoritySeq != a.Seq {
		t.Errorf("the grant goes by authority state %d, want %d: %v", g.Header.AuthoritySeq, a.Seq, err)
	}
	if got, want := len(stays.follow()), 2; got != want {
		t.Errorf("who stays opened %d epochs, want %d", got, want)
	}
	leaves.read = len(w.roster) // it knows nothing of its fate
	if got := len(leaves.follow()); got != 1 {
		t.Errorf("who leaves opened %d epochs, want the first only", got)
	}
}

func TestRevokedProducersLaterGrantsAreRefused(t *testing.T) {
	w, prod, cons := pair(t)
	prod.grant("orders")
	w.pass(time.Minute)
	w.revoke(nil, prod)
	if got := len(cons.follow()); got != 1 {
		t.Errorf("%d epochs of before the revocation were opened, want 1", got)
	}
	for _, tt := range []struct {
		start time.Duration // from the revocation
		ok    bool
	}{{-time.Millisecond, true}, {0, false}, {time.Minute, false}} {
		drafts, refused, err := prod.producer.Prepare([]string{"orders"}, prod.roster, w.now.Add(tt.start))
		if err != nil || len(refused) != 0 {
			t.Fatal(refused, err)
		}
		part := cons.state.Node().GrantPartition()
		rec := drafts[0].Records[part]
		kids, err := cons.consumer.ApplyGrant(part, 0, rec.Key, rec.Value, cons.roster, w.now)
		if tt.ok != (len(kids) == 1) || !tt.ok && !errors.Is(err, abi.StatusNotEntitled) {
			t.Errorf("started %v after the revocation: %d kids, %v", tt.start, len(kids), err)
		}
	}
}

func TestRevokedNodeNotices(t *testing.T) {
	w, prod, cons := pair(t)
	prod.grant("orders")
	kid := prod.lease("orders").Kid
	w.revoke(w.revoke(nil, prod), cons)
	if err := prod.roster.Apply(w.roster[len(w.roster)-2].Key, w.roster[len(w.roster)-2].Value, w.now); err != nil {
		t.Fatal(err) // of the two, it has read that it is revoked itself
	}
	cons.sync()
	for what, err := range map[string]error{
		"produce": prod.state.Node().MayProduce("orders", w.now),
		"consume": cons.state.Node().MayConsume("orders", w.now),
		"prekey":  func() error { _, err := cons.consumer.NewPrekey(w.now); return err }(),
		"lease":   func() error { _, err := prod.producer.Lease("orders", w.now); return err }(),
	} {
		if !errors.Is(err, abi.StatusNotEntitled) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if due := prod.producer.Due(prod.roster, w.now); len(due) != 1 {
		t.Errorf("due %v", due)
	}
	if kids := prod.producer.Retire(w.now); !slices.Equal(kids, []abi.Kid{kid}) {
		t.Errorf("retired %x: what was leased seals on", kids)
	}
}

func TestBundleOfARevokedCredentialDoesNotCount(t *testing.T) {
	w, prod, cons := pair(t)
	prod.sync()
	w.pass(time.Minute)
	later := cons.bundle(nil)
	a := w.authority(nil, cons)
	if err := prod.roster.Apply(a.Key(), a.Append(nil), w.now); err != nil {
		t.Fatal(err)
	}
	if err := prod.roster.Apply(later.Key, later.Value, w.now); !errors.Is(err, abi.StatusNotEntitled) {
		t.Errorf("a bundle made after the revocation: %v", err)
	}
	earlier := cons.bundle(func(b *wire.PrekeyBundle) { b.Created -= 1 })
	if err := prod.roster.Apply(earlier.Key, earlier.Value, w.now); err != nil {
		t.Errorf("a bundle made before the revocation: %v", err)
	}
	if _, err := prod.roster.Recipients("orders", nil, w.now); !errors.Is(err, abi.StatusNoRecipient) {
		t.Errorf("who is revoked is a recipient by a bundle of before: %v", err)
	}
}

// TestBundleOfARevokedOlderCredentialDoesNotCount: who stole the older one's key may have
// made it.
func TestBundleOfARevokedOlderCredentialDoesNotCount(t *testing.T) {
	w, prod, cons := pair(t)
	first := *cons.state.Node().Credential()
	w.pass(time.Second)
	file, err := w.issuer.Issue(w.rand, cons.state.Node().CSR(attributes(t, consume, []string{"orders"}, nil)), nil, w.validity())
	if err != nil {
		t.Fatal(err)
	}
	if err := cons.state.Node().Install(file, w.now); err != nil {
		t.Fatal(err)
	}
	w.roster = append(w.roster, cons.state.Node().RosterRecords()...)
	prod.sync()
	if _, err := prod.roster.Recipients("orders", nil, w.now); err != nil {
		t.Fatalf("by a bundle under the older credential: %v", err)
	}
	a, err := w.issuer.NextState(nil, []wire.Revocation{{Serial: first.Serial, At: unixMs(w.now)}}, w.now, StateValidity)
	if err != nil {
		t.Fatal(err)
	}
	w.roster = append(w.roster, recordOf(a))
	prod.sync()
	if _, err := prod.roster.Recipients("orders", nil, w.now); !errors.Is(err, abi.StatusNoRecipient) {
		t.Errorf("by a bundle under a credential that is revoked: %v", err)
	}
	w.pass(time.Second)
	cons.publish()
	prod.sync()
	if _, err := prod.roster.Recipients("orders", nil, w.now); err != nil {
		t.Errorf("by a bundle under the newer credential: %v", err)
	}
}

func TestIssuerIsRevokedByAnother(t *testing.T) {
	w, prod, _ := pair(t)
	prod.sync()
	w.pass(time.Minute)
	cert := []wire.Revocation{{Serial: w.issuer.cert.Serial, At: unixMs(w.now)}}
	if _, err := w.issuer.NextState(nil, cert, w.now, StateValidity); !errors.Is(err, abi.StatusNotEntitled) {
		t.Errorf("an issuer revokes itself: %v", err)
	}
	first := w.authority(nil)
	a, err := w.root.NextState(first, cert, w.now, StateValidity)
	if err != nil {
		t.Fatal(err)
	}
	own := *first
	own.Revoked = cert
	signState(&own, &w.issuer.seed)
	if err := prod.roster.Apply(own.Key(), own.Append(nil), w.now); !errors.Is(err, abi.StatusNotEntitled) {
		t.Errorf("a state that revokes its own issuer: %v", err)
	}
	for _, s := range []*wire.AuthorityState{first, a} {
		if err := prod.roster.Apply(s.Key(), s.Append(nil), w.now); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := prod.roster.Recipients("orders", nil, w.now); !errors.Is(err, abi.StatusNoRecipient) {
		t.Errorf("who a revoked issuer certified is a recipient: %v", err)
	}
	if err := prod.state.Node().MayProduce("orders", w.now); !errors.Is(err, abi.StatusNotEntitled) {
		t.Errorf("who a revoked issuer certified produces: %v", err)
	}
	signed := *a
	signed.Seq, signed.Prev, signed.Revoked = a.Seq+1, a.Digest(), nil
	signState(&signed, &w.issuer.seed)
	if err := prod.roster.Apply(signed.Key(), signed.Append(nil), w.now); !errors.Is(err, abi.StatusNotEntitled) {
		t.Errorf("a revoked issuer takes its revocation back: %v", err)
	}
	signed.Issued = first.Issued - 1
	signState(&signed, &w.issuer.seed)
	if err := prod.roster.Apply(signed.Key(), signed.Append(nil), w.now); err == nil {
		t.Error("a revoked issuer takes its revocation back with an earlier date")
	}
	if prod.roster.Authority().Digest() != a.Digest() {
		t.Error("a refused state holds")
	}
}

func TestAuthorityStatesThatAreRefused(t *testing.T) {
	w, prod, cons := pair(t)
	prod.sync()
	first := w.revoke(nil)
	w.pass(time.Minute)
	second := w.revoke(first, cons)
	prod.sync()
	stranger := newWorld(t)
	future := *w.authority(second)
	future.Issued += 2*ms(w.timing.Skew) + 1
	future.NextUpdate = future.Issued
	signState(&future, &w.issuer.seed)
	early := *w.authority(second)
	early.Issued = second.Issued - 1
	signState(&early, &w.issuer.seed)
	forged := *w.authority(second)
	forged.Signature[0] ^= 1
	other := *second
	other.Revoked = nil
	signState(&other, &w.issuer.seed)
	third := recordOf(w.authority(second))
	for name, tt := range map[string]struct {
		rec  Record
		want error
	}{
		"another realm's":        {recordOf(stranger.authority(nil)), ErrOtherRealm},
		"under another key":      {Record{Key: third.Key[:1], Value: third.Value}, wire.ErrMalformed},
		"from the future":        {recordOf(&future), abi.StatusClockSkew},
		"before its predecessor": {recordOf(&early), ErrConflict},
		"badly signed":           {recordOf(&forged), ErrUnauthentic},
		"an older one":           {recordOf(first), ErrRollback},
		"the same number again":  {recordOf(&other), ErrConflict},
	} {
		if err := prod.roster.Apply(tt.rec.Key, tt.rec.Value, w.now); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
		if got := prod.roster.Authority(); got.Digest() != second.Digest() {
			t.Errorf("%s: state %d holds now", name, got.Seq)
		}
	}
	for i := range third.Value {
		flipped := slices.Clone(third.Value)
		flipped[i] ^= 1
		_ = prod.roster.Apply(third.Key, flipped, w.now)
		if got := prod.roster.Authority(); got.Digest() != second.Digest() {
			t.Fatalf("byte %d is flipped, and state %d holds", i, got.Seq)
		}
	}
	if err := prod.roster.Apply(third.Key, third.Value, w.now); err != nil {
		t.Errorf("what follows: %v", err)
	}
}

func TestNodeCannotRevoke(t *testing.T) {
	w, prod, cons := pair(t)
	prod.sync()
	a := w.authority(nil, cons)
	signState(a, &cons.state.node.seed)
	_ = prod.roster.Apply(a.Key(), a.Append(nil), w.now)
	if prod.roster.Authority() != nil {
		t.Error("a state that a node signed holds")
	}
}

func TestForkedStateCountsAndIsTold(t *testing.T) {
	w, prod, cons := pair(t)
	first := w.revoke(nil)
	prod.sync()
	hidden := w.authority(first)
	fork := *w.authority(first, cons)
	fork.Prev = hidden.Digest()
	signState(&fork, &w.issuer.seed)
	if err := prod.roster.Apply(fork.Key(), fork.Append(nil), w.now); !errors.Is(err, ErrConflict) {
		t.Errorf("got %v", err)
	}
	if got := prod.roster.Authority(); got.Seq != 2 || got.Digest() != fork.Digest() {
		t.Errorf("state %d holds", got.Seq)
	}
}

func TestRolledBackStateIsNoticedAfterARestart(t *testing.T) {
	w, prod, cons := pair(t)
	first := w.authority(nil, cons)
	second := w.authority(first)
	full := append(slices.Clone(w.roster), recordOf(first), recordOf(second))
	old := append(slices.Clone(w.roster), recordOf(first))
	w.roster = full
	prod.sync()
	if prod.roster.RolledBack() || prod.roster.CheckFresh(w.now) != nil {
		t.Fatal("the newest is not accepted")
	}
	w.roster = old
	prod = prod.restart()
	prod.sync()
	if !prod.roster.RolledBack() {
		t.Error("not noticed")
	}
	if err := prod.roster.CheckFresh(w.now); !errors.Is(err, abi.StatusUnavailable) {
		t.Errorf("fresh: %v", err)
	}
	if _, err := prod.roster.Recipients("orders", nil, w.now); !errors.Is(err, abi.StatusNoRecipient) {
		t.Errorf("what the older state revokes is not revoked: %v", err)
	}
	other := *second
	other.Revoked = nil
	signState(&other, &w.issuer.seed)
	if err := prod.roster.Apply(other.Key(), other.Append(nil), w.now); !errors.Is(err, ErrConflict) {
		t.Errorf("another one with the number seen before the restart: %v", err)
	}
	w.roster = full
	prod = prod.restart()
	prod.sync()
	if prod.roster.RolledBack() || prod.roster.CheckFresh(w.now) != nil {
		t.Error("the newest is not accepted again")
	}
}

// TestStateWaitsForItsIssuer: compaction may leave an issuer's certificate behind a state of
// the largest size.
func TestStateWaitsForItsIssuer(t *testing.T) {
	w, prod, _ := pair(t)
	prod.sync()
	other, err := w.root.CertifyIssuer(w.rand, w.now, w.now.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	list := make([]wire.Revocation, wire.MaxRevoked)
	for i := range list {
		list[i] = wire.Revocation{Serial: wire.Serial{byte(i >> 8), byte(i)}, At: 1}
	}
	a, err := other.NextState(nil, list, w.now, StateValidity)
	if err != nil {
		t.Fatal(err)
	}
	if err := prod.roster.Apply(a.Key(), a.Append(nil), w.now); err != nil || prod.roster.Authority() != nil {
		t.Fatalf("before the certificate: %v", err)
	}
	if err := prod.roster.Apply(other.cert.Key(), other.cert.Append(nil), w.now); err != nil {
		t.Fatal(err)
	}
	if prod.roster.Authority() == nil || !prod.roster.revoked(wire.Serial{1, 7}, 1) || prod.roster.revoked(wire.Serial{1, 7}, 0) {
		t.Error("the state does not hold once its issuer is known")
	}
}

func TestNextStateKeepsWhatWasRevoked(t *testing.T) {
	w := newWorld(t)
	at := unixMs(w.now)
	one, two := wire.Serial{1}, wire.Serial{2}
	first, err := w.issuer.NextState(nil, []wire.Revocation{{Serial: two, At: at}}, w.now, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if first.Seq != 1 || first.Prev != (wire.Digest{}) || first.Issued != at || first.NextUpdate != at+3_600_000 {
		t.Errorf("first: %+v", first)
	}
	w.pass(-time.Minute) // this issuer's clock is behind the other's
	second, err := w.issuer.NextState(first, []wire.Revocation{{Serial: two, At: at - 5}, {Serial: one, At: at}, {Serial: one, At: at}}, w.now, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if want := []wire.Revocation{{Serial: one, At: at}, {Serial: two, At: at - 5}}; !slices.Equal(second.Revoked, want) {
		t.Errorf("revoked %v, want %v", second.Revoked, want)
	}
	if second.Seq != 2 || second.Prev != first.Digest() || second.Issued < first.Issued {
		t.Errorf("second: %+v", second)
	}
	third, err := w.issuer.NextState(second, []wire.Revocation{{Serial: two, At: at}}, w.now, time.Hour)
	if err != nil || third.Revoked[1].At != at-5 {
		t.Errorf("revoked again from a later time: %v, %v", third.Revoked, err)
	}
	if got := first.Revoked[0].At; got != at {
		t.Errorf("the state before was changed: %d", got)
	}
	if _, err := wire.ParseAuthorityState(second.Append(nil)); err != nil {
		t.Error(err)
	}
	many := make([]wire.Revocation, wire.MaxRevoked)
	for i := range many {
		many[i].Serial = wire.Serial{9, byte(i >> 8), byte(i)}
	}
	for name, err := range map[string]error{
		"ahead of its time": func() error {
			_, err := w.issuer.NextState(first, []wire.Revocation{{Serial: one, At: at + 1}}, w.now, time.Hour)
			return err
		}(),
		"too many":         func() error { _, err := w.issuer.NextState(first, many, w.now, time.Hour); return err }(),
		"good for no time": func() error { _, err := w.issuer.NextState(first, nil, w.now, 0); return err }(),
		"another realm":    func() error { _, err := newWorld(t).issuer.NextState(first, nil, w.now, time.Hour); return err }(),
		"an issuer that has expired": func() error {
			_, err := w.issuer.NextState(first, nil, w.now.Add(400*24*time.Hour), time.Hour)
			return err
		}(),
	} {
		if err == nil {
			t.Errorf("%s: signed", name)
		}
	}
}

func TestFreshStateIsRequiredOnlyWhereAsked(t *testing.T) {
	w, prod, _ := pair(t)
	prepare := func() error {
		prod.sync()
		_, refused, err := prod.producer.Prepare([]string{"orders"}, prod.roster, w.now)
		if len(refused) != 0 {
			t.Fatal(refused)
		}
		return err
	}
	if err := prepare(); err != nil {
		t.Errorf("without a state, which nobody required: %v", err)
	}
	prod.producer.RequireFresh()
	if err := prepare(); !errors.Is(err, abi.StatusUnavailable) {
		t.Errorf("without a state: %v", err)
	}
	a := w.revoke(nil)
	prod.grant("orders")
	prod.lease("orders")
	w.now = fromMs(a.NextUpdate).Add(-time.Millisecond)
	if err := prepare(); err != nil {
		t.Errorf("at its last moment: %v", err)
	}
	prod.grant("orders")
	prod.lease("orders")
	w.pass(time.Millisecond)
	if err := prepare(); !errors.Is(err, abi.StatusUnavailable) {
		t.Errorf("after next_update: %v", err)
	}
	prod.lease("orders") // the epoch that began in time goes on
	w.revoke(a)
	if err := prepare(); err != nil {
		t.Errorf("renewed: %v", err)
	}
}
