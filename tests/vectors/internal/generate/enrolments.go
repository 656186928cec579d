package main

import (
	"bytes"
	"log"
	"slices"
	"strings"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/tests/vectors"
)

var applicant = keyOf(0x70)

// granted is what the applicant's ticket gets, now.
func granted(t *wire.Ticket) *wire.Credential {
	return credential(applicant, t.Roles, func(c *wire.Credential) {
		c.NotBefore, c.NotAfter, c.OfflineAllow, c.Topics, c.Groups = now-minute, now-minute+9*day, t.OfflineAllow, t.Topics, t.Groups
	})
}

// enrolments are what an issuer refuses of nodes that have a ticket, or not.
func (c decisions) enrolments() {
	t := ticket(nil)
	h := shake(t, t)
	book := issued(t)
	first := vectors.DecisionRecord{Key: step(t, 1), Value: h.first, Now: now, Drawn: issuerEphemeral}
	drawn := serial(applicant.Seed()[0])
	request := sealed1(h.fromNode, csr(applicant, t, h.hash, nil))
	third := vectors.DecisionRecord{Key: step(t, 3), Value: request, Now: now, Drawn: drawn[:]}
	hello := []vectors.Answer{{Key: step(t, 2), Value: h.second}}
	credentials := []vectors.Answer{answerOf(certificate(nil)), answerOf(granted(t))}
	answers := append(credentials, vectors.Answer{Key: step(t, 4), Value: sealed1(h.fromIssuer, chain(root.public(), granted(t), certificate(nil)))})
	begun := []vectors.DecisionRecord{first}
	burnt := append(slices.Clone(begun), third)

	c.judge("enrolment-first", "", "Message 1 gets message 2.", book, nil, first, vectors.DecisionWant{Kind: vectors.Taken, Answers: hello})
	c.judge("enrolment-third", "", "Message 3 gets the Credential, on the roster and in message 4, and burns the ticket.", book, begun, third, vectors.DecisionWant{Kind: vectors.Taken, Answers: answers})
	again := first
	other := wire.EnrolmentKey{Ticket: t.ID, Attempt: wire.Attempt{1}, Step: 1}
	again.Key, again.Drawn = other.Append(nil), nil
	other.Step = 2
	c.judge("enrolment-first-again", "", "An equal message 1 gets the same message 2, whatever its attempt, also after the ticket burnt.", book, burnt, again,
		vectors.DecisionWant{Kind: vectors.Taken, Answers: []vectors.Answer{{Key: other.Append(nil), Value: h.second}}})
	c.judge("enrolment-third-again", "", "The same message 3 gets the same answer.", book, burnt, third, vectors.DecisionWant{Kind: vectors.Taken, Answers: answers})

	refused := func(name, comment string, book []vectors.IssuedTicket, before []vectors.DecisionRecord, record vectors.DecisionRecord, kind vectors.Kind) {
		c.judge("enrolment-"+name, "enrolment-"+name, comment, book, before, record, vectors.DecisionWant{Kind: kind})
	}
	value := func(r vectors.DecisionRecord, value []byte) vectors.DecisionRecord {
		r.Value = value
		return r
	}
	flipped := func(b []byte) []byte {
		b = bytes.Clone(b)
		b[len(b)/2] ^= 1
		return b
	}
	cut := first
	cut.Key = first.Key[:len(first.Key)-1]
	refused("key", "A Kafka key that is none.", book, nil, cut, vectors.Malformed)
	fifth := first
	fifth.Key = step(t, 5)
	refused("step", "The number of a message that does not exist.", book, nil, fifth, vectors.Malformed)
	refused("first-length", "Message 1 of 49 bytes: its payload is not empty.", book, nil, value(first, append(bytes.Clone(h.first), 0)), vectors.Malformed)
	refused("first-flipped", "A bit of message 1 flipped.", book, nil, value(first, flipped(h.first)), vectors.Unauthentic)
	refused("psk", "Message 1 under another psk.", book, nil, value(first, shake(ticket(func(t *wire.Ticket) { t.PSK[0] ^= 1 }), t).first), vectors.Unauthentic)
	refused("static", "Message 1 to another issuer's key.", book, nil, value(first, shake(ticket(func(t *wire.Ticket) { t.Static = x25519Public(nodeEphemeral) }), t).first), vectors.Unauthentic)
	refused("ticket-id", "Message 1 of another ticket's handshake.", book, nil, value(first, shake(ticket(func(t *wire.Ticket) { t.ID[0] ^= 1 }), t).first), vectors.Unauthentic)
	refused("realm", "Message 1 of another realm's handshake.", book, nil, value(first, shake(ticket(func(t *wire.Ticket) { t.Root = others.public() }), t).first), vectors.Unauthentic)
	refused("low-order", "Message 1 with an ephemeral key of low order.", book, nil, value(first, make([]byte, len(h.first))), vectors.Unauthentic)
	refused("unknown", "A ticket that the issuer does not know.", nil, nil, first, vectors.NotEntitled)
	late := first
	late.Now = t.NotAfter + minute + 1
	refused("ended", "A ticket that has ended, the skew included.", book, nil, late, vectors.NotEntitled)

	refused("third-flipped", "A bit of message 3 flipped.", book, begun, value(third, flipped(request)), vectors.Unauthentic)
	refused("third-length", "Message 3 of more than 65,535 bytes.", book, begun, value(third, make([]byte, wire.MaxNoiseMessage+1)), vectors.Malformed)
	refused("third-early", "Message 3 before message 1.", book, nil, third, vectors.Unauthentic)
	request = sealed1(shake(t, t).fromNode, csr(applicant, t, wire.Digest{}, nil))
	refused("csr-hash", "A CSR that is signed over another handshake hash. The ticket is burnt.", book, begun, value(third, request), vectors.Unauthentic)
	forged := csr(applicant, t, h.hash, nil)
	forged[2] ^= 1
	refused("csr-signature", "A CSR for a key that did not sign it. The ticket is burnt.", book, begun, value(third, sealed1(shake(t, t).fromNode, forged)), vectors.Unauthentic)
	refused("csr-cut", "A CSR whose last byte is missing. The ticket is burnt.", book, begun,
		value(third, sealed1(shake(t, t).fromNode, forged[:len(forged)-1])), vectors.Malformed)
	refused("csr-role", "A CSR with an unknown role. The ticket is burnt.", book, begun,
		value(third, sealed1(shake(t, t).fromNode, csr(applicant, t, h.hash, func(c *wire.CSR) { c.Roles |= 64 }))), vectors.Malformed)
	stranger := sealed1(shake(t, t).fromNode, csr(stranger, t, h.hash, nil))
	refused("burnt", "Another message 3 after the ticket burnt.", book, burnt, value(third, stranger), vectors.NotEntitled)
	begins := nodeEphemeral
	nodeEphemeral = issuerEphemeral
	another := shake(t, t).first
	nodeEphemeral = begins
	refused("second-use", "Another message 1 after the ticket burnt: an alarm, once.", book, burnt, value(first, another), vectors.Conflict)
}

// applications is a corpus of what enrolling nodes judge, by name.
type applications map[string]vectors.Enrolment

func (c applications) judge(name, refusal, comment, ticket string, messages []vectors.Answer, want vectors.EnrolmentResult) {
	if _, ok := c[name]; ok {
		log.Fatalf("enrolment %s is there twice", name)
	}
	c[name] = vectors.Enrolment{
		Comment: comment, Refusal: refusal, Ticket: ticket, Identity: applicant.Seed(), Attempt: attempt[:], Ephemeral: nodeEphemeral, Now: now,
		Messages: messages, Want: want,
	}
}

// all are what a node refuses of its ticket, and of what its issuer answers.
func (c applications) all() {
	t := ticket(nil)
	h := shake(t, t)
	request := sealed1(h.fromNode, csr(applicant, t, h.hash, nil))
	wrote := []vectors.Answer{{Key: step(t, 1), Value: h.first}, {Key: step(t, 3), Value: request}}
	second := vectors.Answer{Key: step(t, 2), Value: h.second}
	last := func(plain []byte) vectors.Answer {
		return vectors.Answer{Key: step(t, 4), Value: sealed1(shake(t, t).fromIssuer, plain)}
	}
	good := last(chain(root.public(), granted(t), certificate(nil)))
	c.judge("transcript", "", "A whole enrolment.", line(t), []vectors.Answer{second, good},
		vectors.EnrolmentResult{Kind: vectors.Taken, Wrote: wrote, Credential: granted(t).Append(nil)})
	c.judge("lost-answer", "", "Message 4 was lost, and the Credential stands on the roster.", line(t),
		[]vectors.Answer{second, answerOf(certificate(nil)), answerOf(granted(t))},
		vectors.EnrolmentResult{Kind: vectors.Taken, Wrote: wrote, Credential: granted(t).Append(nil)})

	spoiled := func(a vectors.Answer, edit func(b []byte) []byte) vectors.Answer {
		a.Value = edit(bytes.Clone(a.Value))
		return a
	}
	flip := func(b []byte) []byte { b[len(b)/2] ^= 1; return b }
	refused := func(name, comment string, kind vectors.Kind, messages ...vectors.Answer) {
		want := vectors.EnrolmentResult{Kind: kind, Wrote: wrote[:len(messages)]}
		c.judge("answer-"+name, "answer-"+name, comment, line(t), messages, want)
	}
	refused("second-flipped", "A bit of message 2 flipped.", vectors.Unauthentic, spoiled(second, flip))
	refused("second-length", "Message 2 of 49 bytes: its payload is not empty.", vectors.Malformed, spoiled(second, func(b []byte) []byte { return append(b, 0) }))
	refused("fourth-flipped", "A bit of message 4 flipped.", vectors.Unauthentic, second, spoiled(good, flip))
	refused("fourth-length", "Message 4 of more than 65,535 bytes.", vectors.Malformed, second, spoiled(good, func([]byte) []byte { return make([]byte, wire.MaxNoiseMessage+1) }))
	refused("trailing", "A byte follows the chain.", vectors.Malformed, second, last(append(chain(root.public(), granted(t), certificate(nil)), 0)))
	refused("empty", "A chain without Credentials.", vectors.Malformed, second, last(chain(root.public())))
	foreign := func(c *wire.Credential) { c.Realm = wire.RealmIDOf(others.public()) }
	own, cert := granted(t), certificate(nil)
	foreign(own)
	foreign(cert)
	own.Signature = issuer.sign(wire.TypeCredential, own.Realm, own.AppendBody(nil))
	cert.Issuer = others.public()
	cert.Signature = others.sign(wire.TypeCredential, cert.Realm, cert.AppendBody(nil))
	refused("root", "A chain of another root than the ticket's.", vectors.Unauthentic, second, last(chain(others.public(), own, cert)))
	bad := granted(t)
	bad.Signature[0] ^= 1
	refused("signature", "A Credential whose signature is not its issuer's.", vectors.Unauthentic, second, last(chain(root.public(), bad, certificate(nil))))
	refused("subject", "A Credential for another node's key.", vectors.Unauthentic, second, last(chain(root.public(), credential(peer, wire.RoleConsume, nil), certificate(nil))))
	refused("expired", "A Credential that has ended.", vectors.NotEntitled, second,
		last(chain(root.public(), credential(applicant, t.Roles, func(c *wire.Credential) { c.NotAfter = now - 1 }), certificate(nil))))

	none := func(name, comment, line string, kind vectors.Kind) {
		c.judge("ticket-"+name, "ticket-"+name, comment, line, nil, vectors.EnrolmentResult{Kind: kind})
	}
	edited := func(name, comment string, edit func(t *wire.Ticket)) {
		none(name, comment, line(ticket(edit)), vectors.Malformed)
	}
	edited("psk", "A psk of zeros.", func(t *wire.Ticket) { clear(t.PSK[:]) })
	edited("no-role", "No role.", func(t *wire.Ticket) { t.Roles = 0 })
	edited("issuer", "The role of an issuer.", func(t *wire.Ticket) { t.Roles |= wire.RoleIssuer })
	edited("role", "An unknown role.", func(t *wire.Ticket) { t.Roles |= 64 })
	edited("no-topic", "No topic.", func(t *wire.Ticket) { t.Topics = nil })
	edited("pattern", "An exact pattern without a name.", func(t *wire.Ticket) { t.Groups[0].Name = "" })
	good1 := line(t)
	none("prefix", "Another prefix.", strings.TrimPrefix(good1, "kx1-PRIVATE-"), vectors.Malformed)
	none("cut", "The last character is missing.", good1[:len(good1)-1], vectors.Malformed)
	none("mistyped", "A character is another one.", good1[:40]+swapped(good1[40:41])+good1[41:], vectors.Malformed)
	none("ended", "It has ended, the skew included.", line(ticket(func(t *wire.Ticket) { t.NotAfter = now - minute - 1 })), vectors.NotEntitled)
}

func swapped(s string) string {
	if s == "A" {
		return "B"
	}
	return "A"
}
