package channel

import (
	"encoding/binary"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
)

// An Answer is what one request came to. Answers stand in the order of the requests.
//
//	4b: status, an abi.Status
//	4b: length of body, 0 unless the status is StatusOK, then its bytes:
//	    LEASE   the Lease block (SPEC.md §4.2), SECRET
//	    ROOT    the Root block (SPEC.md §4.3), SECRET
//	    RENEW   2b: n; n kids of 8b, which may be kept for RootLife from the call on
//	    OPENED  empty
//	    GROUPS  the group patterns of the node's Credential, as wire.ParsePatterns reads them
type Answer struct {
	Status abi.Status
	Body   []byte
}

// AppendCount begins the plaintext of an answer to a call of n requests. As many AppendAnswer
// follow.
func AppendCount(b []byte, n int) []byte { return binary.BigEndian.AppendUint16(b, uint16(n)) }

// AppendAnswer appends one answer. b has room for it where it has room for the AnswerSize of
// each request, so that no copy of a key stays behind in an array that became too small.
func AppendAnswer(b []byte, a Answer) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(a.Status))
	b = binary.BigEndian.AppendUint32(b, uint32(len(a.Body)))
	return append(b, a.Body...)
}

// ParseAnswers reads exactly the plaintext of an answer to a call of n requests. Bodies alias
// b; abi.ParseLease, abi.ParseRoot and ParseKids read them, and whether they are what was asked
// for, by topic and kid, is for the caller to see.
func ParseAnswers(b []byte, n int) ([]Answer, error) {
	r := reader{b: b, bad: len(b) > MaxPlaintext}
	r.bad = int(r.uint(2)) != n || r.bad
	var answers []Answer
	for i := 0; i < n && !r.bad; i++ {
		a := Answer{Status: abi.Status(r.uint(4))}
		size := r.uint(4)
		if size > MaxPlaintext || size > 0 && a.Status != abi.StatusOK {
			r.bad = true
			break
		}
		a.Body = r.take(int(size))
		answers = append(answers, a)
	}
	if err := r.end("answers"); err != nil {
		return nil, err
	}
	return answers, nil
}

// AppendKids appends a list of kids: the body of an answer to RENEW.
func AppendKids(b []byte, kids []abi.Kid) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(kids)))
	for _, kid := range kids {
		b = append(b, kid[:]...)
	}
	return b
}

// ParseKids reads exactly one list of kids.
func ParseKids(b []byte) ([]abi.Kid, error) {
	r := reader{b: b}
	kids := r.kids()
	if err := r.end("kids"); err != nil {
		return nil, err
	}
	return kids, nil
}
