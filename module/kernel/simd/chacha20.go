package simd

// The scratch memory of one message. What is not listed is free.
const (
	atKey      = 0   // 32b: the message's key (draft-irtf-cfrg-xchacha-03 §2.3), SECRET
	atCounter  = 32  // 4b: of the next block
	atNonce    = 36  // 12b: 4 zeros and the last 8 bytes of the nonce
	atColumns  = 48  // 64b: words after the first round, but for every fourth, SECRET
	atRotate16 = 112 // 16b: which bytes rotate words by 16 bits
	atRotate8  = 128 // 16b: and by 8
	atBlocks   = 144 // 256b: four blocks, SECRET
	atHash     = 400 // 4 of 8b: Poly1305's accumulator in limbs of 32 bits, the last of 34
	atR        = 432 // 4 of 8b: r, clamped, SECRET
	atS        = 464 // 16b: s, SECRET
	atPad      = 480 // 16b: the last bytes of what is authenticated, padded
	atSum      = 496 // 16b: the tag

	stateSize = 512
)

// blockBytes are the four blocks that are computed at once.
const blockBytes = 256

// constants are "expand 32-byte k" (RFC 8439 §2.3).
var constants = [4]uint32{0x61707865, 0x3320646e, 0x79622d32, 0x6b206574}

// Rotation by whole bytes picks bytes; other rotations shift twice.
var (
	rotate16 = [16]byte{2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13}
	rotate8  = [16]byte{3, 0, 1, 2, 7, 4, 5, 6, 11, 8, 9, 10, 15, 12, 13, 14}
)

// A rotator holds which bytes rotations pick. They are loaded from scratch: from a constant V8
// would make them anew, in four instructions, wherever they are used.
type rotator struct{ by16, by8 local }

func (f *frame) rotator() rotator { return rotator{f.local(typeV128), f.local(typeV128)} }

func (r rotator) load(scratch local) code {
	return seq(
		r.by16.set(load(v128Load, scratch.get(), atRotate16)),
		r.by8.set(load(v128Load, scratch.get(), atRotate8)),
	)
}

func (r rotator) left(x local, n int32) code {
	switch n {
	case 16:
		return x.set(op(i8x16Swizzle, x.get(), r.by16.get()))
	case 8:
		return x.set(op(i8x16Swizzle, x.get(), r.by8.get()))
	}
	return x.set(op(v128Or, op(i32x4Shl, x.get(), i32(n)), op(i32x4ShrU, x.get(), i32(32-n))))
}

// quarters are quarter rounds (RFC 8439 §2.1) of each lane, step by step, since each step of
// one waits for the step before it.
func (r rotator) quarters(words ...[4]local) (c code) {
	addXor := func(x, y, z int, n int32) {
		for _, w := range words {
			c = append(c, seq(
				w[x].set(op(i32x4Add, w[x].get(), w[y].get())),
				w[z].set(op(v128Xor, w[z].get(), w[x].get())),
				r.left(w[z], n),
			)...)
		}
	}
	addXor(0, 1, 3, 16)
	addXor(2, 3, 1, 12)
	addXor(0, 1, 3, 8)
	addXor(2, 3, 1, 7)
	return c
}

// startMessage derives the message's key from key and the first 16 bytes of nonce (HChaCha20),
// and leaves it, block counter 0, the rest of the nonce and what rotator and cipher load in
// scratch. One block is four rows of four lanes; between the rounds the rows turn, so that
// columns are diagonals.
func (calls) startMessage() Function {
	f, p := params(3)
	key, nonce, scratch := p[0], p[1], p[2]
	rotate := f.rotator()
	row := [4]local(f.locals(typeV128, 4))
	n := f.local(typeI32)
	turn := func(x local, lanes byte) code {
		var pick [16]byte
		for i := range pick {
			pick[i] = (byte(i) + 4*lanes) % 16
		}
		return x.set(op(i8x16Swizzle, x.get(), v128Bytes(pick)))
	}
	return f.function("", 0,
		store(v128Store, scratch.get(), atRotate16, v128Bytes(rotate16)),
		store(v128Store, scratch.get(), atRotate8, v128Bytes(rotate8)),
		rotate.load(scratch),
		row[0].set(v128(constants[:]...)),
		row[1].set(load(v128Load, key.get(), 0)),
		row[2].set(load(v128Load, key.get(), 16)),
		row[3].set(load(v128Load, nonce.get(), 0)),
		n.set(i32(10)),
		repeat(n.get(),
			rotate.quarters(row),
			turn(row[1], 1), turn(row[2], 2), turn(row[3], 3),
			rotate.quarters(row),
			turn(row[1], 3), turn(row[2], 2), turn(row[3], 1),
			n.add(-1),
		),
		store(v128Store, scratch.get(), atKey, row[0].get()),
		store(v128Store, scratch.get(), atKey+16, row[3].get()),
		store(i64Store, scratch.get(), atCounter, i64(0)),
		store(i64Store, scratch.get(), atNonce+4, load(i64Load, nonce.get(), 16)),

		// Of the first round's columns all but the counter's are the same in every block.
		row[0].set(v128(constants[:]...)),
		row[1].set(load(v128Load, scratch.get(), atKey)),
		row[2].set(load(v128Load, scratch.get(), atKey+16)),
		row[3].set(load(v128Load, scratch.get(), atCounter)),
		rotate.quarters(row),
		store(v128Store, scratch.get(), atColumns, row[0].get()),
		store(v128Store, scratch.get(), atColumns+16, row[1].get()),
		store(v128Store, scratch.get(), atColumns+32, row[2].get()),
		store(v128Store, scratch.get(), atColumns+48, row[3].get()),
	)
}

// A cipher is what a function keeps of four blocks in locals: lane i of word j is word j of
// the i-th of them.
type cipher struct {
	rotator
	x, t    []local
	counter local
}

func (f *frame) cipher() cipher {
	return cipher{f.rotator(), f.locals(typeV128, 16), f.locals(typeV128, 4), f.local(typeV128)}
}

func (c cipher) load(scratch local) code {
	return seq(
		c.rotator.load(scratch),
		c.counter.set(op(i32x4Add, load(v128Load32Splat, scratch.get(), atCounter), v128(0, 1, 2, 3))),
	)
}

func (c cipher) store(scratch local) code {
	return store(i32Store, scratch.get(), atCounter, op(i32x4Extract0, c.counter.get()))
}

// word is word i before the rounds.
func (c cipher) word(scratch local, i int) code {
	switch {
	case i < 4:
		return splat(constants[i])
	case i == 12:
		return c.counter.get()
	}
	return load(v128Load32Splat, scratch.get(), uint32(4*(i-4)))
}

// begin is the first two rounds.
func (c cipher) begin(scratch local) (begin code) {
	for i, x := range c.x {
		if i%4 == 0 {
			begin = append(begin, x.set(c.word(scratch, i))...)
		} else {
			begin = append(begin, x.set(load(v128Load32Splat, scratch.get(), uint32(atColumns+4*i)))...)
		}
	}
	return seq(begin, c.quarters([4]local{c.x[0], c.x[4], c.x[8], c.x[12]}), c.diagonals())
}

func (c cipher) columns() code {
	x := c.x
	return c.quarters([4]local{x[0], x[4], x[8], x[12]}, [4]local{x[1], x[5], x[9], x[13]},
		[4]local{x[2], x[6], x[10], x[14]}, [4]local{x[3], x[7], x[11], x[15]})
}

func (c cipher) diagonals() code {
	x := c.x
	return c.quarters([4]local{x[0], x[5], x[10], x[15]}, [4]local{x[1], x[6], x[11], x[12]},
		[4]local{x[2], x[7], x[8], x[13]}, [4]local{x[3], x[4], x[9], x[14]})
}

// end follows the rounds: it encrypts 256 bytes and moves the counter on.
func (c cipher) end(scratch, at local) (end code) {
	for i, x := range c.x {
		end = append(end, x.set(op(i32x4Add, x.get(), c.word(scratch, i)))...)
	}
	// Words 4r to 4r+3 of the four blocks are a square that is turned over its diagonal. The last
	// bytes come first: an engine that has checked their bounds need not check others.
	for r := 3; r >= 0; r-- {
		w, t := c.x[4*r:4*r+4], c.t
		end = append(end, seq(
			t[0].set(shuffle(w[0].get(), w[1].get(), lowWords)), t[1].set(shuffle(w[2].get(), w[3].get(), lowWords)),
			t[2].set(shuffle(w[0].get(), w[1].get(), highWords)), t[3].set(shuffle(w[2].get(), w[3].get(), highWords)),
		)...)
		for block := 3; block >= 0; block-- {
			pair := t[block/2*2:]
			half := lowHalves
			if block%2 == 1 {
				half = highHalves
			}
			offset := uint32(64*block + 16*r)
			end = append(end, store(v128Store, at.get(), offset,
				op(v128Xor, load(v128Load, at.get(), offset), shuffle(pair[0].get(), pair[1].get(), half)))...)
		}
	}
	return seq(end, c.counter.set(op(i32x4Add, c.counter.get(), splat(4))))
}

// blocks encrypts n bytes at p in place, n a multiple of 256, with the state in scratch, and
// moves the counter on.
func blocks() Function {
	f, p := params(3)
	at, n, scratch := p[0], p[1], p[2]
	c := f.cipher()
	rounds := f.local(typeI32)
	return f.function("", 0,
		c.load(scratch),
		while(n.get(),
			c.begin(scratch),
			rounds.set(i32(9)),
			repeat(rounds.get(), c.columns(), c.diagonals(), rounds.add(-1)),
			c.end(scratch, at),
			at.add(blockBytes),
			n.add(-blockBytes),
		),
		c.store(scratch),
	)
}

// Which bytes shuffle takes to turn squares of words.
var (
	lowWords   = [16]byte{0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23}
	highWords  = [16]byte{8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31}
	lowHalves  = [16]byte{0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23}
	highHalves = [16]byte{8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31}
)
