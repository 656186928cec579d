package simd

// The scratch memory of one message. What is not listed is free.
const (
	atKey     = 0   // 32b: the message's key (draft-irtf-cfrg-xchacha-03 §2.3), SECRET
	atCounter = 32  // 4b: of the next block
	atNonce   = 36  // 12b: 4 zeros and the last 8 bytes of the nonce
	atBlocks  = 64  // 256b: four blocks, SECRET
	atHash    = 320 // 5 of 8b: Poly1305's accumulator in limbs of 32 bits
	atR       = 360 // 4 of 8b: r, clamped, SECRET
	atS       = 392 // 16b: s, SECRET
	atPad     = 408 // 16b: the last bytes of what is authenticated, padded
	atSum     = 424 // 16b: the tag

	stateSize = 440
)

// blockBytes are the four blocks that are computed at once.
const blockBytes = 256

// constants are "expand 32-byte k" (RFC 8439 §2.3).
var constants = [4]uint32{0x61707865, 0x3320646e, 0x79622d32, 0x6b206574}

// rotation by whole bytes picks bytes, which engines do in one instruction where the lanes are
// a constant. Other rotations shift twice.
var (
	rotate16 = [16]byte{2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13}
	rotate8  = [16]byte{3, 0, 1, 2, 7, 4, 5, 6, 11, 8, 9, 10, 15, 12, 13, 14}
)

func rotateLeft(x local, n int32) code {
	switch n {
	case 16:
		return x.set(op(i8x16Swizzle, x.get(), v128Bytes(rotate16)))
	case 8:
		return x.set(op(i8x16Swizzle, x.get(), v128Bytes(rotate8)))
	}
	return x.set(op(v128Or, op(i32x4Shl, x.get(), i32(n)), op(i32x4ShrU, x.get(), i32(32-n))))
}

// quarter is the quarter round (RFC 8439 §2.1) of each lane.
func quarter(a, b, c, d local) code {
	addXor := func(x, y, z local, n int32) code {
		return seq(x.set(op(i32x4Add, x.get(), y.get())), z.set(op(v128Xor, z.get(), x.get())), rotateLeft(z, n))
	}
	return seq(addXor(a, b, d, 16), addXor(c, d, b, 12), addXor(a, b, d, 8), addXor(c, d, b, 7))
}

// startMessage derives the message's key from key and the first 16 bytes of nonce (HChaCha20),
// and leaves it, block counter 0 and the rest of the nonce in scratch. One block is four rows
// of four lanes; between the rounds the rows turn, so that columns are diagonals.
func (calls) startMessage() Function {
	f, p := params(3)
	key, nonce, scratch := p[0], p[1], p[2]
	row := f.locals(typeV128, 4)
	n := f.local(typeI32)
	turn := func(x local, lanes byte) code {
		var pick [16]byte
		for i := range pick {
			pick[i] = (byte(i) + 4*lanes) % 16
		}
		return x.set(op(i8x16Swizzle, x.get(), v128Bytes(pick)))
	}
	return f.function("", 0,
		row[0].set(v128(constants[:]...)),
		row[1].set(load(v128Load, key.get(), 0)),
		row[2].set(load(v128Load, key.get(), 16)),
		row[3].set(load(v128Load, nonce.get(), 0)),
		n.set(i32(10)),
		repeat(n.get(),
			quarter(row[0], row[1], row[2], row[3]),
			turn(row[1], 1), turn(row[2], 2), turn(row[3], 3),
			quarter(row[0], row[1], row[2], row[3]),
			turn(row[1], 3), turn(row[2], 2), turn(row[3], 1),
			n.add(-1),
		),
		store(v128Store, scratch.get(), atKey, row[0].get()),
		store(v128Store, scratch.get(), atKey+16, row[3].get()),
		store(i64Store, scratch.get(), atCounter, i64(0)),
		store(i64Store, scratch.get(), atNonce+4, load(i64Load, nonce.get(), 16)),
	)
}

// blocks encrypts n bytes at p in place, n a multiple of 256, with the state in scratch, and
// moves the counter on. Lane i of word j is word j of the i-th of four blocks.
func blocks() Function {
	f, p := params(3)
	at, n, scratch := p[0], p[1], p[2]
	x := f.locals(typeV128, 16)
	counter := f.local(typeV128)
	rounds := f.local(typeI32)

	var begin, end, out code
	word := func(i int) code { // as it is before the rounds
		switch {
		case i < 4:
			return splat(constants[i])
		case i == 12:
			return counter.get()
		}
		return load(v128Load32Splat, scratch.get(), uint32(4*(i-4)))
	}
	for i := range x {
		begin = append(begin, x[i].set(word(i))...)
		end = append(end, x[i].set(op(i32x4Add, x[i].get(), word(i)))...)
	}
	// Words 4r to 4r+3 of the four blocks are a square that is turned over its diagonal.
	t := []local{f.local(typeV128), f.local(typeV128), f.local(typeV128), f.local(typeV128)}
	// The last bytes come first: an engine that has checked their bounds need not check others.
	for r := 3; r >= 0; r-- {
		w := x[4*r : 4*r+4]
		out = append(out, seq(
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
			out = append(out, store(v128Store, at.get(), offset,
				op(v128Xor, load(v128Load, at.get(), offset), shuffle(pair[0].get(), pair[1].get(), half)))...)
		}
	}
	return f.function("", 0,
		counter.set(op(i32x4Add, load(v128Load32Splat, scratch.get(), atCounter), v128(0, 1, 2, 3))),
		while(n.get(),
			begin,
			rounds.set(i32(10)),
			repeat(rounds.get(),
				quarter(x[0], x[4], x[8], x[12]), quarter(x[1], x[5], x[9], x[13]),
				quarter(x[2], x[6], x[10], x[14]), quarter(x[3], x[7], x[11], x[15]),
				quarter(x[0], x[5], x[10], x[15]), quarter(x[1], x[6], x[11], x[12]),
				quarter(x[2], x[7], x[8], x[13]), quarter(x[3], x[4], x[9], x[14]),
				rounds.add(-1),
			),
			end,
			out,
			counter.set(op(i32x4Add, counter.get(), splat(4))),
			at.add(blockBytes),
			n.add(-blockBytes),
		),
		store(i32Store, scratch.get(), atCounter, op(i32x4Extract0, counter.get())),
	)
}

// Which bytes shuffle takes to turn squares of words.
var (
	lowWords   = [16]byte{0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23}
	highWords  = [16]byte{8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31}
	lowHalves  = [16]byte{0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23}
	highHalves = [16]byte{8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31}
)
