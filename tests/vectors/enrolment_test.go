package vectors

import (
	"bytes"
	"encoding/pem"
	"slices"
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// A desk is a vector's issuer.
type desk struct {
	issuer *keyring.Issuer
	book   *keyring.Book
	roster *keyring.Roster
}

func newDesk(t *testing.T, v *Decision) *desk {
	t.Helper()
	issuer, err := keyring.ParseIssuer(pem.EncodeToMemory(&pem.Block{Type: "KX1 ISSUER PRIVATE KEY", Bytes: slices.Concat(v.Identity, v.Root, v.Certificate)}))
	if err != nil {
		t.Fatal(err)
	}
	book, err := keyring.NewBook(bytes.NewReader(v.Static))
	if err != nil {
		t.Fatal(err)
	}
	for _, made := range v.Tickets {
		want, err := keyring.ParseTicket([]byte(made.Line))
		if err != nil {
			t.Fatal(err)
		}
		at := time.UnixMilli(int64(made.Made))
		// A ticket is tried out, with a serial, before its id and psk are drawn.
		drawn := slices.Concat(make([]byte, 16), want.ID[:], want.PSK[:])
		got, err := book.NewTicket(bytes.NewReader(drawn), issuer, keyring.Attributes{
			Roles: want.Roles, Topics: want.Topics, Groups: want.Groups, OfflineAllow: time.Duration(want.OfflineAllow) * time.Second,
		}, time.UnixMilli(int64(want.NotAfter)), time.Duration(made.Validity)*time.Millisecond, at)
		if err != nil || string(keyring.MarshalTicket(got)) != made.Line {
			t.Fatalf("the issuer makes another ticket (%v)", err)
		}
	}
	return &desk{issuer, book, issuer.Roster(keyring.DefaultTiming())}
}

func (d *desk) read(t *testing.T, r *DecisionRecord) (out []keyring.Record, err error) {
	t.Helper()
	now := time.UnixMilli(int64(r.Now))
	if err := d.roster.Apply(r.Key, r.Value, now); err != nil {
		t.Fatal(err)
	}
	drawn := bytes.NewReader(r.Drawn)
	switch wire.Type(r.Key[0]) {
	case wire.TypeEnrolment:
		out, err = d.book.Enrol(drawn, d.issuer, r.Key, r.Value, now)
	case wire.TypeRenewal:
		out, err = d.book.Renew(drawn, d.issuer, d.roster, r.Key, r.Value, now)
	}
	// What it has written it reads like everybody.
	for _, rec := range out {
		if err := d.roster.Apply(rec.Key, rec.Value, now); err != nil {
			t.Fatal(err)
		}
	}
	return out, err
}

func sameAnswers(got []keyring.Record, want []Answer) bool {
	return slices.EqualFunc(got, want, func(r keyring.Record, a Answer) bool {
		return bytes.Equal(r.Key, a.Key) && bytes.Equal(r.Value, a.Value)
	})
}

func TestIssuersDecideAsPublished(t *testing.T) {
	all, err := Decisions()
	if err != nil {
		t.Fatal(err)
	}
	for i := range all {
		v := &all[i]
		t.Run(v.Name, func(t *testing.T) {
			d := newDesk(t, v)
			for i := range v.Before {
				if _, err := d.read(t, &v.Before[i]); err != nil {
					t.Fatalf("record %d before: %v", i, err)
				}
			}
			out, err := d.read(t, &v.Record)
			if kind := kindOf(err); kind != v.Want.Kind {
				t.Errorf("%s (%v), want %s", kind, err, v.Want.Kind)
			}
			if !sameAnswers(out, v.Want.Answers) {
				t.Errorf("answers %x, want %x", out, v.Want.Answers)
			}
			var revokes []Bytes
			for _, r := range d.book.Forked(d.roster, time.UnixMilli(int64(v.Record.Now))) {
				revokes = append(revokes, Bytes(r.Serial[:]))
			}
			slices.SortFunc(revokes, func(a, b Bytes) int { return bytes.Compare(a, b) })
			if !equal(revokes, v.Want.Revokes) {
				t.Errorf("revokes %x, want %x", revokes, v.Want.Revokes)
			}
		})
	}
}

func TestNodesEnrolAsPublished(t *testing.T) {
	all, err := Enrolments()
	if err != nil {
		t.Fatal(err)
	}
	for i := range all {
		v := &all[i]
		t.Run(v.Name, func(t *testing.T) {
			ticket, err := keyring.ParseTicket([]byte(v.Ticket))
			if err != nil {
				if v.Want.Kind != Malformed || len(v.Messages) != 0 {
					t.Errorf("ticket: %v, want %s", err, v.Want.Kind)
				}
				return
			}
			state, err := keyring.NewState(bytes.NewReader(v.Identity))
			if err != nil {
				t.Fatal(err)
			}
			now := time.UnixMilli(int64(v.Now))
			node, err := keyring.NewEnrolment(ticket, state, bytes.NewReader(slices.Concat(v.Attempt, v.Ephemeral)), now)
			if err != nil {
				if kind := kindOf(err); kind != v.Want.Kind || len(v.Want.Wrote) != 0 {
					t.Errorf("%s (%v), want %s", kind, err, v.Want.Kind)
				}
				return
			}
			wrote := []keyring.Record{node.Record()}
			err = nil
			for i, m := range v.Messages {
				if err != nil {
					t.Fatalf("message %d: %v", i, err)
				}
				if _, err = node.Receive(m.Key, m.Value, now); node.Answered() && len(wrote) == 1 {
					wrote = append(wrote, node.Record())
				}
			}
			if kind := kindOf(err); kind != v.Want.Kind {
				t.Errorf("%s (%v), want %s", kind, err, v.Want.Kind)
			}
			if !sameAnswers(wrote, v.Want.Wrote) {
				t.Errorf("wrote %x, want %x", wrote, v.Want.Wrote)
			}
			var held []byte
			if c := state.Node().Credential(); c != nil {
				held = c.Append(nil)
			}
			if !bytes.Equal(held, v.Want.Credential) {
				t.Errorf("holds %x, want %x", held, v.Want.Credential)
			}
		})
	}
}
