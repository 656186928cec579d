package keyring

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/scrub"
)

// Bounds on a Book. What exceeds them is refused, or pushes the oldest out.
const (
	maxTickets  = 4096
	maxAttempts = 8 // of one ticket
	maxIssued   = maxNodes
)

// What an honest realm does not cause. The issuer logs it as an alarm.
var (
	// ErrSecondUse says that somebody used a ticket that was used before.
	ErrSecondUse = errors.New("a ticket is used a second time")
	// ErrFork says that a node asked for two different keys to follow the same one: it was
	// cloned, or its key was stolen. All its credentials are to be revoked.
	ErrFork = errors.New("two keys want to follow the same one")
	// ErrOldLineage says that somebody renews with a key that was replaced long ago.
	ErrOldLineage = errors.New("renewal with a replaced key")
)

// ErrNoTicket says that a ticket is not known, has ended or is burnt. That is ordinary: what was
// written for it stays on the roster for a while.
var ErrNoTicket = errors.New("it entitles to nothing")

// A Book is what an issuer remembers (PROTOCOL.md §2.12): tickets that may be used, what was
// answered to those that use one, and the newest credential of every node that was enrolled or
// renewed. Its methods take records of the roster and return records for it, which are written
// once the book is on disk; the same record again gives the same answer.
type Book struct {
	static    secretKey // X25519
	tickets   map[wire.TicketID]*bookTicket
	nodes     map[wire.NodeID]*bookNode
	authority []byte // the newest AuthorityState that was seen, as it is encoded; nil before it
	version   uint64
}

// A bookTicket is a ticket, and what became of it.
type bookTicket struct {
	ticket   wire.Ticket // its psk is zeros once it is burnt
	validity uint64      // of the credential it is good for, ms
	attempts []*bookAttempt
	burnt    bool
	alarmed  bool        // a second use was reported
	node     wire.NodeID // that burnt it; zeros if its request was not in order
	request  wire.Digest // of message 3
	answer   []byte      // message 4; empty if the request was not in order
	granted  *wire.Credential
	issuer   *wire.Credential // that signed it
}

// A bookAttempt is a handshake that a holder of the ticket began.
type bookAttempt struct {
	id        wire.Attempt
	ephemeral secretKey // wiped when the ticket burns
	first     [helloSize]byte
	second    [helloSize]byte
}

// A bookNode is a node's newest credential.
type bookNode struct {
	validity   uint64 // the intended one, ms: an issuer's end may have cut it
	forked     bool
	credential *wire.Credential
	issuer     *wire.Credential // that signed it
}

// NewBook draws the key that tickets name.
func NewBook(rand io.Reader) (*Book, error) {
	b := emptyBook()
	if err := readAll(rand, b.static[:]); err != nil {
		return nil, fmt.Errorf("enrolment key: %w", err)
	}
	return b, nil
}

func emptyBook() *Book {
	return &Book{tickets: map[wire.TicketID]*bookTicket{}, nodes: map[wire.NodeID]*bookNode{}}
}

// Version grows with every change that must reach the disk.
func (b *Book) Version() uint64 { return b.version }

// Wipe overwrites every secret in memory. The book is of no use after it.
func (b *Book) Wipe() {
	clear(b.static[:])
	for _, t := range b.tickets {
		t.wipe()
	}
}

func (t *bookTicket) wipe() {
	t.ticket.Wipe()
	for _, a := range t.attempts {
		clear(a.ephemeral[:])
	}
}

// NewTicket makes a ticket that is good until notAfter, for a credential of the given validity.
// It stays the caller's to wipe.
func (b *Book) NewTicket(rand io.Reader, i *Issuer, grant Attributes, notAfter time.Time, validity time.Duration, now time.Time) (*wire.Ticket, error) {
	switch {
	case notAfter.After(now.Add(MaxTicketLifetime)) || !notAfter.After(now):
		return nil, fmt.Errorf("ticket: it may wait for up to %v", MaxTicketLifetime)
	case validity <= 0:
		return nil, errors.New("ticket: the credential's validity must be positive")
	case len(b.tickets) >= maxTickets:
		return nil, fmt.Errorf("ticket: %d of them are waiting; hint: they end by themselves within %v", len(b.tickets), MaxTicketLifetime)
	}
	// What cannot be granted fails now, and not when the node waits.
	var nobody wire.PublicKey
	if _, err := i.certify(rand, wire.NodeID{}, 0, nobody, grant, i.validity(now, validity)); err != nil {
		return nil, err
	}
	static, err := staticPublic(&b.static)
	if err != nil {
		return nil, err
	}
	t, err := newTicket(rand, static, i.root, grant, notAfter)
	if err != nil {
		return nil, err
	}
	b.tickets[t.ID] = &bookTicket{ticket: *t, validity: uint64(validity.Milliseconds())}
	b.version++
	return t, nil
}

// A TicketView is what may be shown of a ticket.
type TicketView struct {
	ID       wire.TicketID
	NotAfter time.Time
	Roles    wire.Roles
	Topics   []wire.Pattern
	Groups   []wire.Pattern
	Burnt    bool
	Node     wire.NodeID // that burnt it
}

// Tickets lists the tickets in the book, by when they end.
func (b *Book) Tickets() []TicketView {
	var out []TicketView
	for _, t := range b.tickets {
		out = append(out, TicketView{t.ticket.ID, fromMs(t.ticket.NotAfter), t.ticket.Roles, t.ticket.Topics, t.ticket.Groups, t.burnt, t.node})
	}
	slices.SortFunc(out, func(a, b TicketView) int {
		return cmp.Or(a.NotAfter.Compare(b.NotAfter), bytes.Compare(a.ID[:], b.ID[:]))
	})
	return out
}

// validity begins a little before now, since a node whose clock is behind the issuer's is to use
// its credential at once, and never outlives the issuer's certificate.
func (i *Issuer) validity(now time.Time, length time.Duration) Validity {
	begin := now.Add(-min(DefaultTiming().Skew, length/10))
	if first := fromMs(i.cert.NotBefore); begin.Before(first) {
		begin = first
	}
	end := begin.Add(length)
	if last := fromMs(i.cert.NotAfter); end.After(last) {
		end = last
	}
	return Validity{NotBefore: begin, NotAfter: end}
}

// Enrol takes a node's message of an enrolment and returns what to write. An error that wraps
// ErrSecondUse is an alarm; any other says why nothing is answered, and belongs in the debug
// log: it may be anybody's bytes.
func (b *Book) Enrol(rand io.Reader, i *Issuer, key, value []byte, now time.Time) ([]Record, error) {
	k, err := wire.ParseEnrolmentKey(key)
	if err != nil {
		return nil, err
	}
	if k.Step%2 == 0 || value == nil {
		return nil, nil
	}
	t := b.tickets[k.Ticket]
	switch {
	case t == nil:
		return nil, fmt.Errorf("ticket %v: not in the book: %w", k.Ticket, ErrNoTicket)
	case ticketEnded(&t.ticket, now):
		return nil, fmt.Errorf("ticket %v: it has ended: %w", k.Ticket, ErrNoTicket)
	case len(value) > wire.MaxNoiseMessage:
		return nil, fmt.Errorf("ticket %v: message of %d bytes: %w", k.Ticket, len(value), wire.ErrMalformed)
	}
	var out []Record
	scrub.Do(func() {
		if k.Step == 1 {
			out, err = b.greet(rand, t, k, value)
		} else {
			out, err = b.decide(rand, i, t, k, value, now)
		}
	})
	return out, err
}

// greet answers message 1.
func (b *Book) greet(rand io.Reader, t *bookTicket, k wire.EnrolmentKey, first []byte) ([]Record, error) {
	k.Step = 2
	for _, a := range t.attempts {
		if bytes.Equal(a.first[:], first) {
			return []Record{{Key: k.Append(nil), Value: a.second[:]}}, nil
		}
	}
	if t.burnt {
		return nil, b.secondUse(t)
	}
	a := &bookAttempt{id: k.Attempt}
	if err := readAll(rand, a.ephemeral[:]); err != nil {
		return nil, fmt.Errorf("ticket %v: %w", k.Ticket, err)
	}
	second, _, err := answer(&t.ticket, &b.static, &a.ephemeral, first)
	if err != nil {
		clear(a.ephemeral[:])
		return nil, fmt.Errorf("ticket %v: %w", k.Ticket, err)
	}
	a.first, a.second = [helloSize]byte(first), second
	if len(t.attempts) >= maxAttempts {
		clear(t.attempts[0].ephemeral[:])
		t.attempts = t.attempts[1:]
	}
	t.attempts = append(t.attempts, a)
	b.version++
	return []Record{{Key: k.Append(nil), Value: a.second[:]}}, nil
}

// decide answers message 3. The ticket burns when that decrypts.
func (b *Book) decide(rand io.Reader, i *Issuer, t *bookTicket, k wire.EnrolmentKey, message []byte, now time.Time) ([]Record, error) {
	k.Step = 4
	if t.burnt {
		if sha256.Sum256(message) != t.request {
			return nil, fmt.Errorf("ticket %v: burnt: %w", k.Ticket, ErrNoTicket)
		}
		return t.decision(k), nil
	}
	for _, a := range t.attempts {
		_, c, err := answer(&t.ticket, &b.static, &a.ephemeral, a.first[:])
		if err != nil {
			return nil, fmt.Errorf("ticket %v: %w", k.Ticket, err)
		}
		plain, err := open(c.fromNode, message)
		if err == nil {
			err = b.burn(rand, i, t, &c, plain, message, now)
			return t.decision(k), err
		}
	}
	return nil, fmt.Errorf("ticket %v: message 3: %w", k.Ticket, ErrUnauthentic)
}

// burn spends the ticket on a request that came through its handshake.
func (b *Book) burn(rand io.Reader, i *Issuer, t *bookTicket, c *channel, plain, message []byte, now time.Time) error {
	v := i.validity(now, fromLength(t.validity))
	if !v.NotAfter.After(now) {
		return errors.New("the issuer's certificate has ended; hint: certify a new issuer with the realm's root key")
	}
	t.burnt, t.request = true, sha256.Sum256(message)
	t.wipe()
	b.version++
	csr, err := wire.ParseCSR(plain)
	if err == nil && !ed25519.Verify(csr.Subject[:], csr.SignatureInput(c.hash), csr.Signature[:]) {
		err = fmt.Errorf("signing request: signature: %w", ErrUnauthentic)
	}
	if err != nil {
		return fmt.Errorf("ticket %v is burnt by a request that is not in order: %w", t.ticket.ID, err)
	}
	node := wire.NodeIDOf(csr.Subject)
	credential, err := i.certify(rand, node, 0, csr.Subject, attributesOf(&t.ticket), v)
	if err != nil {
		return fmt.Errorf("ticket %v: %w", t.ticket.ID, err)
	}
	if t.answer, err = c.fromIssuer.Encrypt(nil, nil, i.chainOf(credential)); err != nil {
		return fmt.Errorf("ticket %v: %w", t.ticket.ID, err)
	}
	t.node, t.granted, t.issuer = node, credential, &i.cert
	// A node whose key is further on already stays there.
	if n := b.nodes[node]; n == nil || n.credential.Lineage == 0 {
		b.nodes[node] = &bookNode{validity: t.validity, credential: credential, issuer: &i.cert}
	}
	return nil
}

// decision is what a burnt ticket's request is answered with, now and again: on the roster
// for everybody, and in message 4. A node that lost the second finds the first.
func (t *bookTicket) decision(k wire.EnrolmentKey) []Record {
	if len(t.answer) == 0 {
		return nil
	}
	return append(chainRecords(t.granted, t.issuer), Record{Key: k.Append(nil), Value: t.answer})
}

// secondUse is reported once for each ticket: nothing of a burnt ticket is left by which its
// holder could be told from anybody who read its id.
func (b *Book) secondUse(t *bookTicket) error {
	if t.alarmed {
		return fmt.Errorf("ticket %v: burnt: %w", t.ticket.ID, ErrNoTicket)
	}
	t.alarmed = true
	b.version++
	return fmt.Errorf("ticket %v, burnt by node %v: %w; hint: ask who holds the ticket: if that node is not theirs, revoke it (wasm-e2ee realm revoke) and make another ticket; if it is and it works, nothing was lost", t.ticket.ID, t.node, ErrSecondUse)
}

// fromLength converts a length of time in ms, to at most 139 years.
func fromLength(ms uint64) time.Duration { return time.Duration(min(ms, 1<<42)) * time.Millisecond }

// NoteAuthority keeps a's encoding if it is the newest that was seen: a broker that serves an
// older one must not make the issuer forget whom it revoked.
func (b *Book) NoteAuthority(a *wire.AuthorityState) {
	if held := b.Authority(); a != nil && (held == nil || a.Seq > held.Seq) {
		b.authority = a.Append(nil)
		b.version++
	}
}

// Authority is the newest AuthorityState that was seen, nil before the first.
func (b *Book) Authority() *wire.AuthorityState {
	a, err := wire.ParseAuthorityState(b.authority)
	if err != nil {
		return nil
	}
	return a
}

// Expire forgets tickets that have ended, and nodes that can no longer renew. It returns
// tombstones for the messages of the tickets.
func (b *Book) Expire(now time.Time) []Record {
	var out []Record
	for id, t := range b.tickets {
		if !ticketEnded(&t.ticket, now) {
			continue
		}
		for _, a := range t.attempts {
			for step := uint8(1); step <= wire.EnrolmentSteps; step++ {
				out = append(out, Record{Key: wire.EnrolmentKey{Ticket: id, Attempt: a.id, Step: step}.Append(nil)})
			}
		}
		t.wipe()
		delete(b.tickets, id)
		b.version++
	}
	for id, n := range b.nodes {
		if now.After(fromMs(n.credential.NotAfter).Add(RenewalGrace)) {
			delete(b.nodes, id)
			b.version++
		}
	}
	return out
}
