package simd

// The first four blocks are computed together: block 0 is the authenticator's key (RFC 8439
// §2.6), and the others encrypt the first bytes of the message.
const firstBytes = blockBytes - 64

// rMask clamps r (RFC 8439 §2.5).
var rMask = [4]int64{0x0fffffff, 0x0ffffffc, 0x0ffffffc, 0x0ffffffc}

// A message is what seal and open have in common.
type message struct {
	calls
	*frame
	buf, n, aad, aadSize, key, nonce, scratch local
	first, rest                               local // sizes
}

func (c calls) message() message {
	f, p := params(7)
	return message{c, f, p[0], p[1], p[2], p[3], p[4], p[5], p[6], f.local(typeI32), f.local(typeI32)}
}

// in is an address in scratch.
func (m message) in(offset int32) code { return op(i32Add, m.scratch.get(), i32(offset)) }

// begin computes the first blocks over a copy of the message's first bytes, keys the
// authenticator, and has it absorb the associated data.
func (m message) begin() code {
	c := seq(
		call(m.start, m.key.get(), m.nonce.get(), m.scratch.get()),
		m.first.set(m.n.get()),
		when(op(i32GtU, m.n.get(), i32(firstBytes)), m.first.set(i32(firstBytes))),
		m.rest.set(op(i32Sub, m.n.get(), m.first.get())),
		zeroBytes(m.in(atBlocks), i32(blockBytes)),
		copyBytes(m.in(atBlocks+64), m.buf.get(), m.first.get()),
		call(m.blocks, m.in(atBlocks), i32(blockBytes), m.scratch.get()),
		zeroBytes(m.in(atHash), i32(5*8)),
	)
	for i, mask := range rMask {
		c = append(c, store(i64Store, m.scratch.get(), uint32(atR+8*i),
			op(i64And, limb(m.scratch, uint32(atBlocks+4*i)), i64(mask)))...)
	}
	return seq(c,
		store(v128Store, m.scratch.get(), atS, load(v128Load, m.scratch.get(), atBlocks+16)),
		call(m.absorb, m.aad.get(), m.aadSize.get(), m.scratch.get()),
	)
}

// crypt puts the first bytes in their place and works on the rest.
func (m message) crypt() code {
	at := m.frame.local(typeI32)
	tail := m.frame.local(typeI32)
	return seq(
		copyBytes(m.buf.get(), m.in(atBlocks+64), m.first.get()),
		at.set(op(i32Add, m.buf.get(), m.first.get())),
		tail.set(op(i32And, m.rest.get(), i32(blockBytes-1))),
		m.rest.set(op(i32Sub, m.rest.get(), tail.get())),
		call(m.blocks, at.get(), m.rest.get(), m.scratch.get()),
		when(tail.get(),
			at.set(op(i32Add, at.get(), m.rest.get())),
			copyBytes(m.in(atBlocks), at.get(), tail.get()),
			call(m.blocks, m.in(atBlocks), i32(blockBytes), m.scratch.get()),
			copyBytes(at.get(), m.in(atBlocks), tail.get()),
		),
	)
}

// authenticate absorbs the ciphertext and the sizes, and leaves the tag in scratch.
func (m message) authenticate() code {
	return seq(
		call(m.absorb, m.buf.get(), m.n.get(), m.scratch.get()),
		store(i64Store, m.scratch.get(), atPad, op(i64ExtendI32, m.aadSize.get())),
		store(i64Store, m.scratch.get(), atPad+8, op(i64ExtendI32, m.n.get())),
		call(m.absorb, m.in(atPad), i32(16), m.scratch.get()),
		call(m.sum, m.scratch.get()),
	)
}

func (m message) wipe() code { return zeroBytes(m.scratch.get(), i32(stateSize)) }

// tag is where the message's tag is or goes.
func (m message) tag() code { return op(i32Add, m.buf.get(), m.n.get()) }

func (c calls) seal() Function {
	m := c.message()
	return m.function("seal", 0,
		m.begin(), m.crypt(), m.authenticate(),
		store(v128Store, m.tag(), 0, load(v128Load, m.scratch.get(), atSum)),
		m.wipe(),
	)
}

// open decrypts the first bytes in scratch before the tag is checked, and no others. It puts
// nothing into buf unless the tag is right.
func (c calls) open() Function {
	m := c.message()
	ok := m.frame.local(typeI32)
	return m.function("open", 1,
		m.begin(), m.authenticate(),
		ok.set(op(i32Eqz, op(v128AnyTrue, op(v128Xor, load(v128Load, m.scratch.get(), atSum), load(v128Load, m.tag(), 0))))),
		when(ok.get(), m.crypt()),
		m.wipe(),
		ok.get(),
	)
}
