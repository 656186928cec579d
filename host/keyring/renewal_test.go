package keyring

import (
	"errors"
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

// ask writes the node's request for its next credential.
func (p *party) askRenewal() {
	p.t.Helper()
	rec, err := p.state.Renew(p.rand)
	if err != nil {
		p.t.Fatal(err)
	}
	p.world.roster = append(p.world.roster, rec)
}

// adopt reads the roster and takes the next credential, if it is there.
func (p *party) adopt() bool {
	p.t.Helper()
	p.sync()
	return p.state.AdoptRenewal(p.roster, p.now)
}

func TestRenewalChangesTheKeyAndNothingElse(t *testing.T) {
	w := newWorld(t)
	d := newDesk(w)
	v := w.validity()
	v.DataNotBefore = w.now.Add(-time.Hour)
	cons := w.nodeUntil(consume|wire.RoleShare, []string{"orders"}, []string{"billing"}, v)
	prod := w.node(produce, []string{"orders"}, nil)
	cons.publish()
	before, seed := *cons.state.node.Credential(), cons.state.node.seed
	prod.grant("orders")
	held := cons.follow()

	w.pass(6 * 24 * time.Hour)
	cons.askRenewal()
	d.work()
	if !cons.adopt() {
		t.Fatalf("not renewed: %v", d.errs)
	}
	after := cons.state.node.Credential()
	switch {
	case after.Node != before.Node || after.Lineage != before.Lineage+1 || after.Subject == before.Subject:
		t.Errorf("node %v lineage %d after node %v lineage %d", after.Node, after.Lineage, before.Node, before.Lineage)
	case after.Roles != before.Roles || after.OfflineAllow != before.OfflineAllow || after.DataNotBefore != before.DataNotBefore ||
		len(after.Topics) != 1 || after.Topics[0] != before.Topics[0] || len(after.Groups) != 1 || after.Groups[0] != before.Groups[0]:
		t.Errorf("granted %+v after %+v", after, before)
	case after.NotAfter-after.NotBefore != before.NotAfter-before.NotBefore || after.NotBefore != unixMs(w.now.Add(-w.timing.Skew)):
		t.Errorf("valid from %d to %d", after.NotBefore, after.NotAfter)
	case cons.state.node.seed == seed || cons.state.Renewing():
		t.Error("the old key is still there")
	}
	// Keys go on: what was held is held, and the next epoch reaches the new prekey.
	if _, err := cons.consumer.Root("orders", held[0], w.now); err != nil && !errors.Is(err, abi.StatusErased) {
		t.Errorf("a secret from before the renewal: %v", err)
	}
	if !cons.consumer.PrekeyDue(w.now) {
		t.Error("no prekey is due under the new credential")
	}
	cons.publish()
	prod.grant("orders")
	if len(cons.follow()) != 1 {
		t.Error("no grant reaches the renewed node")
	}
}

// TestProducerGoesOnThroughItsRenewal has consumers take epochs that were begun before and
// after.
func TestProducerGoesOnThroughItsRenewal(t *testing.T) {
	w, prod, cons := pair(t)
	d := newDesk(w)
	prod.grant("orders")
	prod.askRenewal()
	d.work()
	if !prod.adopt() {
		t.Fatalf("not renewed: %v", d.errs)
	}
	prod.lease("orders") // of the epoch that was begun under the old credential
	prod.grant("orders")
	prod.lease("orders")
	if n := len(cons.follow()); n != 2 {
		t.Errorf("%d epochs reach the consumer, want 2", n)
	}
}

func TestTheSameRequestGetsTheSameCredential(t *testing.T) {
	w := newWorld(t)
	d := newDesk(w)
	p := w.node(produce, []string{"orders"}, nil)
	p.askRenewal()
	d.work()
	p = p.restart() // before it saw the answer
	p.askRenewal()
	end := len(w.roster)
	d.work()
	if len(w.roster) != end+2 || string(w.roster[end+1].Value) != string(w.roster[end-2].Value) {
		t.Errorf("%d records, %v", len(w.roster)-end, d.errs)
	}
	if !p.adopt() || p.state.node.Credential().Lineage != 1 || len(d.errs) != 0 {
		t.Errorf("not renewed: %v", d.errs)
	}
	// And again, when the next one was granted: what compaction left behind is no alarm.
	p.askRenewal()
	d.work()
	if !p.adopt() || p.state.node.Credential().Lineage != 2 {
		t.Errorf("not renewed twice: %v", d.errs)
	}
	d.read = 0
	d.work()
	if len(d.errs) != 0 {
		t.Errorf("the roster read again: %v", d.errs)
	}
}

func TestForkRevokesEveryCredentialOfTheNode(t *testing.T) {
	w := newWorld(t)
	d := newDesk(w)
	p := w.node(produce, []string{"orders"}, nil)
	copied, err := ParseState(p.state.Marshal())
	if err != nil {
		t.Fatal(err)
	}
	thief := w.start(copied)
	p.askRenewal()
	d.work()
	if !p.adopt() {
		t.Fatal("not renewed")
	}
	thief.askRenewal()
	d.work()
	if d.said(ErrFork) != 1 || thief.adopt() {
		t.Fatalf("the second key was taken: %v", d.errs)
	}
	view := w.issuer.Roster(w.timing)
	for _, rec := range w.roster {
		if err := view.Apply(rec.Key, rec.Value, w.now); err != nil {
			t.Fatal(err)
		}
	}
	// It counts at once, before anybody read that they are revoked.
	p.askRenewal()
	d.work()
	if p.adopt() {
		t.Error("a node that forked was renewed before its revocation")
	}
	d.restart()
	revoke := d.book.Forked(view, w.now)
	if len(revoke) != 2 {
		t.Fatalf("%d credentials are to be revoked, want 2", len(revoke))
	}
	a, err := w.issuer.NextState(nil, revoke, w.now, StateValidity)
	if err != nil {
		t.Fatal(err)
	}
	w.roster = append(w.roster, Record{Key: a.Key(), Value: a.Append(nil)})
	if err := view.Apply(a.Key(), a.Append(nil), w.now); err != nil {
		t.Fatal(err)
	}
	if again := d.book.Forked(view, w.now); len(again) != 0 {
		t.Errorf("%d are to be revoked again", len(again))
	}
	p.askRenewal()
	d.work()
	if p.adopt() {
		t.Error("a node that forked was renewed")
	}
	// An older AuthorityState does not make the issuer forget.
	d.book.NoteAuthority(a)
	older := *a
	older.Seq, older.Revoked = 0, nil
	d.book.NoteAuthority(&older)
	d.restart()
	if got := d.book.Authority(); got == nil || got.Seq != a.Seq || len(got.Revoked) != 2 {
		t.Errorf("the book holds %+v", got)
	}
}

func TestARenewedConsumerMakesAPrekeyAtOnce(t *testing.T) {
	w := newWorld(t)
	d := newDesk(w)
	p := w.node(consume, []string{"orders"}, []string{"billing"})
	p.publish()
	if p.consumer.PrekeyDue(w.now) {
		t.Fatal("due before the renewal")
	}
	p.askRenewal()
	d.work()
	if !p.adopt() || !p.consumer.PrekeyDue(w.now) {
		t.Error("not renewed, or no prekey is due")
	}
}

func TestAReplacedKeyRenewsNothing(t *testing.T) {
	w := newWorld(t)
	d := newDesk(w)
	p := w.node(produce, []string{"orders"}, nil)
	old, err := ParseState(p.state.Marshal())
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		p.askRenewal()
		d.work()
		if !p.adopt() {
			t.Fatal("not renewed")
		}
	}
	w.start(old).askRenewal()
	end := len(w.roster)
	d.work()
	if d.said(ErrOldLineage) != 1 || len(w.roster) != end || len(d.book.Forked(w.issuer.Roster(w.timing), w.now)) != 0 {
		t.Errorf("%d records, %v", len(w.roster)-end, d.errs)
	}
	p.askRenewal()
	d.work()
	if !p.adopt() {
		t.Error("the true node is not renewed any more")
	}
}

func TestEveryBitOfARenewalCounts(t *testing.T) {
	w := newWorld(t)
	d := newDesk(w)
	p := w.node(produce, []string{"orders"}, nil)
	view := w.issuer.Roster(w.timing)
	for _, rec := range w.roster {
		if err := view.Apply(rec.Key, rec.Value, w.now); err != nil {
			t.Fatal(err)
		}
	}
	rec, err := p.state.Renew(w.rand)
	if err != nil {
		t.Fatal(err)
	}
	for i := range rec.Value {
		bad := append([]byte(nil), rec.Value...)
		bad[i] ^= 1
		q, err := wire.ParseRenewal(bad)
		key := rec.Key
		if err == nil {
			key = q.Key()
		}
		if out, err := d.book.Renew(w.rand, w.issuer, view, key, bad, w.now); err == nil || out != nil {
			t.Fatalf("byte %d counts for nothing", i)
		}
	}
	if out, err := d.book.Renew(w.rand, w.issuer, view, append([]byte{9}, make([]byte, 16)...), rec.Value, w.now); err == nil || out != nil {
		t.Error("under another node's key: answered")
	}
	if _, err := d.book.Renew(w.rand, w.issuer, w.issuer.Roster(w.timing), rec.Key, rec.Value, w.now); !errors.Is(err, ErrUnknownCredential) {
		t.Errorf("before its credential: %v", err)
	}
}

func TestARevokedNodeIsNotRenewed(t *testing.T) {
	w := newWorld(t)
	d := newDesk(w)
	p := w.node(produce, []string{"orders"}, nil)
	a, err := w.issuer.NextState(nil, []wire.Revocation{{Serial: p.state.node.Credential().Serial, At: unixMs(w.now)}}, w.now, StateValidity)
	if err != nil {
		t.Fatal(err)
	}
	w.roster = append(w.roster, Record{Key: a.Key(), Value: a.Append(nil)})
	p.askRenewal()
	d.work()
	if d.said(abi.StatusNotEntitled) != 1 || p.adopt() {
		t.Errorf("renewed: %v", d.errs)
	}
}

func TestAnEndedCredentialIsRenewedFor30Days(t *testing.T) {
	for after, want := range map[time.Duration]bool{29 * 24 * time.Hour: true, 31 * 24 * time.Hour: false} {
		w := newWorld(t)
		d := newDesk(w)
		p := w.node(produce, []string{"orders"}, nil)
		p.askRenewal()
		w.pass(9*24*time.Hour + after)
		if got := p.state.node.Renewable(w.now); got != want {
			t.Errorf("renewable %v after its end: %v", after, got)
		}
		d.work()
		if got := p.adopt(); got != want {
			t.Errorf("renewed %v after its end: %v; %v", after, got, d.errs)
		}
	}
}

// TestANodeThatWasAwayForTwoLifetimesCatchesUp leaves the answer to a renewal to end unread.
func TestANodeThatWasAwayForTwoLifetimesCatchesUp(t *testing.T) {
	w := newWorld(t)
	d := newDesk(w)
	p := w.node(produce, []string{"orders"}, nil)
	p.askRenewal()
	d.work()
	w.pass(20 * 24 * time.Hour)
	if !p.adopt() || p.state.node.Check(w.now) == nil {
		t.Fatal("an ended successor was not taken, or counts")
	}
	p.askRenewal()
	d.work()
	if !p.adopt() || p.state.node.Check(w.now) != nil {
		t.Errorf("not renewed: %v", d.errs)
	}
}

func TestARenewedCredentialEndsWithItsIssuer(t *testing.T) {
	w := newWorld(t)
	d := newDesk(w)
	w.pass(355 * 24 * time.Hour)
	p := w.node(produce, []string{"orders"}, nil)
	w.pass(6 * 24 * time.Hour)
	p.askRenewal()
	d.work()
	if !p.adopt() || p.state.node.Credential().NotAfter != w.issuer.cert.NotAfter {
		t.Fatalf("it ends at %d: %v", p.state.node.Credential().NotAfter, d.errs)
	}
	// The next issuer gives it its full length again.
	var err error
	if w.issuer, err = w.root.CertifyIssuer(w.rand, w.now, w.now.Add(365*24*time.Hour)); err != nil {
		t.Fatal(err)
	}
	p.askRenewal()
	d.work()
	if !p.adopt() {
		t.Fatalf("not renewed by the next issuer: %v", d.errs)
	}
	if c := p.state.node.Credential(); c.NotAfter-c.NotBefore != uint64((9*24*time.Hour).Milliseconds()) || c.Issuer != w.issuer.cert.Subject {
		t.Errorf("valid for %d ms", c.NotAfter-c.NotBefore)
	}
}

func TestNodesRenewAtMomentsOfTheirOwn(t *testing.T) {
	w := newWorld(t)
	seen := map[time.Time]bool{}
	const v = 9 * 24 * time.Hour
	for range 20 {
		p := w.node(produce, []string{"orders"}, nil)
		at := p.state.node.RenewAt()
		if again := w.start(p.state).state.node.RenewAt(); !again.Equal(at) {
			t.Error("another moment after a restart")
		}
		if d := at.Sub(w.now); d < v*2/3-v/10-time.Second || d > v*2/3+v/10+time.Second {
			t.Errorf("after %v of %v", d, v)
		}
		seen[at] = true
	}
	if len(seen) < 19 {
		t.Errorf("%d moments of 20 nodes", len(seen))
	}
}

// TestTheNextKeyIsOnDiskBeforeItIsAskedFor restarts a node from what it saved before its
// request was written.
func TestTheNextKeyIsOnDiskBeforeItIsAskedFor(t *testing.T) {
	w := newWorld(t)
	d := newDesk(w)
	p := w.node(produce, []string{"orders"}, nil)
	version := p.state.Version()
	rec, err := p.state.Renew(w.rand)
	if err != nil || p.state.Version() == version {
		t.Fatalf("nothing to save: %v", err)
	}
	again, err := p.state.Renew(w.rand)
	if err != nil || string(again.Value) != string(rec.Value) {
		t.Fatalf("another request: %v", err)
	}
	w.roster = append(w.roster, rec)
	d.work()
	p = p.restart()
	if !p.adopt() || p.state.node.PublicKey() == (wire.PublicKey{}) || p.restart().state.node.Credential().Lineage != 1 {
		t.Error("not renewed after a restart")
	}
}

// A node whose clock is behind the issuer's uses its credential at once.
func TestACredentialBeginsBeforeItIsSigned(t *testing.T) {
	w := newWorld(t)
	w.pass(time.Hour)
	for length, before := range map[time.Duration]time.Duration{9 * 24 * time.Hour: w.timing.Skew, 10 * time.Second: time.Second} {
		if v := w.issuer.validity(w.now, length); w.now.Sub(v.NotBefore) != before || v.NotAfter.Sub(v.NotBefore) != length {
			t.Errorf("%v: from %v to %v", length, v.NotBefore, v.NotAfter)
		}
	}
	w.pass(time.Second - time.Hour)
	if v := w.issuer.validity(w.now, time.Hour); v.NotBefore != fromMs(w.issuer.cert.NotBefore) {
		t.Errorf("it begins before its issuer's, at %v", v.NotBefore)
	}
}
