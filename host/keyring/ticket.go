package keyring

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

// MaxTicketLifetime bounds how long a ticket may wait to be used (PROTOCOL.md §2.12).
const MaxTicketLifetime = 24 * time.Hour

// TicketPrefix starts a ticket's line, and says that it is not to be shown around.
const TicketPrefix = "kx1-PRIVATE-ticket."

// ticketCheck is the bytes of SHA-256 that end a ticket: a line that was cut or mistyped
// would otherwise look like an issuer that does not answer.
const ticketCheck = 4

// MarshalTicket encodes a ticket as one line without its newline: PRIVATE, to be wiped by the
// caller once it is handed over.
func MarshalTicket(t *wire.Ticket) []byte {
	b := t.Append(make([]byte, 0, wire.MaxTicketSize+ticketCheck))
	defer clear(b[:cap(b)])
	sum := sha256.Sum256(b)
	b = append(b, sum[:ticketCheck]...)
	line := make([]byte, len(TicketPrefix)+base64.RawURLEncoding.EncodedLen(len(b)))
	base64.RawURLEncoding.Encode(line[copy(line, TicketPrefix):], b)
	return line
}

// ParseTicket reads a ticket's line, with nothing but white space around it. It copies: the
// caller wipes line, and the ticket when it is used.
func ParseTicket(line []byte) (*wire.Ticket, error) {
	text, ok := bytes.CutPrefix(bytes.TrimSpace(line), []byte(TicketPrefix))
	if !ok {
		return nil, fmt.Errorf("not a ticket: it does not start with %s\nhint: a ticket is the line that `wasm-e2ee realm ticket` printed", TicketPrefix)
	}
	b := make([]byte, base64.RawURLEncoding.DecodedLen(len(text)))
	defer clear(b)
	n, err := base64.RawURLEncoding.Strict().Decode(b, text)
	damaged := errors.New("ticket: damaged\nhint: copy the whole line, and nothing else")
	if err != nil || n <= ticketCheck {
		return nil, damaged
	}
	body := b[:n-ticketCheck]
	if sum := sha256.Sum256(body); !bytes.Equal(sum[:ticketCheck], b[n-ticketCheck:n]) {
		return nil, damaged
	}
	t, err := wire.ParseTicket(body)
	if err != nil {
		return nil, err
	}
	if err := checkTicket(t); err != nil {
		t.Wipe()
		return nil, err
	}
	return t, nil
}

// checkTicket refuses what no issuer writes. The psk has its 32 bytes by its type, which
// PROTOCOL.md §2.12 wants to be sure of before the handshake: the library takes a missing one
// for a pattern without psk.
func checkTicket(t *wire.Ticket) error {
	var none [32]byte
	switch {
	case subtle.ConstantTimeCompare(t.PSK[:], none[:]) == 1:
		return errors.New("ticket: it has no key")
	case t.Roles == 0 || t.Roles.Has(wire.RoleIssuer) || len(t.Topics) == 0:
		return fmt.Errorf("ticket: roles %q on %d topic patterns entitle to nothing", t.Roles, len(t.Topics))
	}
	return nil
}

// ticketEnded reports whether it is too late to use t, with the clocks of node and issuer
// up to skew apart.
func ticketEnded(t *wire.Ticket, now time.Time) bool {
	return unixMs(now) > t.NotAfter+uint64(DefaultTiming().Skew.Milliseconds())
}

// attributesOf is what the ticket entitles to.
func attributesOf(t *wire.Ticket) Attributes {
	return Attributes{Roles: t.Roles, Topics: t.Topics, Groups: t.Groups, OfflineAllow: time.Duration(t.OfflineAllow) * time.Second}
}

// newTicket draws a ticket of the realm of root, for an issuer with the X25519 key static.
func newTicket(rand io.Reader, static [32]byte, root wire.PublicKey, grant Attributes, notAfter time.Time) (*wire.Ticket, error) {
	t := &wire.Ticket{
		Static: static, Root: root, NotAfter: unixMs(notAfter), OfflineAllow: uint32(min(grant.OfflineAllow/time.Second, 1<<32-1)),
		Roles: grant.Roles, Topics: grant.Topics, Groups: grant.Groups,
	}
	if err := readAll(rand, t.ID[:], t.PSK[:]); err != nil {
		return nil, fmt.Errorf("ticket: %w", err)
	}
	if err := checkTicket(t); err != nil {
		t.Wipe()
		return nil, err
	}
	return t, nil
}
