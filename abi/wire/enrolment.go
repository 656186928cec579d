package wire

import "encoding/hex"

// MaxNoiseMessage bounds one message of the enrolment handshake in bytes (Noise rev 34 §3).
const MaxNoiseMessage = 65_535

type (
	// A TicketID names one enrolment ticket; it is random.
	TicketID [16]byte
	// An Attempt names one run of a ticket's handshake; it is random.
	Attempt [8]byte
)

// String gives the identifier in hex.
func (id TicketID) String() string { return hex.EncodeToString(id[:]) }
func (a Attempt) String() string   { return hex.EncodeToString(a[:]) }

// EnrolmentSteps is the number of messages of an enrolment: two of the handshake, the
// request, the credential (PROTOCOL.md §2.12).
const EnrolmentSteps = 4

// An EnrolmentKey is the Kafka key of one enrolment message, whose value is one Noise
// message and nothing else: 0x08 ‖ ticket_id 16 ‖ attempt 8 ‖ n u8.
type EnrolmentKey struct {
	Ticket  TicketID
	Attempt Attempt
	Step    uint8 // 1 to 4, odd from the node, even from the issuer
}

// Append appends the key.
func (k EnrolmentKey) Append(b []byte) []byte {
	b = append(b, byte(TypeEnrolment))
	b = append(b, k.Ticket[:]...)
	b = append(b, k.Attempt[:]...)
	return append(b, k.Step)
}

// ParseEnrolmentKey reads exactly one key.
func ParseEnrolmentKey(b []byte) (EnrolmentKey, error) {
	r := reader{b: b}
	var k EnrolmentKey
	if r.u8() != byte(TypeEnrolment) {
		r.bad = true
	}
	r.fixed(k.Ticket[:])
	r.fixed(k.Attempt[:])
	if k.Step = r.u8(); k.Step < 1 || k.Step > EnrolmentSteps {
		r.bad = true
	}
	if err := r.end("enrolment key"); err != nil {
		return EnrolmentKey{}, err
	}
	return k, nil
}
