package keyring

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

// BookMagic starts an issuer's book. A change of the layout changes its number.
const BookMagic = "KX1 book v1\x00"

// Least sizes of a book's elements in bytes, to check counts against.
const (
	attemptSize   = 8 + 32 + 2*helloSize
	minTicketSize = 2 + 8 + 1 + 16 + 32 + 2 + 1 + 2 + 2
	minNodeSize   = 8 + 1 + 2 + 2
)

// Marshal encodes the book into one fresh slice that never moved. It holds secrets: the caller
// wipes it with clear once it is written (mode 0600). Integers are big-endian; lists are in
// ascending order of their ids; a credential of length 0 is none.
//
//	12b: "KX1 book v1" NUL
//	32b: X25519 static key, SECRET
//	 4b: length, and the newest AuthorityState; 0 before it
//	 4b: tickets, each: ticket (2b length; its psk SECRET, zeros once burnt), validity u64 ms, flags 1b (1 burnt, 2 second use
//	     reported), node_id 16, SHA-256 of message 3, message 4 (2b length), credential and its issuer's (2b length each),
//	     attempts (1b): id 8, ephemeral key 32 SECRET, messages 1 and 2 of 48
//	 4b: nodes, each: validity u64 ms, 1b: 1 if it forked, newest credential and its issuer's (2b length each)
//	32b: SHA-256 of all of the above
func (b *Book) Marshal() []byte {
	tickets := sortedKeys(b.tickets, func(a, b wire.TicketID) int { return bytes.Compare(a[:], b[:]) })
	nodes := sortedKeys(b.nodes, func(a, b wire.NodeID) int { return bytes.Compare(a[:], b[:]) })
	size := len(BookMagic) + 32 + 4 + len(b.authority) + 4 + 4 + sha256.Size
	for _, t := range b.tickets {
		size += minTicketSize + wire.MaxTicketSize + len(t.answer) + 2*wire.MaxCredentialSize + len(t.attempts)*attemptSize
	}
	size += len(nodes) * (minNodeSize + 2*wire.MaxCredentialSize)
	be := binary.BigEndian
	out := make([]byte, 0, size)
	out = append(out, BookMagic...)
	out = append(out, b.static[:]...)
	out = be.AppendUint32(out, uint32(len(b.authority)))
	out = append(out, b.authority...)
	out = be.AppendUint32(out, uint32(len(tickets)))
	for _, id := range tickets {
		out = b.tickets[id].append(out)
	}
	out = be.AppendUint32(out, uint32(len(nodes)))
	for _, id := range nodes {
		n := b.nodes[id]
		out = be.AppendUint64(out, n.validity)
		out = append(out, flag(n.forked, 1))
		out = appendCredential(appendCredential(out, n.credential), n.issuer)
	}
	sum := sha256.Sum256(out)
	return append(out, sum[:]...)
}

func (t *bookTicket) append(out []byte) []byte {
	be := binary.BigEndian
	at := len(out)
	out = t.ticket.Append(be.AppendUint16(out, 0))
	be.PutUint16(out[at:], uint16(len(out)-at-2))
	out = be.AppendUint64(out, t.validity)
	out = append(out, flag(t.burnt, 1)|flag(t.alarmed, 2))
	out = append(out, t.node[:]...)
	out = append(out, t.request[:]...)
	out = be.AppendUint16(out, uint16(len(t.answer)))
	out = append(out, t.answer...)
	out = appendCredential(appendCredential(out, t.granted), t.issuer)
	out = append(out, byte(len(t.attempts)))
	for _, a := range t.attempts {
		out = append(out, a.id[:]...)
		out = append(out, a.ephemeral[:]...)
		out = append(out, a.first[:]...)
		out = append(out, a.second[:]...)
	}
	return out
}

func flag(set bool, bit byte) byte {
	if set {
		return bit
	}
	return 0
}

func appendCredential(out []byte, c *wire.Credential) []byte {
	if c == nil {
		return append(out, 0, 0)
	}
	at := len(out)
	out = c.Append(append(out, 0, 0))
	binary.BigEndian.PutUint16(out[at:], uint16(len(out)-at-2))
	return out
}

// ParseBook reads exactly one encoded book. It copies: the caller wipes b. What it refuses it
// has wiped.
func ParseBook(b []byte) (*Book, error) {
	r := stateReader{b: b}
	if string(r.take(len(BookMagic))) != BookMagic {
		return nil, fmt.Errorf("issuer's book: it does not start with %q: %w", BookMagic[:len(BookMagic)-1], wire.ErrMalformed)
	}
	book := emptyBook()
	err := book.parse(&r)
	if err == nil && (len(r.b) != sha256.Size || sha256.Sum256(b[:len(b)-sha256.Size]) != [32]byte(r.b)) {
		err = wire.ErrMalformed
	}
	if err != nil {
		book.Wipe()
		return nil, fmt.Errorf("issuer's book: %w", err)
	}
	return book, nil
}

func (b *Book) parse(r *stateReader) error {
	copy(b.static[:], r.take(32))
	if n := int(r.u32()); n != 0 {
		b.authority = bytes.Clone(r.take(n))
		if _, err := wire.ParseAuthorityState(b.authority); err != nil {
			return err
		}
	}
	var prev []byte
	n := int(r.u32())
	for i := 0; i < n && r.has(n-i, minTicketSize); i++ {
		ticket, err := wire.ParseTicket(r.take(int(r.u16())))
		if err != nil {
			return err
		}
		t := &bookTicket{ticket: *ticket}
		ticket.Wipe()
		if prev != nil && bytes.Compare(prev, t.ticket.ID[:]) >= 0 {
			return wire.ErrMalformed
		}
		prev = t.ticket.ID[:]
		b.tickets[t.ticket.ID] = t
		if err := t.parse(r); err != nil {
			return err
		}
	}
	prev = nil
	n = int(r.u32())
	for i := 0; i < n && r.has(n-i, minNodeSize); i++ {
		node := &bookNode{validity: r.u64()}
		var err error
		if node.forked, err = r.flag(); err != nil {
			return err
		}
		if node.credential, err = r.credential(); err != nil {
			return err
		}
		if node.issuer, err = r.credential(); err != nil {
			return err
		}
		if node.credential == nil || node.issuer == nil || prev != nil && bytes.Compare(prev, node.credential.Node[:]) >= 0 {
			return wire.ErrMalformed
		}
		prev = node.credential.Node[:]
		b.nodes[node.credential.Node] = node
	}
	if r.bad {
		return wire.ErrMalformed
	}
	return nil
}

func (t *bookTicket) parse(r *stateReader) (err error) {
	t.validity = r.u64()
	flags := r.take(1)
	if flags == nil || flags[0] > 3 {
		return wire.ErrMalformed
	}
	t.burnt, t.alarmed = flags[0]&1 != 0, flags[0]&2 != 0
	copy(t.node[:], r.take(16))
	copy(t.request[:], r.take(wire.DigestSize))
	t.answer = bytes.Clone(r.take(int(r.u16())))
	if t.granted, err = r.credential(); err != nil {
		return err
	}
	if t.issuer, err = r.credential(); err != nil {
		return err
	}
	count := r.take(1)
	if count == nil || count[0] > maxAttempts || (len(t.answer) != 0) != (t.granted != nil) || (t.granted == nil) != (t.issuer == nil) {
		return wire.ErrMalformed
	}
	for range count[0] {
		a := &bookAttempt{}
		t.attempts = append(t.attempts, a)
		copy(a.id[:], r.take(8))
		copy(a.ephemeral[:], r.take(32))
		copy(a.first[:], r.take(helloSize))
		copy(a.second[:], r.take(helloSize))
	}
	return nil
}

// flag reads one byte that is 0 or 1.
func (r *stateReader) flag() (bool, error) {
	b := r.take(1)
	if b == nil || b[0] > 1 {
		return false, wire.ErrMalformed
	}
	return b[0] == 1, nil
}

// credential reads a credential behind its u16 length, nil for none.
func (r *stateReader) credential() (*wire.Credential, error) {
	n := int(r.u16())
	if n == 0 {
		return nil, nil
	}
	return wire.ParseCredential(r.take(n))
}
