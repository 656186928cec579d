package interop

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

func ticketFields(k *wire.Ticket) object {
	return object{
		"ticket_id": octets(k.ID[:]), "psk": octets(k.PSK[:]), "static": octets(k.Static[:]), "root_pub": octets(k.Root[:]), "not_after": k.NotAfter,
		"offline_allow_s": k.OfflineAllow, "roles": uint16(k.Roles), "topics": patternFields(k.Topics), "groups": patternFields(k.Groups),
	}
}

// step has one of the peer's ends take a step of an enrolment.
func (p *peer) step(session, step string, args object, result any) (refused string) {
	p.t.Helper()
	all := object{"session": session, "step": step}
	for k, v := range args {
		all[k] = v
	}
	return p.ask("enrol", all, result)
}

func (p *peer) mustStep(session, step string, args object, result any) {
	p.t.Helper()
	if refused := p.step(session, step, args, result); refused != "" {
		p.t.Fatalf("%s, %s: refused: %s", session, step, refused)
	}
}

// enrolmentKey is the Kafka key of a message, which the peer must read too.
func (x *exchange) enrolmentKey(k wire.EnrolmentKey) []byte {
	x.Helper()
	key := k.Append(nil)
	var got read
	x.peer.must("read_enrolment_key", object{"data": octets(key)}, &got)
	if !bytes.Equal(got.Key, key) {
		x.Errorf("enrolment key: the peer's is %x, ours %x", []byte(got.Key), key)
	}
	return key
}

// attributes are some that a ticket may grant.
func (x *exchange) attributes() keyring.Attributes {
	a := keyring.Attributes{Roles: wire.RoleConsume | wire.Roles(x.IntN(2))*wire.RoleProduce, OfflineAllow: time.Duration(x.IntN(1e6)) * time.Second}
	for _, topic := range x.topics() {
		a.Topics = append(a.Topics, wire.Pattern{Name: topic})
	}
	a.Groups = []wire.Pattern{{Prefix: true, Name: "b"}}
	return a
}

// TestPythonEnrolsWithGo: the node is the peer's, the issuer and its ticket are ours.
func TestPythonEnrolsWithGo(t *testing.T) {
	x := newExchange(t)
	for range rounds {
		root, err := keyring.NewRealm(x.source)
		x.must(err)
		issuer, err := root.CertifyIssuer(x.source, x.now.Add(-time.Hour), x.now.Add(365*24*time.Hour))
		x.must(err)
		book, err := keyring.NewBook(x.source)
		x.must(err)
		ticket, err := book.NewTicket(x.source, issuer, x.attributes(), x.now.Add(time.Hour), 9*24*time.Hour, x.now)
		x.must(err)
		line := string(keyring.MarshalTicket(ticket))
		var got read
		x.peer.must("read_ticket", object{"text": line}, &got)
		differ(t, "ticket", got.Fields, ticketFields(ticket))

		seed := x.bytes(32)
		pub, node, _ := x.identity(seed)
		attempt := wire.Attempt(x.bytes(8))
		key := func(n uint8) []byte {
			return x.enrolmentKey(wire.EnrolmentKey{Ticket: ticket.ID, Attempt: attempt, Step: n})
		}
		answer := func(n uint8, message octets) octets {
			t.Helper()
			out, err := book.Enrol(x.source, issuer, key(n), message, x.now)
			x.must(err)
			last := out[len(out)-1]
			if !bytes.Equal(last.Key, key(n+1)) {
				t.Fatalf("answer under key %x", last.Key)
			}
			return last.Value
		}
		x.peer.mustStep("node", "Node", object{"ticket": line, "ephemeral": x.bytes(32)}, nil)
		var first, third octets
		x.peer.mustStep("node", "write1", nil, &first)
		second := answer(1, first)
		csr := wire.CSR{Subject: pub, OfflineAllow: ticket.OfflineAllow, Roles: ticket.Roles, Topics: ticket.Topics, Groups: ticket.Groups}
		x.peer.mustStep("node", "write3", object{"message2": second, "csr": csrFields(&csr), "seed": seed}, &third)
		var chain []object
		x.peer.mustStep("node", "read4", object{"message": answer(3, third), "subject_pub": octets(pub[:])}, &chain)
		if len(chain) != 2 {
			t.Fatalf("a chain of %d", len(chain))
		}
		own, err := wire.ParseCredential(mustAnswer(t, book, x, issuer, key(3), third))
		x.must(err)
		differ(t, "credential", chain[0], credentialFields(own))
		differ(t, "certificate", chain[1], credentialFields(issuer.Certificate()))
		if own.Node != node || own.Subject != pub {
			t.Errorf("the credential is %v's, not %v's", own.Node, node)
		}

		// A ticket with another psk opens nothing.
		other, err := book.NewTicket(x.source, issuer, x.attributes(), x.now.Add(time.Hour), time.Hour, x.now)
		x.must(err)
		other.PSK[x.IntN(32)] ^= 1
		x.peer.mustStep("other", "Node", object{"ticket": string(keyring.MarshalTicket(other)), "ephemeral": x.bytes(32)}, nil)
		x.peer.mustStep("other", "write1", nil, &first)
		if _, err := book.Enrol(x.source, issuer, x.enrolmentKey(wire.EnrolmentKey{Ticket: other.ID, Step: 1}), first, x.now); !errors.Is(err, keyring.ErrUnauthentic) {
			t.Errorf("message 1 under another psk: %v", err)
		}
	}
}

// mustAnswer is the credential that an issuer writes for a message 3 that it has answered.
func mustAnswer(t *testing.T, b *keyring.Book, x *exchange, i *keyring.Issuer, key []byte, third octets) []byte {
	t.Helper()
	out, err := b.Enrol(x.source, i, key, third, x.now)
	if err != nil || len(out) != 3 {
		t.Fatalf("%d answers: %v", len(out), err)
	}
	return out[1].Value
}

// TestGoEnrolsWithPython: the issuer and its ticket are the peer's, the node is ours.
func TestGoEnrolsWithPython(t *testing.T) {
	x := newExchange(t)
	for range rounds {
		rootSeed, issuerSeed, static := x.bytes(32), x.bytes(32), x.bytes(32)
		rootPub, _, realm := x.identity(rootSeed)
		issuerPub, issuerNode, _ := x.identity(issuerSeed)
		cert := x.credential(wire.Credential{Realm: realm, Node: issuerNode, Subject: issuerPub, Roles: wire.RoleIssuer, Issuer: rootPub}, rootSeed)
		x.now = x.now.Add(time.Millisecond)
		grant := x.attributes()
		ticket := &wire.Ticket{
			ID: wire.TicketID(x.bytes(16)), PSK: [32]byte(x.bytes(32)), Root: rootPub, NotAfter: uint64(x.now.UnixMilli()) + 1,
			OfflineAllow: uint32(grant.OfflineAllow / time.Second), Roles: grant.Roles, Topics: grant.Topics, Groups: grant.Groups,
		}
		var public octets
		x.peer.must("x25519", object{"private": static}, &public)
		ticket.Static = [32]byte(public)
		var line string
		x.peer.must("make_ticket", object{"t": ticketFields(ticket)}, &line)
		parsed, err := keyring.ParseTicket([]byte(line))
		x.must(err)
		if !bytes.Equal(parsed.Append(nil), ticket.Append(nil)) || line != string(keyring.MarshalTicket(ticket)) {
			t.Errorf("ticket: the peer writes\n%s\nwe write\n%s", line, keyring.MarshalTicket(ticket))
		}

		state, err := keyring.NewState(x.source)
		x.must(err)
		node, err := keyring.NewEnrolment(parsed, state, x.source, x.now)
		x.must(err)
		x.peer.mustStep("issuer", "Issuer", object{
			"ticket_id": octets(ticket.ID[:]), "psk": octets(ticket.PSK[:]), "static": static, "root_pub": octets(rootPub[:]), "ephemeral": x.bytes(32),
		}, nil)
		reply := func(n uint8, message octets) (bool, error) {
			k, err := wire.ParseEnrolmentKey(node.Record().Key)
			x.must(err)
			k.Step = n
			return node.Receive(x.enrolmentKey(k), message, x.now)
		}
		var second, fourth octets
		x.peer.mustStep("issuer", "write2", object{"message1": octets(node.Record().Value)}, &second)
		if done, err := reply(2, second); done || err != nil || !node.Answered() {
			t.Fatal(done, err)
		}
		var csr object
		x.peer.mustStep("issuer", "read3", object{"message": octets(node.Record().Value)}, &csr)
		subject := state.Node().PublicKey()
		want := wire.CSR{Subject: subject, OfflineAllow: ticket.OfflineAllow, Roles: ticket.Roles, Topics: ticket.Topics, Groups: ticket.Groups}
		differ(t, "signing request", csr, csrFields(&want))
		own := x.credential(wire.Credential{
			Realm: realm, Node: state.Node().ID(), Subject: subject, Roles: ticket.Roles, Topics: ticket.Topics, Groups: ticket.Groups, Issuer: issuerPub,
		}, issuerSeed)
		x.peer.mustStep("issuer", "write4", object{"root_pub": octets(rootPub[:]), "credentials": []octets{own.Append(nil), cert.Append(nil)}}, &fourth)
		if done, err := reply(4, fourth); !done || err != nil {
			t.Fatal(done, err)
		}
		if c := state.Node().Credential(); c == nil || c.Serial != own.Serial {
			t.Errorf("our node holds %v", c)
		}
	}
}

// line is a ticket's text, whatever its bytes are.
func (x *exchange) line(b []byte) string {
	sum := sha256.Sum256(b)
	return keyring.TicketPrefix + base64.RawURLEncoding.EncodeToString(append(b, sum[:4]...))
}

func TestOddTicketsAreJudgedAlike(t *testing.T) {
	x := newExchange(t)
	accepted := 0
	for range odd {
		k := wire.Ticket{
			ID: wire.TicketID(x.bytes(16)), PSK: [32]byte(x.bytes(32)), Static: [32]byte(x.bytes(32)), Root: wire.PublicKey(x.bytes(32)),
			NotAfter: x.Uint64(), OfflineAllow: x.Uint32(), Roles: wire.Roles(x.IntN(70)), Topics: x.patterns(), Groups: x.patterns(),
		}
		if k.Roles &^= wire.RoleIssuer; x.IntN(8) == 0 {
			k.Roles |= wire.RoleIssuer
		}
		if len(k.Topics) == 0 && x.IntN(4) > 0 {
			k.Topics = []wire.Pattern{{Prefix: true}}
		}
		if x.IntN(12) == 0 {
			clear(k.PSK[:])
		}
		if x.IntN(20) == 0 {
			for room := wire.MaxTicketSize - 1 + x.IntN(3); len(k.Append(nil)) < room; {
				k.Groups = append(k.Groups, wire.Pattern{Prefix: true, Name: strings.Repeat("g", max(0, min(249, room-len(k.Append(nil))-3)))})
			}
		}
		line := x.line(x.spoil(k.Append(nil)))
		if x.IntN(6) == 0 {
			line = string(x.spoil([]byte(line)))
			if strings.ContainsFunc(line, func(r rune) bool { return r <= ' ' || r > '~' }) {
				continue // white space around a line is a matter of who reads it, and JSON is text
			}
		}
		got, err := keyring.ParseTicket([]byte(line))
		fields := object{}
		if err == nil {
			fields = ticketFields(got)
		}
		var theirs read
		refused := x.ask("read_ticket", object{"text": line}, &theirs)
		switch {
		case (refused == "") != (err == nil):
			t.Errorf("the peer says %q, we say %v, of\n%s", refused, err, line)
		case err == nil:
			accepted++
			differ(t, "ticket", theirs.Fields, fields)
		}
	}
	x.both(accepted)
}

func TestOddEnrolmentKeysAreJudgedAlike(t *testing.T) {
	x := newExchange(t)
	accepted := 0
	for range odd {
		k := wire.EnrolmentKey{Ticket: wire.TicketID(x.bytes(16)), Attempt: wire.Attempt(x.bytes(8)), Step: uint8(x.IntN(6))}
		data := x.spoil(k.Append(nil))
		got, err := wire.ParseEnrolmentKey(data)
		fields := object{"ticket_id": octets(got.Ticket[:]), "attempt": octets(got.Attempt[:]), "n": got.Step}
		if x.judge("read_enrolment_key", object{}, data, fields, err) {
			accepted++
		}
	}
	x.both(accepted)
}

// TestRequestIsOfOneHandshake: a signing request counts under the hash that it was signed over.
func TestRequestIsOfOneHandshake(t *testing.T) {
	x := newExchange(t)
	seed, hash := x.bytes(32), x.bytes(32)
	pub, _, _ := x.identity(seed)
	c := wire.CSR{Subject: pub, Roles: wire.RoleConsume, Topics: []wire.Pattern{{Prefix: true}}}
	var made octets
	x.peer.must("make_csr", object{"c": csrFields(&c), "seed": seed, "handshake_hash": hash}, &made)
	x.peer.must("read_csr", object{"data": made, "handshake_hash": hash}, nil)
	hash[x.IntN(32)] ^= 1
	if refused := x.ask("read_csr", object{"data": made, "handshake_hash": hash}, nil); refused != "signature" {
		t.Errorf("under another hash: %q", refused)
	}
	if refused := x.ask("read_csr", object{"data": made}, nil); refused != "signature" {
		t.Errorf("by file: %q", refused)
	}
}
