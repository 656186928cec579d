package simd

// CRC-32C (RFC 3720 §12.1) is the remainder of the message, as a polynomial over GF(2), by
// P = 0x11EDC6F41. Without an instruction that multiplies polynomials a table takes 16 bytes
// at a time (divide). A long message is first made short: with y = x^128,
//
//	y^79 + y^75 + y^71 + y^58 + y^18 + y^12 + y + 1
//
// is a multiple of P, so that the message may be divided by that instead, which takes seven
// XORs of 16 bytes for each 16 bytes, until 79 times 16 bytes remain. They have the remainder
// that the message has. Of all multiples with so few terms this one is of the lowest degree;
// fewer terms need a degree above 200.

// crcBack are the distances, in units of 16 bytes, from a unit to those above it that are
// added to it: 79 less each exponent but the first.
var crcBack = [...]uint32{4, 8, 21, 61, 67, 78, 79}

const (
	crcDegree  = 79
	crcHistory = crcDegree * 16
	crcChunk   = 8 << 10 // bytes between two moves of the history
	crcScratch = crcHistory + crcChunk
	crcUnroll  = 4 // units; no distance is shorter

	crcShortest = 2 << 10 // bytes below which the table is faster
)

// Table returns what the function crc32c looks up: at 256 k + b the remainder of byte b
// followed by k zeros.
func Table() *[TableSize / 4]uint32 {
	const p = 0x82f63b78 // bit-reversed, without the highest
	var t [TableSize / 4]uint32
	for b := range 256 {
		r := uint32(b)
		for range 8 {
			r = r>>1 ^ p&-(r&1)
		}
		t[b] = r
	}
	for i := 256; i < len(t); i++ {
		r := t[i-256]
		t[i] = r>>8 ^ t[byte(r)]
	}
	return &t
}

// divide goes on with the remainder crc through the n bytes at p: 16 at a time, and the last
// ones byte by byte.
func divide() Function {
	f, p := params(4)
	crc, at, n, table := p[0], p[1], p[2], p[3]
	word, next := f.local(typeI32), f.local(typeI32)
	lookUp := func(w local, byteOf, zeros int) code {
		index := op(i32Shl, w.get(), i32(2))
		if byteOf > 0 {
			index = op(i32ShrU, w.get(), i32(int32(8*byteOf-2)))
		}
		return load(i32Load, op(i32Add, table.get(), op(i32And, index, i32(0x3fc))), uint32(1024*zeros))
	}
	step := next.set(i32(0))
	for i := 3; i >= 0; i-- {
		w := load(i32Load, at.get(), uint32(4*i))
		if i == 0 {
			w = op(i32Xor, w, crc.get())
		}
		step = append(step, word.set(w)...)
		sum := next.get()
		for b := range 4 {
			sum = op(i32Xor, sum, lookUp(word, b, 15-4*i-b))
		}
		step = append(step, next.set(sum)...)
	}
	return f.function("", 1,
		while(op(i32GeU, n.get(), i32(16)), step, crc.set(next.get()), at.add(16), n.add(-16)),
		while(n.get(),
			word.set(op(i32Xor, crc.get(), load(i32Load8, at.get(), 0))),
			crc.set(op(i32Xor, op(i32ShrU, crc.get(), i32(8)), lookUp(word, 0, 0))),
			at.add(1), n.add(-1),
		),
		crc.get(),
	)
}

// crc32c goes on with crc, which is 0 at a message's start, through the n bytes at p.
func (c calls) crc32c() Function {
	f, p := params(5)
	crc, at, n, table, scratch := p[0], p[1], p[2], p[3], p[4]
	long, chunk, q := f.local(typeI32), f.local(typeI32), f.local(typeI32)

	// unit is 16 bytes of the message and what the units above add to them. q is where the
	// history of 79 units before them begins.
	unit := func(i uint32) code {
		sum := load(v128Load, at.get(), 16*i)
		for _, back := range crcBack {
			sum = op(v128Xor, sum, load(v128Load, q.get(), 16*(i+crcDegree-back)))
		}
		return sum
	}
	var units code
	for i := range uint32(crcUnroll) {
		units = append(units, store(v128Store, q.get(), crcHistory+16*i, unit(i))...)
	}
	const step = 16 * crcUnroll
	return f.function("crc32c", 1,
		crc.set(op(i32Xor, crc.get(), i32(-1))),
		when(op(i32GeU, n.get(), i32(crcShortest)),
			// The remainder so far belongs to the first unit, to which alone the oldest of the
			// history is added.
			zeroBytes(scratch.get(), i32(crcHistory)),
			store(i32Store, scratch.get(), 0, crc.get()),
			long.set(op(i32And, op(i32Sub, n.get(), i32(crcHistory)), i32(-step))),
			n.set(op(i32Sub, n.get(), long.get())),
			while(long.get(),
				chunk.set(long.get()),
				when(op(i32GtU, chunk.get(), i32(crcChunk)), chunk.set(i32(crcChunk))),
				long.set(op(i32Sub, long.get(), chunk.get())),
				q.set(scratch.get()),
				repeat(op(i32LtU, q.get(), op(i32Add, scratch.get(), chunk.get())),
					units, at.add(step), q.add(step)),
				copyBytes(scratch.get(), q.get(), i32(crcHistory)),
			),
			// The last 79 units keep what was added to them, and add to none.
			zeroBytes(op(i32Add, scratch.get(), i32(crcHistory)), i32(crcHistory)),
			q.set(scratch.get()),
			repeat(op(i32LtU, q.get(), op(i32Add, scratch.get(), i32(crcHistory))),
				store(v128Store, q.get(), 2*crcHistory, unit(0)), at.add(16), q.add(16)),
			n.set(op(i32Sub, n.get(), i32(crcHistory))),
			crc.set(call(c.divide, i32(0), op(i32Add, scratch.get(), i32(2*crcHistory)), i32(crcHistory), table.get())),
			zeroBytes(scratch.get(), i32(crcScratch)),
		),
		op(i32Xor, call(c.divide, crc.get(), at.get(), n.get(), table.get()), i32(-1)),
	)
}
