package wire

import "encoding/binary"

// A Ticket entitles whoever holds it to one enrolment (PROTOCOL.md §2.12). It is PRIVATE: the
// psk is all that tells its holder from anybody else.
//
//	 1b: version (1)
//	 1b: suite (1)
//	16b: ticket_id
//	32b: psk, SECRET
//	32b: the issuer's X25519 static key
//	32b: the realm's root key, Ed25519
//	 8b: not_after, Unix ms
//	 4b: offline_allow_s
//	 2b: roles
//	    topic patterns, group patterns: a count u16, then each
type Ticket struct {
	ID           TicketID
	PSK          [32]byte
	Static       [32]byte
	Root         PublicKey
	NotAfter     uint64
	OfflineAllow uint32 // seconds
	Roles        Roles
	Topics       []Pattern
	Groups       []Pattern
}

// Append appends the ticket, psk included. With room for MaxTicketSize in b, no copy of the
// psk is left in an array that was grown.
func (t *Ticket) Append(b []byte) []byte {
	b = append(b, Version, Suite)
	b = append(b, t.ID[:]...)
	b = append(b, t.PSK[:]...)
	b = append(b, t.Static[:]...)
	b = append(b, t.Root[:]...)
	b = binary.BigEndian.AppendUint64(b, t.NotAfter)
	b = binary.BigEndian.AppendUint32(b, t.OfflineAllow)
	b = binary.BigEndian.AppendUint16(b, uint16(t.Roles))
	b = AppendPatterns(b, t.Topics)
	return AppendPatterns(b, t.Groups)
}

// MaxTicketSize bounds an encoded ticket in bytes: what it grants must fit a credential.
const MaxTicketSize = MaxCredentialSize

// ParseTicket reads exactly one ticket. It copies: the caller wipes b.
func ParseTicket(b []byte) (*Ticket, error) {
	r := reader{b: b, bad: len(b) > MaxTicketSize}
	if r.u8() != Version || r.u8() != Suite {
		r.bad = true
	}
	t := &Ticket{}
	r.fixed(t.ID[:])
	r.fixed(t.PSK[:])
	r.fixed(t.Static[:])
	r.fixed(t.Root[:])
	t.NotAfter = r.u64()
	t.OfflineAllow = r.u32()
	t.Roles = Roles(r.u16())
	t.Topics = r.patterns()
	t.Groups = r.patterns()
	if t.Roles&^allRoles != 0 {
		r.bad = true
	}
	if err := r.end("ticket"); err != nil {
		t.Wipe()
		return nil, err
	}
	return t, nil
}

// Wipe overwrites the psk.
func (t *Ticket) Wipe() { clear(t.PSK[:]) }
