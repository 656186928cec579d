package main

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"log"
	"slices"

	"github.com/flynn/noise"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/tests/vectors"
)

// The keys of the cast's handshakes: the issuer's static key, and an ephemeral one of each.
var (
	static          = bytes.Repeat([]byte{0xA1}, 32)
	nodeEphemeral   = bytes.Repeat([]byte{0xA2}, 32)
	issuerEphemeral = bytes.Repeat([]byte{0xA3}, 32)
	attempt         = wire.Attempt(bytes.Repeat([]byte{0xA4}, 8))
)

func x25519Public(private []byte) [32]byte {
	k, err := ecdh.X25519().NewPrivateKey(private)
	must(0, err)
	return [32]byte(k.PublicKey().Bytes())
}

// ticket is the applicant's, made an hour ago.
func ticket(edit func(t *wire.Ticket)) *wire.Ticket {
	t := &wire.Ticket{
		ID: wire.TicketID(bytes.Repeat([]byte{0xA5}, 16)), PSK: [32]byte(bytes.Repeat([]byte{0xA6}, 32)), Static: x25519Public(static),
		Root: root.public(), NotAfter: now + 60*minute, OfflineAllow: 72 * 3600, Roles: wire.RoleConsume | wire.RoleShare,
		Topics: []wire.Pattern{{Name: "orders"}}, Groups: []wire.Pattern{{Name: "billing"}},
	}
	if edit != nil {
		edit(t)
	}
	return t
}

// line is a ticket as a person carries it.
func line(t *wire.Ticket) string {
	b := t.Append(nil)
	sum := sha256.Sum256(b)
	return "kx1-PRIVATE-ticket." + base64.RawURLEncoding.EncodeToString(append(b, sum[:4]...))
}

// issued is how an issuer has a ticket in its book, for a Credential of 9 days.
func issued(t *wire.Ticket) []vectors.IssuedTicket {
	return []vectors.IssuedTicket{{Line: line(t), Made: t.NotAfter - 120*minute, Validity: 9 * day}}
}

// A handshake is Noise_NKpsk0 between two holders of a ticket.
type handshake struct {
	first, second        []byte
	hash                 wire.Digest
	fromNode, fromIssuer *noise.CipherState // of the issuer's end
}

// shake runs the handshake of a ticket. The node's end may hold another one.
func shake(node, issuer *wire.Ticket) handshake {
	end := func(t *wire.Ticket, ephemeral []byte, change func(c *noise.Config)) *noise.HandshakeState {
		id := wire.RealmIDOf(t.Root)
		c := noise.Config{
			CipherSuite: noise.NewCipherSuite(noise.DH25519, noise.CipherChaChaPoly, noise.HashSHA256), Random: bytes.NewReader(ephemeral),
			Pattern: noise.HandshakeNK, Prologue: slices.Concat([]byte("KX1 enrol v1\x00"), id[:], t.ID[:]), PresharedKey: t.PSK[:],
		}
		change(&c)
		hs, err := noise.NewHandshakeState(c)
		must(0, err)
		return hs
	}
	var h handshake
	var err error
	hs := end(node, nodeEphemeral, func(c *noise.Config) { c.Initiator, c.PeerStatic = true, node.Static[:] })
	h.first, _, _, err = hs.WriteMessage(nil, nil)
	must(0, err)
	public := x25519Public(static)
	hs = end(issuer, issuerEphemeral, func(c *noise.Config) {
		c.StaticKeypair = noise.DHKey{Private: static, Public: public[:]}
	})
	if _, _, _, err = hs.ReadMessage(nil, h.first); err != nil {
		return h // one that the issuer does not answer
	}
	h.second, h.fromNode, h.fromIssuer, err = hs.WriteMessage(nil, nil)
	must(0, err)
	h.hash = wire.Digest(hs.ChannelBinding())
	return h
}

func sealed1(cs *noise.CipherState, plain []byte) []byte {
	b, err := cs.Encrypt(nil, nil, plain)
	must(0, err)
	return b
}

// csr is the request of k for what a ticket entitles to.
func csr(k key, t *wire.Ticket, hash wire.Digest, edit func(c *wire.CSR)) []byte {
	c := wire.CSR{Subject: k.public(), OfflineAllow: t.OfflineAllow, Roles: t.Roles, Topics: t.Topics, Groups: t.Groups}
	if edit != nil {
		edit(&c)
	}
	copy(c.Signature[:], ed25519.Sign(k.PrivateKey, c.SignatureInput(hash)))
	return c.Append(nil)
}

// chain is the plaintext of message 4.
func chain(root wire.PublicKey, credentials ...*wire.Credential) []byte {
	b := append(root[:], byte(len(credentials)))
	for _, c := range credentials {
		body := c.Append(nil)
		b = append(binary.BigEndian.AppendUint16(b, uint16(len(body))), body...)
	}
	return b
}

func step(t *wire.Ticket, n uint8) []byte {
	return wire.EnrolmentKey{Ticket: t.ID, Attempt: attempt, Step: n}.Append(nil)
}

func answerOf(m message) vectors.Answer { return vectors.Answer{Key: m.Key(), Value: m.Append(nil)} }

// decisions is a corpus of what issuers judge, by name.
type decisions map[string]vectors.Decision

func (c decisions) judge(name, refusal, comment string, tickets []vectors.IssuedTicket, before []vectors.DecisionRecord, record vectors.DecisionRecord, want vectors.DecisionWant) {
	if _, ok := c[name]; ok {
		log.Fatalf("issuer's vector %s is there twice", name)
	}
	rootKey := root.public()
	c[name] = vectors.Decision{
		Comment: comment, Refusal: refusal, Identity: issuer.Seed(), Root: rootKey[:], Certificate: certificate(nil).Append(nil), Static: static,
		Tickets: tickets, Before: slices.Clone(before), Record: record, Want: want,
	}
}
