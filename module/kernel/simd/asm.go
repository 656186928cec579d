package simd

import (
	"encoding/binary"
	"slices"
)

// A code is a piece of a function: instructions that leave one value on the stack (an
// expression) or none (a statement). Pieces nest by concatenation.
type code []byte

func seq(parts ...code) code { return slices.Concat(parts...) }

// op is an instruction after its operands.
func op(opcode string, operands ...code) code { return append(seq(operands...), opcode...) }

func uleb(n uint32) []byte { return binary.AppendUvarint(nil, uint64(n)) }

func sleb(n int64) (b []byte) {
	for {
		low := byte(n & 0x7f)
		if n >>= 7; n == 0 && low&0x40 == 0 || n == -1 && low&0x40 != 0 {
			return append(b, low)
		}
		b = append(b, low|0x80)
	}
}

func i32(n int32) code { return append(code{0x41}, sleb(int64(n))...) }
func i64(n int64) code { return append(code{0x42}, sleb(n)...) }

// v128 is a constant of four 32-bit lanes.
func v128(lanes ...uint32) code {
	c := code(v128Const)
	for _, lane := range lanes {
		c = binary.LittleEndian.AppendUint32(c, lane)
	}
	return c
}

// v128Bytes is a constant of 16 bytes.
func v128Bytes(lanes [16]byte) code { return append(code(v128Const), lanes[:]...) }

// splat is a constant of four equal lanes.
func splat(lane uint32) code { return v128(lane, lane, lane, lane) }

// load reads at an address plus a constant offset, in bytes, of any alignment.
func load(opcode string, at code, offset uint32) code {
	return append(op(opcode, at), append([]byte{0}, uleb(offset)...)...)
}

func store(opcode string, at code, offset uint32, value code) code {
	return append(op(opcode, at, value), append([]byte{0}, uleb(offset)...)...)
}

// shuffle picks 16 of the 32 bytes of a and b.
func shuffle(a, b code, lanes [16]byte) code { return append(op(i8x16Shuffle, a, b), lanes[:]...) }

func call(function uint32, arguments ...code) code {
	return append(op("\x10", arguments...), uleb(function)...)
}

// copyBytes moves n bytes, which may overlap.
func copyBytes(to, from, n code) code { return op("\xfc\x0a\x00\x00", to, from, n) }

// zeroBytes sets n bytes to zero.
func zeroBytes(to, n code) code { return op("\xfc\x0b\x00", to, i32(0), n) }

// while runs body as long as condition is not 0.
func while(condition code, body ...code) code {
	return when(condition, op("\x03\x40"), seq(body...), condition, op("\x0d\x00\x0b"))
}

// repeat runs body until condition, which follows it, is 0.
func repeat(condition code, body ...code) code {
	return seq(op("\x03\x40"), seq(body...), condition, op("\x0d\x00\x0b"))
}

func when(condition code, body ...code) code {
	return seq(condition, op("\x04\x40"), seq(body...), op("\x0b"))
}

// A local is a parameter or a variable of a function, by index.
type local uint32

func (l local) get() code       { return append(code{0x20}, uleb(uint32(l))...) }
func (l local) set(v code) code { return append(append(v[:len(v):len(v)], 0x21), uleb(uint32(l))...) }

// add adds a constant to a local of 32 bits.
func (l local) add(n int32) code { return l.set(op(i32Add, l.get(), i32(n))) }

// Value types.
const (
	typeI32  = 0x7f
	typeI64  = 0x7e
	typeV128 = 0x7b
)

// A frame gives out the locals of one function.
type frame struct {
	params int
	types  []byte
}

// params begins a function with n parameters, all i32.
func params(n int) (*frame, []local) {
	f := &frame{params: n}
	locals := make([]local, n)
	for i := range locals {
		locals[i] = local(i)
	}
	return f, locals
}

// local returns a new variable, which starts at 0.
func (f *frame) local(valueType byte) local {
	f.types = append(f.types, valueType)
	return local(f.params + len(f.types) - 1)
}

func (f *frame) locals(valueType byte, n int) []local {
	all := make([]local, n)
	for i := range all {
		all[i] = f.local(valueType)
	}
	return all
}

// function ends a function whose body is made of statements, and of an expression at the end
// where it has a result, an i32.
func (f *frame) function(name string, results int, body ...code) Function {
	b := uleb(uint32(len(f.types)))
	for _, t := range f.types {
		b = append(b, 1, t)
	}
	return Function{
		Name:    name,
		Params:  slices.Repeat([]byte{typeI32}, f.params),
		Results: slices.Repeat([]byte{typeI32}, results),
		Body:    append(append(b, seq(body...)...), 0x0b),
	}
}
