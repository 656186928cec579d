package keyring

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/scrub"
)

// maxOffered bounds the credentials for the own key that wait for their issuer's certificate.
const maxOffered = 8

// An Enrolment is the node's side of PROTOCOL.md §2.12: a ticket, the records of the roster
// in, records out. It ends with a credential in its State, which the caller saves.
//
// The credential may also stand on the roster: of an earlier run that was cut short after the
// issuer had burnt the ticket.
type Enrolment struct {
	state     *State
	ticket    *wire.Ticket
	attempt   wire.Attempt
	ephemeral secretKey
	hello     [helloSize]byte
	second    []byte // message 2, once it came
	request   []byte // message 3, then
	issuers   map[wire.PublicKey]*wire.Credential
	offered   []*wire.Credential
}

// NewEnrolment begins one attempt with a ticket, which stays the caller's to wipe. The state
// must be on disk before anything is written: the credential will be for its key.
func NewEnrolment(t *wire.Ticket, s *State, rand io.Reader, now time.Time) (*Enrolment, error) {
	switch n := s.Node(); {
	case ticketEnded(t, now):
		return nil, fmt.Errorf("ticket: it ended at %s: %w\nhint: make another one: wasm-e2ee realm ticket", fromMs(t.NotAfter).UTC().Format(time.RFC3339), ErrNoTicket)
	case n.chain != nil && n.root != t.Root:
		return nil, fmt.Errorf("ticket: of realm %v, but this node belongs to %v\nhint: a node of another realm has a state file of its own", wire.RealmIDOf(t.Root), n.Realm())
	case n.chain != nil && n.chain[0].Lineage != 0:
		return nil, errors.New("ticket: this node has renewed its key already, and a ticket is for a new node\nhint: name a state file that does not exist yet")
	}
	e := &Enrolment{state: s, ticket: t, issuers: map[wire.PublicKey]*wire.Credential{}}
	err := readAll(rand, e.attempt[:], e.ephemeral[:])
	if err == nil {
		scrub.Do(func() { _, e.hello, err = hello(t, &e.ephemeral) })
	}
	if err != nil {
		e.Wipe()
		return nil, fmt.Errorf("enrolment: %w", err)
	}
	return e, nil
}

// Wipe overwrites the secrets of the handshake.
func (e *Enrolment) Wipe() { clear(e.ephemeral[:]) }

// Record is what the roster must hold by now: message 1, or message 3 once the issuer
// answered. It is written again until the answer comes, the same bytes each time.
func (e *Enrolment) Record() Record {
	if e.request != nil {
		return Record{Key: e.key(3).Append(nil), Value: e.request}
	}
	return Record{Key: e.key(1).Append(nil), Value: e.hello[:]}
}

// Answered reports whether the issuer took part: what is left is its decision.
func (e *Enrolment) Answered() bool { return e.request != nil }

func (e *Enrolment) key(step uint8) wire.EnrolmentKey {
	return wire.EnrolmentKey{Ticket: e.ticket.ID, Attempt: e.attempt, Step: step}
}

// Receive takes one record of the roster. Done says that the enrolment is over, with a
// credential or with err; else err is for the log, and the enrolment stands as before it:
// what does not authenticate is ignored.
func (e *Enrolment) Receive(key, value []byte, now time.Time) (done bool, err error) {
	scrub.Do(func() { done, err = e.receive(key, value, now) })
	return done, err
}

func (e *Enrolment) receive(key, value []byte, now time.Time) (done bool, err error) {
	if len(key) == 0 || value == nil {
		return false, nil
	}
	switch wire.Type(key[0]) {
	case wire.TypeCredential:
		return e.offer(value, now)
	case wire.TypeEnrolment:
		switch k, err := wire.ParseEnrolmentKey(key); {
		case err != nil:
			return false, err
		case k == e.key(2):
			return false, e.answered(value)
		case k == e.key(4):
			return e.decided(value, now)
		}
	}
	return false, nil
}

// answered takes message 2 and makes message 3: the request, signed over the handshake.
func (e *Enrolment) answered(second []byte) error {
	if e.request != nil {
		return nil
	}
	c, err := finish(e.ticket, &e.ephemeral, second)
	if err != nil {
		return err
	}
	request := e.state.Node().csr(attributesOf(e.ticket), c.hash).Append(nil)
	message, err := c.fromNode.Encrypt(nil, nil, request)
	if err != nil {
		return fmt.Errorf("enrolment: request: %w", err)
	}
	e.second, e.request = bytes.Clone(second), message
	return nil
}

// decided takes message 4, the credential and its chain.
func (e *Enrolment) decided(message []byte, now time.Time) (bool, error) {
	if e.request == nil {
		return false, nil
	}
	c, err := finish(e.ticket, &e.ephemeral, e.second)
	if err != nil {
		return false, err
	}
	plain, err := open(c.fromIssuer, message)
	if err != nil {
		return false, err
	}
	root, chain, err := parseChain(plain)
	if err == nil && root != e.ticket.Root {
		err = fmt.Errorf("credential: of another realm than the ticket: %w", ErrUnauthentic)
	}
	if err == nil {
		err = e.state.Node().install(root, chain, now)
	}
	return true, err
}

// offer looks at a credential on the roster: one for the own key may be what an earlier run
// was about to get.
func (e *Enrolment) offer(value []byte, now time.Time) (bool, error) {
	c, err := wire.ParseCredential(value)
	if err != nil || c.Realm != wire.RealmIDOf(e.ticket.Root) {
		return false, err
	}
	n := e.state.Node()
	switch {
	case c.Roles.Has(wire.RoleIssuer):
		if err := verifyIssued(e.ticket.Root, nil, c); err != nil {
			return false, err
		}
		e.issuers[c.Subject] = c
	case c.Subject == n.PublicKey() && len(e.offered) < maxOffered && (n.chain == nil || c.NotBefore > n.chain[0].NotBefore):
		e.offered = append(e.offered, c)
	}
	kept := e.offered[:0]
	for _, c := range e.offered {
		issuer := e.issuers[c.Issuer]
		if issuer == nil {
			kept = append(kept, c)
			continue
		}
		if verifyIssued(e.ticket.Root, issuer, c) == nil && e.state.Node().install(e.ticket.Root, []*wire.Credential{c, issuer}, now) == nil {
			return true, nil
		}
	}
	e.offered = kept
	return false, nil
}
