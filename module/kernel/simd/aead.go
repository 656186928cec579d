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
	first, whole, tail, at                    local
}

func (c calls) message() message {
	f, p := params(7)
	v := f.locals(typeI32, 4)
	return message{c, f, p[0], p[1], p[2], p[3], p[4], p[5], p[6], v[0], v[1], v[2], v[3]}
}

// in is an address in scratch.
func (m message) in(offset int32) code { return op(i32Add, m.scratch.get(), i32(offset)) }

// begin computes the first blocks over a copy of the message's first bytes, keys the
// authenticator, and has it absorb the associated data. Behind the first bytes, at at, the
// message goes on with whole bytes, a multiple of 256, and then those of tail, which are fewer.
func (m message) begin() code {
	c := seq(
		call(m.start, m.key.get(), m.nonce.get(), m.scratch.get()),
		m.first.set(m.n.get()),
		when(op(i32GtU, m.n.get(), i32(firstBytes)), m.first.set(i32(firstBytes))),
		m.at.set(op(i32Add, m.buf.get(), m.first.get())),
		m.tail.set(op(i32And, op(i32Sub, m.n.get(), m.first.get()), i32(blockBytes-1))),
		m.whole.set(op(i32Sub, op(i32Sub, m.n.get(), m.first.get()), m.tail.get())),
		zeroBytes(m.in(atBlocks), i32(blockBytes)),
		copyBytes(m.in(atBlocks+64), m.buf.get(), m.first.get()),
		call(m.blocks, m.in(atBlocks), i32(blockBytes), m.scratch.get()),
		zeroBytes(m.in(atHash), i32(4*8)),
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

// putFirst puts the first bytes in their place.
func (m message) putFirst() code {
	return copyBytes(m.buf.get(), m.in(atBlocks+64), m.first.get())
}

func (m message) absorbFirst() code {
	return call(m.absorb, m.buf.get(), m.first.get(), m.scratch.get())
}

// behind is the address of the tail.
func (m message) behind() code { return op(i32Add, m.at.get(), m.whole.get()) }

func (m message) cryptTail() code {
	return when(m.tail.get(),
		copyBytes(m.in(atBlocks), m.behind(), m.tail.get()),
		call(m.blocks, m.in(atBlocks), i32(blockBytes), m.scratch.get()),
		copyBytes(m.behind(), m.in(atBlocks), m.tail.get()),
	)
}

// authenticate absorbs the tail and the sizes, and leaves the tag in scratch.
func (m message) authenticate() code {
	return seq(
		call(m.absorb, m.behind(), m.tail.get(), m.scratch.get()),
		store(i64Store, m.scratch.get(), atPad, op(i64ExtendI32, m.aadSize.get())),
		store(i64Store, m.scratch.get(), atPad+8, op(i64ExtendI32, m.n.get())),
		call(m.absorb, m.in(atPad), i32(16), m.scratch.get()),
		call(m.sum, m.scratch.get()),
	)
}

func (m message) wipe() code { return zeroBytes(m.scratch.get(), i32(stateSize)) }

// tag is where the message's tag is or goes.
func (m message) tag() code { return op(i32Add, m.buf.get(), m.n.get()) }

// seal absorbs each 256 bytes while it encrypts those that follow them.
func (c calls) seal() Function {
	m := c.message()
	last := i32(-blockBytes)
	return m.function("seal", 0,
		m.begin(),
		m.putFirst(),
		m.absorbFirst(),
		when(m.whole.get(),
			call(m.blocks, m.at.get(), i32(blockBytes), m.scratch.get()),
			call(m.stitched, op(i32Add, m.at.get(), i32(blockBytes)), op(i32Add, m.whole.get(), last), m.at.get(), m.scratch.get()),
			call(m.absorb, op(i32Add, m.behind(), last), i32(blockBytes), m.scratch.get()),
		),
		m.cryptTail(),
		m.authenticate(),
		store(v128Store, m.tag(), 0, load(v128Load, m.scratch.get(), atSum)),
		m.wipe(),
	)
}

// open absorbs each 256 bytes before it decrypts them in place. Where the tag is not right it
// encrypts them again, so that nobody but this function sees bytes that are not authentic.
func (c calls) open() Function {
	m := c.message()
	ok := m.frame.local(typeI32)
	return m.function("open", 1,
		m.begin(),
		m.absorbFirst(),
		call(m.stitched, m.at.get(), m.whole.get(), m.at.get(), m.scratch.get()),
		m.authenticate(),
		ok.set(op(i32Eqz, op(v128AnyTrue, op(v128Xor, load(v128Load, m.scratch.get(), atSum), load(v128Load, m.tag(), 0))))),
		when(ok.get(), m.putFirst(), m.cryptTail()),
		when(op(i32Eqz, ok.get()),
			store(i32Store, m.scratch.get(), atCounter, i32(blockBytes/64)),
			call(m.blocks, m.at.get(), m.whole.get(), m.scratch.get()),
		),
		m.wipe(),
		ok.get(),
	)
}
