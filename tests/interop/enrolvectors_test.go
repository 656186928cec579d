package interop

import (
	"bytes"
	"slices"
	"testing"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
	"github.com/wasm-e2ee/wasm-e2ee/tests/vectors"
)

// TestPublishedEnrolmentsHoldInPython: the peer writes byte by byte what the published nodes and
// issuers wrote, and refuses what they refused.
func TestPublishedEnrolmentsHoldInPython(t *testing.T) {
	all, err := vectors.Enrolments()
	if err != nil {
		t.Fatal(err)
	}
	p := startPeer(t)
	ran := 0
	for _, v := range all {
		if v.Name == "lost-answer" || v.Want.Kind == vectors.NotEntitled {
			continue // of the roster, and of times
		}
		ran++
		refused := p.step("node", "Node", object{"ticket": v.Ticket, "ephemeral": octets(v.Ephemeral)}, nil)
		if len(v.Want.Wrote) == 0 || refused != "" {
			if controlKinds[refused] != v.Want.Kind {
				t.Errorf("%s: %q, want %s", v.Name, refused, v.Want.Kind)
			}
			continue
		}
		ticket, err := keyring.ParseTicket([]byte(v.Ticket))
		if err != nil {
			t.Fatal(err)
		}
		var pub struct{ Pub octets }
		p.must("identity", object{"seed": octets(v.Identity)}, &pub)
		csr := wire.CSR{Subject: wire.PublicKey(pub.Pub), OfflineAllow: ticket.OfflineAllow, Roles: ticket.Roles, Topics: ticket.Topics, Groups: ticket.Groups}
		var wrote octets
		p.mustStep("node", "write1", nil, &wrote)
		compare := func(i int) {
			t.Helper()
			if !bytes.Equal(wrote, v.Want.Wrote[i].Value) {
				t.Errorf("%s: the peer's message %d is %x, want %x", v.Name, 2*i+1, []byte(wrote), v.Want.Wrote[i].Value)
			}
		}
		compare(0)
		var chain []object
		for i, m := range v.Messages {
			if i == 0 {
				if refused = p.step("node", "write3", object{"message2": octets(m.Value), "csr": csrFields(&csr), "seed": octets(v.Identity)}, &wrote); refused == "" {
					compare(1)
				}
			} else {
				refused = p.step("node", "read4", object{"message": octets(m.Value), "subject_pub": pub.Pub}, &chain)
			}
		}
		if controlKinds[refused] != v.Want.Kind {
			t.Errorf("%s: %q, want %s", v.Name, refused, v.Want.Kind)
		}
		if v.Want.Credential != nil {
			c, err := wire.ParseCredential(v.Want.Credential)
			if err != nil {
				t.Fatal(err)
			}
			differ(t, v.Name, chain[0], credentialFields(c))
		}
	}
	if ran < 18 {
		t.Errorf("only %d vectors ran", ran)
	}
}

// TestPublishedDecisionsHoldInPython: the peer's issuer answers message 1 byte by byte as the
// published one, reads the same request, and refuses what is wrong in itself.
func TestPublishedDecisionsHoldInPython(t *testing.T) {
	all, err := vectors.Decisions()
	if err != nil {
		t.Fatal(err)
	}
	p := startPeer(t)
	ran := 0
	for _, v := range all {
		messages := []vectors.DecisionRecord{v.Record}
		switch {
		case v.Record.Key[0] == byte(wire.TypeRenewal):
			credentials := []octets{octets(v.Certificate)}
			for _, r := range v.Before {
				if r.Key[0] == byte(wire.TypeCredential) {
					credentials = append(credentials, octets(r.Value))
				}
			}
			if v.Name == "renewal-old-lineage" || v.Name == "renewal-issuer" || v.Name == "renewal-same-key" {
				continue // of order and policy
			}
			ran++
			refused := p.ask("read_control", object{
				"root": octets(v.Root), "before": credentials, "node": octets(nil), "seeds": []octets{},
				"record": object{"topic": "roster", "partition": 0, "key": octets(v.Record.Key), "value": octets(v.Record.Value)},
			}, nil)
			want := v.Want.Kind
			if !slices.Contains(judged, want) {
				want = vectors.Taken
			}
			if controlKinds[refused] != want {
				t.Errorf("%s: %q, want %s", v.Name, refused, want)
			}
			continue
		case len(v.Tickets) == 0 || v.Want.Kind == vectors.NotEntitled || v.Want.Kind == vectors.Conflict:
			continue // of what an issuer remembers
		case v.Record.Key[len(v.Record.Key)-1] == 3:
			messages = append(v.Before[:min(1, len(v.Before))], v.Record)
		}
		ran++
		ticket, err := keyring.ParseTicket([]byte(v.Tickets[0].Line))
		if err != nil {
			t.Fatal(err)
		}
		refused := p.ask("read_enrolment_key", object{"data": octets(v.Record.Key)}, nil)
		for _, m := range messages {
			if refused != "" {
				break
			}
			if m.Key[len(m.Key)-1] == 3 {
				if len(messages) == 1 {
					refused = "unauthentic" // there is no handshake that it could be of
					break
				}
				refused = p.step("issuer", "read3", object{"message": octets(m.Value)}, nil)
				continue
			}
			drawn := m.Drawn
			if len(drawn) == 0 {
				drawn = v.Before[0].Drawn
			}
			p.mustStep("issuer", "Issuer", object{
				"ticket_id": octets(ticket.ID[:]), "psk": octets(ticket.PSK[:]), "static": octets(v.Static), "root_pub": octets(v.Root), "ephemeral": octets(drawn),
			}, nil)
			var second octets
			refused = p.step("issuer", "write2", object{"message1": octets(m.Value)}, &second)
			if len(v.Want.Answers) == 1 && !bytes.Equal(second, v.Want.Answers[0].Value) {
				t.Errorf("%s: the peer answers %x, want %x", v.Name, []byte(second), v.Want.Answers[0].Value)
			}
		}
		if controlKinds[refused] != v.Want.Kind {
			t.Errorf("%s: %q, want %s", v.Name, refused, v.Want.Kind)
		}
	}
	if ran < 30 {
		t.Errorf("only %d vectors ran", ran)
	}
}
