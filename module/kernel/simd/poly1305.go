package simd

// Poly1305 (RFC 8439 §2.5) in limbs of 32 bits held in 64, the highest of 34. What passes
// 2^128 comes back times 5 / 4, and since the clamped r's upper limbs are multiples of 4, that
// is r and a quarter of it.
//
// That sums fit: in units of 2^32 the limbs of h with a block added are at most 3.25, 2, 2 and
// 6; those of r are below 2^28. The largest sum of products is that of the lowest limb, of
// 3.25 + 1.25 (2 + 2 + 6) = 15.75 times 2^60. The highest limb's is less, so that less than 2^30
// passes 2^130, and 5 times it leaves the lowest limb below 2.25.

const limbMask = 1<<32 - 1

// limb reads 32 bits.
func limb(at local, offset uint32) code { return load(i64Load32, at.get(), offset) }

func mul(a, b local) code { return op(i64Mul, a.get(), b.get()) }

func plus(terms ...code) code {
	sum := terms[0]
	for _, t := range terms[1:] {
		sum = op(i64Add, sum, t)
	}
	return sum
}

func high(x local) code { return op(i64ShrU, x.get(), i64(32)) }
func low(x local) code  { return op(i64And, x.get(), i64(limbMask)) }

// An authenticator is what a function keeps of Poly1305 in locals: the accumulator h, r,
// s = 5 r / 4, and the products d.
type authenticator struct{ h, r, s, d []local }

func (f *frame) authenticator() authenticator {
	return authenticator{f.locals(typeI64, 4), f.locals(typeI64, 4), f.locals(typeI64, 4), f.locals(typeI64, 4)}
}

func (a authenticator) load(scratch local) (c code) {
	for i := range a.h {
		c = append(c, a.h[i].set(load(i64Load, scratch.get(), uint32(atHash+8*i)))...)
	}
	for i := range a.r {
		c = append(c, a.r[i].set(load(i64Load, scratch.get(), uint32(atR+8*i)))...)
		if i > 0 {
			c = append(c, a.s[i].set(plus(a.r[i].get(), op(i64ShrU, a.r[i].get(), i64(2))))...)
		}
	}
	return c
}

func (a authenticator) store(scratch local) (c code) {
	for i := range a.h {
		c = append(c, store(i64Store, scratch.get(), uint32(atHash+8*i), a.h[i].get())...)
	}
	return c
}

// block absorbs 16 bytes.
func (a authenticator) block(at local, offset uint32) code {
	h, r, s, d := a.h, a.r, a.s, a.d
	return seq(
		h[3].set(plus(h[3].get(), limb(at, offset+12), i64(1<<32))),
		h[2].set(plus(h[2].get(), limb(at, offset+8))),
		h[1].set(plus(h[1].get(), limb(at, offset+4))),
		h[0].set(plus(h[0].get(), limb(at, offset))),

		d[0].set(plus(mul(h[0], r[0]), mul(h[1], s[3]), mul(h[2], s[2]), mul(h[3], s[1]))),
		d[1].set(plus(mul(h[0], r[1]), mul(h[1], r[0]), mul(h[2], s[3]), mul(h[3], s[2]), high(d[0]))),
		d[2].set(plus(mul(h[0], r[2]), mul(h[1], r[1]), mul(h[2], r[0]), mul(h[3], s[3]), high(d[1]))),
		d[3].set(plus(mul(h[0], r[3]), mul(h[1], r[2]), mul(h[2], r[1]), mul(h[3], r[0]), high(d[2]))),

		h[0].set(op(i64ShrU, d[3].get(), i64(34))),
		h[0].set(plus(low(d[0]), h[0].get(), op(i64Shl, h[0].get(), i64(2)))),
		h[1].set(low(d[1])), h[2].set(low(d[2])), h[3].set(op(i64And, d[3].get(), i64(1<<34-1))),
	)
}

// absorb takes the n bytes at p, padded with zeros to a multiple of 16, into the accumulator
// in scratch.
func absorb() Function {
	f, p := params(3)
	at, n, scratch := p[0], p[1], p[2]
	a := f.authenticator()
	return f.function("", 0,
		a.load(scratch),
		repeat(n.get(),
			while(op(i32GeU, n.get(), i32(16)), a.block(at, 0), at.add(16), n.add(-16)),
			when(n.get(),
				store(v128Store, scratch.get(), atPad, splat(0)),
				copyBytes(op(i32Add, scratch.get(), i32(atPad)), at.get(), n.get()),
				at.set(op(i32Add, scratch.get(), i32(atPad))),
				n.set(i32(16)),
			),
		),
		a.store(scratch),
	)
}

// sum writes the tag of what scratch absorbed to scratch.
func sum() Function {
	f, p := params(1)
	scratch := p[0]
	h, g, carry := f.locals(typeI64, 5), f.locals(typeI64, 5), f.local(typeI64)

	var begin, reduce, choose, end code
	for i := range 4 {
		begin = append(begin, h[i].set(load(i64Load, scratch.get(), uint32(atHash+8*i)))...)
	}
	pass := seq()
	for i := range 4 {
		pass = append(pass, seq(h[i+1].set(plus(h[i+1].get(), high(h[i]))), h[i].set(low(h[i])))...)
	}
	fold := seq(
		h[0].set(plus(h[0].get(), op(i64ShrU, h[4].get(), i64(2)), op(i64And, h[4].get(), i64(-4)))),
		h[4].set(op(i64And, h[4].get(), i64(3))),
	)
	// g is h - (2^130 - 5), and it is the result where it is not negative.
	reduce = g[0].set(plus(h[0].get(), i64(5)))
	for i := range 4 {
		reduce = append(reduce, g[i+1].set(plus(h[i+1].get(), high(g[i])))...)
	}
	choose = carry.set(op(i64Sub, i64(0), op(i64ShrU, g[4].get(), i64(2))))
	for i := range 4 {
		choose = append(choose, h[i].set(op(i64Xor, h[i].get(), op(i64And, carry.get(), op(i64Xor, h[i].get(), low(g[i])))))...)
	}
	end = carry.set(i64(0))
	for i := range 4 {
		end = append(end, seq(
			carry.set(plus(h[i].get(), limb(scratch, uint32(atS+4*i)), high(carry))),
			store(i64Store32, scratch.get(), uint32(atSum+4*i), carry.get()),
		)...)
	}
	return f.function("", 0, begin, pass, fold, pass, fold, pass, reduce, choose, end)
}
