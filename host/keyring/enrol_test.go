package keyring

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/flynn/noise"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

// A desk is an issuer at work: its book, and how far it has read the roster. Each record is
// taken by a book that was encoded and read again, as if the issuer had been restarted.
type desk struct {
	*world
	book *Book
	read int
	errs []error
}

func newDesk(w *world) *desk {
	w.t.Helper()
	book, err := NewBook(w.rand)
	if err != nil {
		w.t.Fatal(err)
	}
	return &desk{world: w, book: book}
}

func (d *desk) ticket(attrs Attributes) *wire.Ticket {
	d.t.Helper()
	t, err := d.book.NewTicket(d.rand, d.issuer, attrs, d.now.Add(time.Hour), 9*24*time.Hour, d.now)
	if err != nil {
		d.t.Fatal(err)
	}
	// What a person carries is the line.
	line := MarshalTicket(t)
	t.Wipe()
	if t, err = ParseTicket(append(line, '\n')); err != nil {
		d.t.Fatal(err)
	}
	return t
}

func (d *desk) restart() {
	d.t.Helper()
	b := d.book.Marshal()
	d.book.Wipe()
	var err error
	if d.book, err = ParseBook(b); err != nil {
		d.t.Fatal(err)
	}
	if !bytes.Equal(d.book.Marshal(), b) {
		d.t.Fatal("a book that was read encodes otherwise")
	}
}

// work reads the roster to its end and writes what the book answers.
func (d *desk) work() {
	d.t.Helper()
	end := len(d.world.roster)
	view := d.issuer.Roster(d.timing)
	for _, rec := range d.world.roster[:end] {
		if err := view.Apply(rec.Key, rec.Value, d.now); err != nil && !errors.Is(err, ErrRollback) {
			d.t.Fatal(err)
		}
	}
	for ; d.read < end; d.read++ {
		d.restart()
		rec := d.world.roster[d.read]
		var out []Record
		var err error
		switch wire.Type(rec.Key[0]) {
		case wire.TypeEnrolment:
			out, err = d.book.Enrol(d.rand, d.issuer, rec.Key, rec.Value, d.now)
		case wire.TypeRenewal:
			out, err = d.book.Renew(d.rand, d.issuer, view, rec.Key, rec.Value, d.now)
		}
		if err != nil {
			d.errs = append(d.errs, err)
		}
		d.world.roster = append(d.world.roster, out...)
	}
}

// said is how many of what the desk refused so far are err.
func (d *desk) said(err error) (n int) {
	for _, e := range d.errs {
		if errors.Is(e, err) {
			n++
		}
	}
	return n
}

// An applicant is a node that enrols.
type applicant struct {
	*Enrolment
	w    *world
	read int
}

func (w *world) apply(t *wire.Ticket, s *State) *applicant {
	w.t.Helper()
	e, err := NewEnrolment(t, s, w.rand, w.now)
	if err != nil {
		w.t.Fatal(err)
	}
	return &applicant{Enrolment: e, w: w}
}

func (a *applicant) write() { a.w.roster = append(a.w.roster, a.Record()) }

// follow reads the roster to its end.
func (a *applicant) follow() (done bool, err error) {
	a.w.t.Helper()
	for ; a.read < len(a.w.roster) && !done; a.read++ {
		done, err = a.Receive(a.w.roster[a.read].Key, a.w.roster[a.read].Value, a.w.now)
	}
	return done, err
}

// run takes an applicant all the way.
func (d *desk) run(a *applicant) {
	d.t.Helper()
	for range 3 {
		a.write()
		d.work()
		if done, err := a.follow(); done {
			if err != nil {
				d.t.Fatal(err)
			}
			return
		}
	}
	d.t.Fatalf("not enrolled; the issuer says %v", d.errs)
}

func (w *world) fresh() *State {
	w.t.Helper()
	s, err := NewState(w.rand)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func TestATicketIsACredential(t *testing.T) {
	w := newWorld(t)
	d := newDesk(w)
	want := attributes(t, consume|wire.RoleShare, []string{"orders", "eu.*"}, []string{"billing"})
	s := w.fresh()
	d.run(w.apply(d.ticket(want), s))
	c := s.Node().Credential()
	switch {
	case s.Node().Check(w.now) != nil:
		t.Error(s.Node().Check(w.now))
	case c.Roles != want.Roles || len(c.Topics) != 2 || len(c.Groups) != 1 || c.OfflineAllow != 72*3600 || c.Lineage != 0:
		t.Errorf("granted %+v", c)
	case c.NotAfter-c.NotBefore != uint64((9 * 24 * time.Hour).Milliseconds()):
		t.Errorf("valid for %d ms", c.NotAfter-c.NotBefore)
	case len(d.errs) != 0:
		t.Error(d.errs)
	}
	// The roster has all that others need to know the node.
	other := w.node(produce, []string{"orders"}, nil)
	other.sync()
	if other.roster.creds[c.Serial] == nil {
		t.Error("the credential is not on the roster")
	}
}

func TestABurntTicketHoldsNoSecret(t *testing.T) {
	w := newWorld(t)
	d := newDesk(w)
	ticket := d.ticket(attributes(t, produce, []string{"orders"}, nil))
	a := w.apply(ticket, w.fresh())
	a.write()
	d.work()
	secrets := [][]byte{ticket.PSK[:], bytes.Clone(d.book.tickets[ticket.ID].attempts[0].ephemeral[:])}
	for _, s := range secrets {
		if !bytes.Contains(d.book.Marshal(), s) {
			t.Fatal("a secret that is looked for was never in the book")
		}
	}
	d.run(a)
	for _, s := range secrets {
		if bytes.Contains(d.book.Marshal(), s) {
			t.Error("a burnt ticket's secret is in the book")
		}
	}
}

func TestSecondUseOfATicketIsAnAlarm(t *testing.T) {
	w := newWorld(t)
	d := newDesk(w)
	ticket := d.ticket(attributes(t, produce, []string{"orders"}, nil))
	first, second := w.apply(ticket, w.fresh()), w.apply(ticket, w.fresh())
	d.run(first)
	for range 3 {
		second.write()
		d.work()
	}
	if n := d.said(ErrSecondUse); n != 1 {
		t.Errorf("%d alarms, want 1: %v", n, d.errs)
	}
	if done, _ := second.follow(); done || second.Answered() {
		t.Error("a burnt ticket was answered")
	}
}

// TestAReplayedFirstMessageChangesNothing has the broker repeat message 1 where it can, under
// the attempt's own key and under another one.
func TestAReplayedFirstMessageChangesNothing(t *testing.T) {
	w := newWorld(t)
	d := newDesk(w)
	s := w.fresh()
	a := w.apply(d.ticket(attributes(t, produce, []string{"orders"}, nil)), s)
	hello := a.Record()
	other := wire.EnrolmentKey{Ticket: a.ticket.ID, Attempt: wire.Attempt{9}, Step: 1}
	replay := func() {
		w.roster = append(w.roster, Record{Key: other.Append(nil), Value: hello.Value}, hello, hello)
		d.work()
	}
	replay()
	if _, err := a.follow(); err != nil || !a.Answered() {
		t.Fatalf("not answered: %v", err)
	}
	replay()
	a.write()
	d.work()
	replay()
	if done, err := a.follow(); !done || err != nil {
		t.Fatalf("not enrolled: %v; %v", err, d.errs)
	}
	if len(d.errs) != 0 || len(d.book.tickets[a.ticket.ID].attempts) != 1 {
		t.Errorf("%d attempts, %v", len(d.book.tickets[a.ticket.ID].attempts), d.errs)
	}
}

// TestEveryBitOfAnEnrolmentCounts flips each byte of each message on its way: it is ignored,
// and the true message still works.
func TestEveryBitOfAnEnrolmentCounts(t *testing.T) {
	w := newWorld(t)
	d := newDesk(w)
	s := w.fresh()
	a := w.apply(d.ticket(attributes(t, produce, []string{"orders"}, nil)), s)
	bent := func(rec Record, i int) Record {
		v := bytes.Clone(rec.Value)
		v[i] ^= 1 << (i % 8)
		return Record{Key: rec.Key, Value: v}
	}
	refuse := func(rec Record) {
		t.Helper()
		for i := range rec.Value {
			b := bent(rec, i)
			out, err := d.book.Enrol(w.rand, w.issuer, b.Key, b.Value, w.now)
			if err == nil || len(out) != 0 {
				t.Fatalf("byte %d of message %d counts for nothing", i, rec.Key[len(rec.Key)-1])
			}
		}
		for n := range rec.Value {
			if out, err := d.book.Enrol(w.rand, w.issuer, rec.Key, rec.Value[:n], w.now); err == nil || len(out) != 0 {
				t.Fatalf("%d bytes of message %d are answered", n, rec.Key[len(rec.Key)-1])
			}
		}
	}
	ignore := func(rec Record) {
		t.Helper()
		for i := range rec.Value {
			if done, err := a.Receive(rec.Key, bent(rec, i).Value, w.now); done || err == nil {
				t.Fatalf("byte %d of message %d counts for nothing", i, rec.Key[len(rec.Key)-1])
			}
		}
	}
	answer := func() Record {
		t.Helper()
		rec := a.Record()
		out, err := d.book.Enrol(w.rand, w.issuer, rec.Key, rec.Value, w.now)
		if err != nil {
			t.Fatal(err)
		}
		return out[len(out)-1]
	}
	refuse(a.Record())
	second := answer()
	ignore(second)
	if done, err := a.Receive(second.Key, second.Value, w.now); done || err != nil {
		t.Fatal(err)
	}
	refuse(a.Record())
	fourth := answer()
	ignore(fourth)
	if done, err := a.Receive(fourth.Key, fourth.Value, w.now); !done || err != nil {
		t.Fatal(err)
	}
	if s.Node().Check(w.now) != nil {
		t.Error("not enrolled")
	}
}

func TestWhatDoesNotAuthenticateIsIgnored(t *testing.T) {
	for name, spoil := range map[string]func(*wire.Ticket){
		"another psk":    func(t *wire.Ticket) { t.PSK[0]++ },
		"another ticket": func(t *wire.Ticket) { t.ID[0]++ },
		"another realm":  func(t *wire.Ticket) { t.Root[0]++ },
		"another issuer": func(t *wire.Ticket) { t.Static[0]++ },
	} {
		w := newWorld(t)
		d := newDesk(w)
		ticket := d.ticket(attributes(t, produce, []string{"orders"}, nil))
		wrong := *ticket
		spoil(&wrong)
		a := w.apply(&wrong, w.fresh())
		a.write()
		d.work()
		if _, err := a.follow(); err != nil || a.Answered() || len(d.errs) != 1 {
			t.Errorf("%s: answered %v, %v, %v", name, a.Answered(), err, d.errs)
		}
		d.run(w.apply(ticket, w.fresh())) // it is as good as before
	}
}

func TestEndedTicketIsGoodForNothing(t *testing.T) {
	w := newWorld(t)
	d := newDesk(w)
	ticket := d.ticket(attributes(t, produce, []string{"orders"}, nil))
	late := w.apply(ticket, w.fresh())
	w.pass(time.Hour + 2*time.Minute)
	late.write()
	d.work()
	if _, err := late.follow(); err != nil || late.Answered() || len(d.errs) != 1 {
		t.Errorf("answered %v, %v, %v", late.Answered(), err, d.errs)
	}
	if _, err := NewEnrolment(ticket, w.fresh(), w.rand, w.now); err == nil || !strings.Contains(err.Error(), "ended") {
		t.Errorf("begun: %v", err)
	}
	tombs := d.book.Expire(w.now)
	if len(d.book.tickets) != 0 || bytes.Contains(d.book.Marshal(), ticket.PSK[:]) {
		t.Error("the book keeps an ended ticket")
	}
	for _, rec := range tombs {
		if rec.Value != nil {
			t.Error("no tombstone")
		}
	}
}

// TestARequestOfAnotherHandshakeIsRefused has a holder of the ticket send a request that was
// signed for another handshake: the ticket is burnt, and nobody gets a credential.
func TestARequestOfAnotherHandshakeIsRefused(t *testing.T) {
	w := newWorld(t)
	d := newDesk(w)
	ticket := d.ticket(attributes(t, produce, []string{"orders"}, nil))
	a, victim := w.apply(ticket, w.fresh()), w.fresh()
	a.write()
	d.work()
	if _, err := a.follow(); err != nil || !a.Answered() {
		t.Fatal(err)
	}
	c, err := finish(ticket, &a.ephemeral, a.second)
	if err != nil {
		t.Fatal(err)
	}
	stolen := victim.Node().csr(attributesOf(ticket), wire.Digest{1}).Append(nil)
	if a.request, err = c.fromNode.Encrypt(nil, nil, stolen); err != nil {
		t.Fatal(err)
	}
	a.write()
	before := len(w.roster)
	d.work()
	if len(w.roster) != before || d.said(ErrUnauthentic) != 1 || !d.book.tickets[ticket.ID].burnt {
		t.Errorf("%d records were written: %v", len(w.roster)-before, d.errs)
	}
}

// TestANodeThatLostTheAnswerFindsItsCredential ends the node's process when its ticket is
// burnt: the next run needs no handshake.
func TestANodeThatLostTheAnswerFindsItsCredential(t *testing.T) {
	w := newWorld(t)
	d := newDesk(w)
	ticket := d.ticket(attributes(t, produce, []string{"orders"}, nil))
	s := w.fresh()
	a := w.apply(ticket, s)
	for range 2 {
		a.write()
		d.work()
		if !a.Answered() {
			if _, err := a.follow(); err != nil {
				t.Fatal(err)
			}
		}
	}
	next, err := ParseState(s.Marshal())
	if err != nil {
		t.Fatal(err)
	}
	if done, err := w.apply(ticket, next).follow(); !done || err != nil || next.Node().Check(w.now) != nil {
		t.Errorf("%v, %v, %v", done, err, next.Node().Check(w.now))
	}
}

// TestACredentialOfAnotherRealmIsNotTaken puts credentials for the node's key on the roster
// that no issuer of its ticket's realm signed.
func TestACredentialOfAnotherRealmIsNotTaken(t *testing.T) {
	w, other := newWorld(t), newWorld(t)
	d := newDesk(w)
	s := w.fresh()
	want := attributes(t, produce, []string{"orders"}, nil)
	a := w.apply(d.ticket(want), s)
	foreign, err := other.issuer.certify(w.rand, s.Node().ID(), 0, s.Node().PublicKey(), want, w.validity())
	if err != nil {
		t.Fatal(err)
	}
	forged := *foreign
	forged.Realm, forged.Issuer = w.root.Realm(), w.issuer.cert.Subject
	w.roster = append(w.roster, chainRecords(foreign, &other.issuer.cert)...)
	w.roster = append(w.roster, chainRecords(&forged, &w.issuer.cert)...)
	if done, _ := a.follow(); done || s.Node().Credential() != nil {
		t.Error("taken")
	}
}

// TestAnIssuerGivesCredentialsOfItsTicketsRealmOnly has the holder of the ticket's static key
// answer with the chain of another realm.
func TestAnIssuerGivesCredentialsOfItsTicketsRealmOnly(t *testing.T) {
	w, other := newWorld(t), newWorld(t)
	d := newDesk(w)
	s := w.fresh()
	want := attributes(t, produce, []string{"orders"}, nil)
	a := w.apply(d.ticket(want), s)
	a.write()
	d.work()
	if _, err := a.follow(); err != nil || !a.Answered() {
		t.Fatal(err)
	}
	foreign, err := other.issuer.certify(w.rand, s.Node().ID(), 0, s.Node().PublicKey(), want, w.validity())
	if err != nil {
		t.Fatal(err)
	}
	stored := d.book.tickets[a.ticket.ID]
	_, c, err := answer(&stored.ticket, &d.book.static, &stored.attempts[0].ephemeral, stored.attempts[0].first[:])
	if err != nil {
		t.Fatal(err)
	}
	message, err := c.fromIssuer.Encrypt(nil, nil, other.issuer.chainOf(foreign))
	if err != nil {
		t.Fatal(err)
	}
	if done, err := a.Receive(a.key(4).Append(nil), message, w.now); !done || !errors.Is(err, ErrUnauthentic) || s.Node().Credential() != nil {
		t.Errorf("%v, %v", done, err)
	}
}

// TestHandshakeIsThatOfTheProtocol spells out PROTOCOL.md §2.12 and compares message 1.
func TestHandshakeIsThatOfTheProtocol(t *testing.T) {
	w := newWorld(t)
	ticket := newDesk(w).ticket(attributes(t, produce, []string{"orders"}, nil))
	ephemeral := secretKey{1, 2, 3}
	_, got, err := hello(ticket, &ephemeral)
	if err != nil {
		t.Fatal(err)
	}
	realm := w.root.Realm()
	hs, err := noise.NewHandshakeState(noise.Config{
		CipherSuite: noise.NewCipherSuite(noise.DH25519, noise.CipherChaChaPoly, noise.HashSHA256),
		Random:      bytes.NewReader(ephemeral[:]), Pattern: noise.HandshakeNK, Initiator: true, PeerStatic: ticket.Static[:],
		Prologue: []byte("KX1 enrol v1\x00" + string(realm[:]) + string(ticket.ID[:])), PresharedKey: ticket.PSK[:],
	})
	if err != nil {
		t.Fatal(err)
	}
	if want, _, _, err := hs.WriteMessage(nil, nil); err != nil || !bytes.Equal(got[:], want) {
		t.Errorf("message 1 is %x, want %x: %v", got, want, err)
	}
}

func TestACredentialByTicketEndsWithItsIssuer(t *testing.T) {
	w := newWorld(t)
	d := newDesk(w)
	w.pass(364 * 24 * time.Hour)
	s := w.fresh()
	d.run(w.apply(d.ticket(attributes(t, produce, []string{"orders"}, nil)), s))
	if got, want := s.Node().Credential().NotAfter, w.issuer.cert.NotAfter; got != want {
		t.Errorf("it ends at %d, its issuer's at %d", got, want)
	}
}

func TestTicketLineIsCopiedWholeOrRefused(t *testing.T) {
	w := newWorld(t)
	d := newDesk(w)
	ticket := d.ticket(attributes(t, consume, []string{"orders"}, []string{"billing"}))
	line := MarshalTicket(ticket)
	for i := range line {
		bad := bytes.Clone(line)
		bad[i] ^= 1
		if _, err := ParseTicket(bad); err == nil {
			t.Fatalf("byte %d counts for nothing", i)
		}
		if _, err := ParseTicket(line[:i]); err == nil {
			t.Fatalf("%d bytes are a ticket", i)
		}
	}
	var none wire.Ticket = *ticket
	none.PSK = [32]byte{}
	if _, err := ParseTicket(MarshalTicket(&none)); err == nil || !strings.Contains(err.Error(), "no key") {
		t.Errorf("without psk: %v", err)
	}
	if _, _, err := hello(&none, &secretKey{1}); err == nil {
		t.Error("a handshake began without psk")
	}
}

func TestADamagedBookIsRefused(t *testing.T) {
	w := newWorld(t)
	d := newDesk(w)
	d.run(w.apply(d.ticket(attributes(t, produce, []string{"orders"}, nil)), w.fresh()))
	d.ticket(attributes(t, produce, []string{"orders"}, nil))
	b := d.book.Marshal()
	for i := range b {
		bad := bytes.Clone(b)
		bad[i] ^= 0x40
		if _, err := ParseBook(bad); err == nil {
			t.Fatalf("byte %d counts for nothing", i)
		}
		if i%7 == 0 {
			if _, err := ParseBook(b[:i]); err == nil {
				t.Fatalf("%d bytes are a book", i)
			}
		}
	}
}
