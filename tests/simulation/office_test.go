package simulation

import (
	"errors"
	"io"
	"slices"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// validity is V.
const validity = 9 * 24 * time.Hour

// An office is the realm's issuer at work, with a clock of its own.
type office struct {
	*fleet
	clock  clock
	random io.Reader
	issuer *keyring.Issuer
	book   *keyring.Book
	roster *keyring.Roster
	read   int64
	up     bool
	next   time.Time // when the AuthorityState is due
	revoke []wire.Revocation
}

func (o *office) now() time.Time { return o.clock.at(o.fleet.now) }

// restart ends the process and starts another one on its book.
func (o *office) restart() {
	b := o.book.Marshal()
	o.most("bytes of the issuer's book", len(b))
	o.book.Wipe()
	var err error
	o.book, err = keyring.ParseBook(b)
	o.must(err)
	o.roster, o.read = o.issuer.Roster(timing), 0
}

// work answers what stands on the roster, and keeps the AuthorityState fresh. Bundles and
// requests of peers are none of its business.
func (o *office) work() {
	now := o.now()
	for _, s := range o.broker.roster.from(o.read) {
		o.read = s.offset + 1
		if o.broker.roster.superseded(s) {
			continue
		}
		var out []keyring.Record
		var err error
		switch wire.Type(s.Key[0]) {
		case wire.TypeCredential, wire.TypeAuthorityState:
			err = o.roster.Apply(s.Key, s.Value, now)
		case wire.TypeEnrolment:
			out, err = o.book.Enrol(o.random, o.issuer, s.Key, s.Value, now)
		case wire.TypeRenewal:
			q, _ := wire.ParseRenewal(s.Value)
			out, err = o.book.Renew(o.random, o.issuer, o.roster, s.Key, s.Value, now)
			if m := o.members[q.Node]; errors.Is(err, abi.StatusNotEntitled) && !m.revoked.IsZero() {
				o.count("renewals refused: revoked", 1)
				err = nil
			}
		}
		if err != nil {
			o.fail("alarm at the issuer: %v", err)
		}
		o.accept(out...)
	}
	if len(o.revoke) == 0 && o.fleet.now.Before(o.next) {
		return
	}
	o.next = o.fleet.now.Add(keyring.StateValidity / 2)
	a, err := o.issuer.NextState(o.book.Authority(), append(o.revoke, o.book.Forked(o.roster, now)...), now, keyring.StateValidity)
	o.must(err)
	o.revoke = nil
	o.book.NoteAuthority(a)
	o.accept(keyring.Record{Key: a.Key(), Value: a.Append(nil)})
	o.accept(o.book.Expire(now)...)
}

// strike revokes every credential of a node.
func (o *office) strike(n *node) {
	for _, c := range o.members[n.id()].creds {
		o.revoke = append(o.revoke, wire.Revocation{Serial: c.Serial, At: uint64(o.now().UnixMilli())})
	}
}

// accept appends records to the roster.
func (f *fleet) accept(records ...keyring.Record) {
	for _, rec := range records {
		f.note(rec)
		f.broker.roster.append(rec, f.now)
	}
}

// enrol takes a node through a ticket and starts it.
func (o *office) enrol(n *node) {
	want := keyring.Attributes{OfflineAllow: timing.Offline}
	if len(n.produces) > 0 {
		want.Roles |= wire.RoleProduce
	}
	if len(n.consumes) > 0 {
		want.Roles |= wire.RoleConsume | wire.RoleShare
		want.Groups = []wire.Pattern{{Name: n.group}}
	}
	for _, topic := range slices.Concat(n.produces, n.consumes) {
		want.Topics = append(want.Topics, wire.Pattern{Name: topic})
	}
	t, err := o.book.NewTicket(o.random, o.issuer, want, o.now().Add(time.Hour), validity, o.now())
	o.must(err)
	line := keyring.MarshalTicket(t)
	t.Wipe()
	t, err = keyring.ParseTicket(line)
	o.must(err)
	s, err := keyring.NewState(n.random)
	o.must(err)
	e, err := keyring.NewEnrolment(t, s, n.random, n.now())
	o.must(err)
	for read := o.broker.roster.next; ; {
		o.accept(e.Record())
		o.work()
		for _, rec := range o.broker.roster.from(read) {
			read = rec.offset + 1
			done, err := e.Receive(rec.Key, rec.Value, n.now())
			if err != nil {
				o.t.Fatalf("%v: enrolment of %s: %v", o.fleet.now.Sub(began), n.name, err)
			}
			if done {
				e.Wipe()
				n.start(s)
				o.members[n.id()].node = n
				if g := o.groups[n.group]; g != nil {
					g.members = append(g.members, n)
				}
				return
			}
		}
		if read > o.read+100 {
			o.t.Fatalf("%s is not enrolled", n.name)
		}
	}
}
