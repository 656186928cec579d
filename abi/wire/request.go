package wire

import (
	"bytes"
	"encoding/binary"
)

// MaxRequested bounds the kids of one EpochRequest (PROTOCOL.md §2.15).
const MaxRequested = 256

// KidSize is the size of a kid in bytes (PROTOCOL.md §2.3).
const KidSize = 8

// An EpochRequest asks the peers of a consumer group for topic secrets that the node cannot
// open: it joined late, or lost its store (PROTOCOL.md §2.10).
//
//	19b: PRE
//	16b: node_id
//	16b: cred_serial
//	    group: 2b length, name
//	 8b: created, Unix ms
//	 2b: kids, 1 to 256, then each 8b, strictly ascending
//	64b: signature by the node
type EpochRequest struct {
	Realm      RealmID
	Node       NodeID
	Credential Serial
	Group      string
	Created    uint64
	Kids       [][KidSize]byte
	Signature  [SignatureSize]byte
}

// AppendBody appends what the signature covers.
func (q *EpochRequest) AppendBody(b []byte) []byte {
	b = appendPre(b, TypeEpochRequest, q.Realm)
	b = append(b, q.Node[:]...)
	b = append(b, q.Credential[:]...)
	b = appendString(b, q.Group)
	b = binary.BigEndian.AppendUint64(b, q.Created)
	b = binary.BigEndian.AppendUint16(b, uint16(len(q.Kids)))
	for _, kid := range q.Kids {
		b = append(b, kid[:]...)
	}
	return b
}

// Append appends the request and its signature.
func (q *EpochRequest) Append(b []byte) []byte { return append(q.AppendBody(b), q.Signature[:]...) }

// Key is the request's Kafka key: 0x06 ‖ node_id.
func (q *EpochRequest) Key() []byte { return append([]byte{byte(TypeEpochRequest)}, q.Node[:]...) }

// ParseEpochRequest reads exactly one request. The signature is not verified.
func ParseEpochRequest(b []byte) (*EpochRequest, error) {
	r := reader{b: b, bad: len(b) > MaxControlSize}
	q := &EpochRequest{Realm: r.pre(TypeEpochRequest)}
	r.fixed(q.Node[:])
	r.fixed(q.Credential[:])
	q.Group = r.text(MaxNameLen)
	q.Created = r.u64()
	n := r.count(KidSize)
	if q.Group == "" || n == 0 || n > MaxRequested {
		r.bad = true
	}
	for i := 0; i < n && !r.bad; i++ {
		var kid [KidSize]byte
		r.fixed(kid[:])
		if i > 0 && bytes.Compare(q.Kids[i-1][:], kid[:]) >= 0 {
			r.bad = true
		}
		q.Kids = append(q.Kids, kid)
	}
	r.fixed(q.Signature[:])
	if err := r.end("epoch request"); err != nil {
		return nil, err
	}
	return q, nil
}
