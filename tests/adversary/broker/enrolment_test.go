package broker

import (
	"bytes"
	"context"
	"crypto/ed25519"
	crand "crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/agent"
	"github.com/wasm-e2ee/wasm-e2ee/host/issuer"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// issuing runs the realm's issuer until the test ends.
func (w *world) issuing() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- issuer.Run(ctx, issuer.Config{Issuer: w.issuer, Book: w.book(), Kafka: []kgo.Opt{kgo.SeedBrokers(w.addr), kgo.ClientID(issuerClient)},
			Log: slog.New(slog.NewTextHandler(w.log, nil)).With("sidecar", "issuer")})
	}()
	w.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("issuer: %v", err)
		}
	})
	if !eventually(20*time.Second, func() bool { return w.state() != nil }) {
		w.t.Fatalf("the issuer writes no state:\n%s", w.log.from(0))
	}
}

func (w *world) book() string { return filepath.Join(w.dir, issuer.BookFile) }

// enrolled has a node enrol with a ticket, and returns the messages of that.
func (w *world) enrolled() (messages []controlRecord, ok bool) {
	var ticket *wire.Ticket
	now := time.Now()
	err := issuer.Update(w.t.Context(), w.book(), func(b *keyring.Book) {
		var err error
		if ticket, err = b.NewTicket(crand.Reader, w.issuer, readers(wire.RoleConsume), now.Add(time.Hour), time.Hour, now); err != nil {
			w.t.Error(err)
		}
	})
	must(w.t, err)
	mark := max(0, w.log.size()-100)
	state := filepath.Join(w.dir, fmt.Sprintf("enrolled-%v.state", ticket.ID))
	for range 4 { // an answer that is hidden is not written again: who runs enroll again finds it
		if err = w.enrolOnce(state, ticket, 10*time.Second); err == nil {
			break
		}
	}
	if err != nil {
		w.t.Errorf("a node does not enrol: %v\n%s", err, w.log.about(mark, "sidecar=issuer", "sidecar=enrol"))
		return nil, false
	}
	for _, r := range w.seen.of(wire.TypeEnrolment) {
		if k, err := wire.ParseEnrolmentKey(r.key); err == nil && k.Ticket == ticket.ID {
			messages = append(messages, r)
		}
	}
	return messages, len(messages) >= wire.EnrolmentSteps
}

func (w *world) enrolOnce(state string, ticket *wire.Ticket, limit time.Duration) error {
	store, err := agent.OpenStore(state)
	must(w.t, err)
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return errors.Join(agent.Enrol(ctx, []kgo.Opt{kgo.SeedBrokers(w.addr)}, store, ticket, slog.New(slog.NewTextHandler(w.log, nil)).With("sidecar", "enrol")), store.Close())
}

// credentials is how many different ones the issuer wrote for a node.
func (w *world) credentials(node wire.NodeID) int {
	serials := map[wire.Serial]bool{}
	for _, r := range w.seen.of(wire.TypeCredential) {
		if c, err := wire.ParseCredential(r.value); err == nil && c.Node == node {
			serials[c.Serial] = true
		}
	}
	return len(serials)
}

// enrolledDespite reports whether a node enrols although one answer of the issuer is dropped.
func (w *world) enrolledDespite(step uint8) bool {
	first := true
	release := w.edit.keepBack(func(r *kafka.Record) bool {
		k, err := wire.ParseEnrolmentKey(r.Key)
		if err != nil || k.Step != step || !first {
			return false
		}
		first = false
		return true
	})
	defer release()
	_, ok := w.enrolled()
	return ok && !first
}

func enrolmentActions() []*action {
	const ignored = nothing + ": what does not authenticate is ignored (§2.12)"
	return []*action{
		{name: "drop the answer to an enrolment", outside: denial + "; the node finds its credential on the roster, or asks again",
			script: func(tr *traffic, _ place) bool { return tr.w.enrolledDespite(4) }},
		{name: "drop the first answer to a ticket", outside: denial + "; enroll is run again, with the same ticket",
			script: func(tr *traffic, _ place) bool { return tr.w.enrolledDespite(2) }},
		{name: "replay an enrolment", outside: nothing + ": an equal message gets the same answer", script: func(tr *traffic, _ place) bool {
			w := tr.w
			messages, ok := w.enrolled()
			before := len(w.credentialSerials())
			for _, m := range messages {
				ok = ok && w.roster(m.key, m.value)
			}
			if time.Sleep(300 * time.Millisecond); len(w.credentialSerials()) != before {
				w.t.Error("a replayed enrolment brought another credential")
			}
			return ok
		}},
		{name: "exchange the messages of two enrolments", outside: ignored, script: func(tr *traffic, _ place) bool {
			w := tr.w
			one, ok := w.enrolled()
			two, also := w.enrolled()
			before := len(w.credentialSerials())
			for i := range min(len(one), len(two)) {
				// Message 1 of a burnt ticket is another action.
				if k, err := wire.ParseEnrolmentKey(one[i].key); err == nil && k.Step != 1 {
					ok = ok && w.roster(one[i].key, two[i].value)
				}
			}
			if time.Sleep(300 * time.Millisecond); len(w.credentialSerials()) != before {
				w.t.Error("exchanged messages brought another credential")
			}
			return ok && also
		}},
		{name: "use a burnt ticket", detected: "alarm=ticket_reuse", script: func(tr *traffic, _ place) bool {
			w := tr.w
			messages, ok := w.enrolled()
			if !ok {
				return false
			}
			k, err := wire.ParseEnrolmentKey(messages[0].key)
			must(w.t, err)
			k.Attempt[0] ^= 1
			value := bytes.Clone(messages[0].value)
			value[0] ^= 1
			return w.roster(k.Append(nil), value)
		}},
		{name: "replay a Renewal", outside: nothing + ": it gets the same credential", script: func(tr *traffic, _ place) bool {
			w := tr.w
			m := w.joined()
			q, _ := m.renewal()
			return w.renewed(m, q, 1) && w.renewed(m, q, 1)
		}},
		{name: "a Renewal under another's key", outside: ignored, script: func(tr *traffic, _ place) bool {
			w := tr.w
			m := w.joined()
			q, _ := m.renewal()
			copy(q.key[1:], w.consumerCred.Node[:])
			return w.renewed(w.mallory, q, 0)
		}},
		{name: "a Renewal in another's name", outside: ignored, script: func(tr *traffic, _ place) bool {
			w := tr.w
			thief := member{w.mallory.key, w.consumerCred}
			q, _ := thief.renewal()
			before := w.credentials(w.consumerCred.Node)
			ok := w.roster(q.key, q.value)
			if time.Sleep(300 * time.Millisecond); w.credentials(w.consumerCred.Node) != before {
				w.t.Error("a member renewed the credential of another")
			}
			return ok
		}},
		{name: "renew with a stolen key", detected: "alarm=fork", script: func(tr *traffic, _ place) bool {
			w := tr.w
			m := w.joined()
			own, _ := m.renewal()
			thief, _ := m.renewal()
			if !w.renewed(m, own, 1) || !w.roster(thief.key, thief.value) {
				return false
			}
			return eventually(15*time.Second, func() bool {
				return slices.ContainsFunc(w.state().Revoked, func(r wire.Revocation) bool { return r.Serial == m.cred.Serial })
			})
		}},
	}
}

// credentialSerials are the credentials that issuer and agents wrote.
func (w *world) credentialSerials() map[wire.Serial]bool {
	serials := map[wire.Serial]bool{}
	for _, r := range w.seen.of(wire.TypeCredential) {
		if c, err := wire.ParseCredential(r.value); err == nil {
			serials[c.Serial] = true
		}
	}
	return serials
}

// joined is a member of its own whose key the broker has, on the roster.
func (w *world) joined() member {
	m := w.newMember(keyring.Attributes{Roles: wire.RoleConsume, Topics: []wire.Pattern{{Name: "of-her-own"}}, OfflineAllow: time.Hour})
	if !w.roster(m.cred.Key(), m.cred.Append(nil)) {
		w.t.Error("the roster was not written")
	}
	return m
}

// renewal asks for the member's next credential, for a fresh key.
func (m *member) renewal() (controlRecord, ed25519.PrivateKey) {
	pub, key, err := ed25519.GenerateKey(crand.Reader)
	if err != nil {
		panic(err)
	}
	q := &wire.Renewal{Realm: m.cred.Realm, Node: m.cred.Node, Credential: m.cred.Serial, Subject: wire.PublicKey(pub)}
	next := member{key, m.cred}
	m.sign(wire.TypeRenewal, q.AppendBody(nil), &q.OldKey)
	next.sign(wire.TypeRenewal, q.AppendBody(nil), &q.NewKey)
	return controlRecord{0, q.Key(), q.Append(nil)}, key
}

// renewed writes a renewal and reports whether the issuer has then written that many
// credentials of the member, and no more.
func (w *world) renewed(m member, q controlRecord, want int) bool {
	if !w.roster(q.key, q.value) {
		return false
	}
	ok := eventually(10*time.Second, func() bool { return w.credentials(m.cred.Node) >= want })
	if time.Sleep(300 * time.Millisecond); w.credentials(m.cred.Node) > want {
		w.t.Errorf("%d credentials for one renewal", w.credentials(m.cred.Node))
	}
	return ok
}
