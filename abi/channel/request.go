package channel

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

// An Op is what a data plane asks for.
type Op uint8

const (
	OpLease  Op = 1 // a subtree for sealing
	OpRoot   Op = 2 // the root that opens batches of one kid
	OpRenew  Op = 3 // to keep keys for longer
	OpOpened Op = 4 // to note that a batch opened, before it is delivered
	OpGroups Op = 5 // which consumer groups may be used
)

// String names the operation as PROTOCOL.md §2.12 does, in lower case.
func (o Op) String() string {
	switch o {
	case OpLease:
		return "lease"
	case OpRoot:
		return "root"
	case OpRenew:
		return "renew"
	case OpOpened:
		return "opened"
	case OpGroups:
		return "groups"
	}
	return fmt.Sprintf("unknown operation %d", uint8(o))
}

// A Request is one thing that a data plane asks for. Which fields it has its Op says; the others
// are zero.
//
//	1b: op, then
//	LEASE   2b: length of topic, 1 to 249, then its bytes
//	ROOT    topic; 4b: partition; 8b: kid
//	RENEW   2b: n; n kids of 8b
//	OPENED  topic; 8b: kid; 4b: leaf; 4b: partition; 8b: offset
//	GROUPS  nothing
type Request struct {
	Op        Op
	Topic     string    // LEASE, ROOT, OPENED
	Partition int32     // ROOT, OPENED: not negative
	Kid       abi.Kid   // ROOT, OPENED
	Leaf      uint32    // OPENED: below 2^24
	Offset    int64     // OPENED: the batch's base offset, not negative
	Kids      []abi.Kid // RENEW: of the roots held, and of the leases
}

// What an answer takes beside its body, and blocks of abi beside the topic, in bytes.
const (
	answerHead = 4 + 4
	leaseHead  = abi.KidSize + 8 + 4 + 1 + abi.KeySize + 2
	rootHead   = abi.KidSize + abi.KeySize + 2
)

// Size is what the request takes in a plaintext, in bytes.
func (r *Request) Size() int {
	switch r.Op {
	case OpLease:
		return 1 + 2 + len(r.Topic)
	case OpRoot:
		return 1 + 2 + len(r.Topic) + 4 + abi.KidSize
	case OpOpened:
		return 1 + 2 + len(r.Topic) + abi.KidSize + 4 + 4 + 8
	case OpGroups:
		return 1
	default:
		return 1 + 2 + len(r.Kids)*abi.KidSize
	}
}

// AnswerSize is the most that the request's answer takes in a plaintext, in bytes.
func (r *Request) AnswerSize() int {
	switch r.Op {
	case OpLease:
		return answerHead + leaseHead + len(r.Topic)
	case OpRoot:
		return answerHead + rootHead + len(r.Topic)
	case OpOpened:
		return answerHead
	case OpGroups:
		return answerHead + wire.MaxCredentialSize
	default:
		return answerHead + 2 + len(r.Kids)*abi.KidSize
	}
}

// Fits is how many of requests, from the first on, one call can carry: they and their answers,
// as large as these can be, each fit into a plaintext.
func Fits(requests []Request) int {
	size, answers := 2, 2
	for i := range requests {
		size += requests[i].Size()
		answers += requests[i].AnswerSize()
		if size > MaxPlaintext || answers > MaxPlaintext {
			return i
		}
	}
	return len(requests)
}

// AppendRequests appends the plaintext of one call: the count, u16, and the requests. There are
// as many as Fits allows at most, and one at least.
func AppendRequests(b []byte, requests []Request) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(requests)))
	for i := range requests {
		r := &requests[i]
		b = append(b, byte(r.Op))
		switch r.Op {
		case OpRenew:
			b = AppendKids(b, r.Kids)
			continue
		case OpGroups:
			continue
		}
		b = binary.BigEndian.AppendUint16(b, uint16(len(r.Topic)))
		b = append(b, r.Topic...)
		switch r.Op {
		case OpRoot:
			b = binary.BigEndian.AppendUint32(b, uint32(r.Partition))
			b = append(b, r.Kid[:]...)
		case OpOpened:
			b = append(b, r.Kid[:]...)
			b = binary.BigEndian.AppendUint32(b, r.Leaf)
			b = binary.BigEndian.AppendUint32(b, uint32(r.Partition))
			b = binary.BigEndian.AppendUint64(b, uint64(r.Offset))
		}
	}
	return b
}

// ParseRequests reads exactly the plaintext of one call. None, and more than Fits allows, are
// malformed: their answers might not fit.
func ParseRequests(b []byte) ([]Request, error) {
	r := reader{b: b, bad: len(b) > MaxPlaintext}
	n := int(r.uint(2))
	r.bad = r.bad || n == 0
	var requests []Request
	for i := 0; i < n && !r.bad; i++ {
		q := Request{Op: Op(r.uint(1))}
		if q.Op == OpRenew || q.Op == OpGroups {
			if q.Op == OpRenew {
				q.Kids = r.kids()
			}
			requests = append(requests, q)
			continue
		}
		q.Topic = string(r.take(int(r.uint(2))))
		r.bad = r.bad || len(q.Topic) == 0 || len(q.Topic) > abi.MaxTopicLen
		switch q.Op {
		case OpLease:
		case OpRoot:
			q.Partition = r.int32()
			copy(q.Kid[:], r.take(abi.KidSize))
		case OpOpened:
			copy(q.Kid[:], r.take(abi.KidSize))
			q.Leaf = uint32(r.uint(4))
			q.Partition = r.int32()
			q.Offset = int64(r.uint(8))
			r.bad = r.bad || q.Offset < 0 || q.Leaf >= 1<<abi.TreeDepth
		default:
			r.bad = true
		}
		requests = append(requests, q)
	}
	r.bad = r.bad || Fits(requests) < len(requests)
	if err := r.end("requests"); err != nil {
		return nil, err
	}
	return requests, nil
}

func (r *reader) int32() int32 {
	v := r.uint(4)
	if v > math.MaxInt32 {
		r.bad = true
		return 0
	}
	return int32(v)
}

// kids reads a u16 count and that many kids.
func (r *reader) kids() []abi.Kid {
	p := r.take(int(r.uint(2)) * abi.KidSize)
	var kids []abi.Kid
	for ; len(p) > 0; p = p[abi.KidSize:] {
		kids = append(kids, abi.Kid(p[:abi.KidSize]))
	}
	return kids
}
