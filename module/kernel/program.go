package kernel

import (
	"encoding/binary"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
)

// A Program is what one batch asks of the arithmetic, as a list that runs in one go: on the
// host's native back end, where there is one (foreign_wasip1.go), or on the functions of this
// package. It holds slices that are on no stack, since the host finds them by their address.
// The zero value is empty.
type Program struct {
	steps [abi.MaxSpanOps]step
	n     int
}

// A step is abi.SpanOp with slices.
type step struct {
	kind            abi.SpanKind
	codec           uint8
	sum             uint32
	data, head, out []byte
	key             *[KeySize]byte
	nonce           *[NonceSize]byte
}

// Check has the program stop unless sum is the CRC-32C of head and, after it, data.
func (p *Program) Check(head, data []byte, sum uint32) {
	s := p.next(abi.SpanCheck)
	s.head, s.data, s.sum = head, data, sum
}

// Sum writes the CRC-32C of head and, after it, data to out, big-endian.
func (p *Program) Sum(head, data []byte, out *[4]byte) {
	s := p.next(abi.SpanSum)
	s.head, s.data, s.out = head, data, out[:]
}

// Seal is the function Seal, as a step.
func (p *Program) Seal(buf []byte, key *[KeySize]byte, nonce *[NonceSize]byte, aad []byte) {
	s := p.next(abi.SpanSeal)
	s.data, s.key, s.nonce, s.head = buf, key, nonce, aad
}

// Open is the function Open, as a step: the program stops where that returns false.
func (p *Program) Open(buf []byte, key *[KeySize]byte, nonce *[NonceSize]byte, aad []byte) {
	s := p.next(abi.SpanOpen)
	s.data, s.key, s.nonce, s.head = buf, key, nonce, aad
}

func (p *Program) next(kind abi.SpanKind) *step {
	s := &p.steps[p.n]
	s.kind = kind
	p.n++
	return s
}

// Run runs the steps in order up to the first that is refused, empties the program, and
// returns how many were done.
func (p *Program) Run() (done int) {
	if Native() {
		done, _ = p.callForeign()
	} else {
		for done < p.n && p.steps[done].run() {
			done++
		}
	}
	clear(p.steps[:p.n])
	p.n = 0
	return done
}

func (s *step) run() bool {
	switch s.kind {
	case abi.SpanCheck:
		return UpdateCRC32C(CRC32C(s.head), s.data) == s.sum
	case abi.SpanSum:
		binary.BigEndian.PutUint32(s.out, UpdateCRC32C(CRC32C(s.head), s.data))
	case abi.SpanSeal:
		Seal(s.data, s.key, s.nonce, s.head)
	case abi.SpanOpen:
		return Open(s.data, s.key, s.nonce, s.head)
	}
	return true
}

// Inflate decompresses b into out on the native back end, which there must be, and returns how
// many bytes that made. It returns false where the back end refuses: the caller's own
// decompressor then says why.
func Inflate(codec uint8, b, out []byte) (made int, ok bool) {
	var p Program
	s := p.next(abi.SpanInflate)
	s.codec, s.data, s.out = codec, b, out
	done, made := p.callForeign()
	return made, done == 1
}
