package simd

// Poly1305 (RFC 8439 §2.5) in limbs of 32 bits held in 64: r is clamped to 28 bits a limb, so
// that sums of its products with limbs of 34 bits fit. What passes 2^130 comes back times 5;
// since the clamped r's upper limbs are multiples of 4, times r is times 5 r / 4.

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

// absorb takes the n bytes at p, padded with zeros to a multiple of 16, into the accumulator
// in scratch.
func absorb() Function {
	f, p := params(3)
	at, n, scratch := p[0], p[1], p[2]
	h, r, s, d := f.locals(typeI64, 5), f.locals(typeI64, 4), f.locals(typeI64, 4), f.locals(typeI64, 5)

	var begin, end code
	for i := range h {
		begin = append(begin, h[i].set(load(i64Load, scratch.get(), uint32(atHash+8*i)))...)
		end = append(end, store(i64Store, scratch.get(), uint32(atHash+8*i), h[i].get())...)
	}
	for i := range r {
		begin = append(begin, r[i].set(load(i64Load, scratch.get(), uint32(atR+8*i)))...)
		if i > 0 {
			begin = append(begin, s[i].set(plus(r[i].get(), op(i64ShrU, r[i].get(), i64(2))))...)
		}
	}
	block := seq(
		h[3].set(plus(h[3].get(), limb(at, 12))),
		h[2].set(plus(h[2].get(), limb(at, 8))),
		h[1].set(plus(h[1].get(), limb(at, 4))),
		h[0].set(plus(h[0].get(), limb(at, 0))),
		h[4].set(plus(h[4].get(), i64(1))),

		d[0].set(plus(mul(h[1], s[3]), mul(h[2], s[2]), mul(h[3], s[1]), mul(h[0], r[0]))),
		d[1].set(plus(mul(h[1], r[0]), mul(h[2], s[3]), mul(h[3], s[2]), mul(h[4], s[1]), mul(h[0], r[1]), high(d[0]))),
		d[2].set(plus(mul(h[1], r[1]), mul(h[2], r[0]), mul(h[3], s[3]), mul(h[4], s[2]), mul(h[0], r[2]), high(d[1]))),
		d[3].set(plus(mul(h[1], r[2]), mul(h[2], r[1]), mul(h[3], r[0]), mul(h[4], s[3]), mul(h[0], r[3]), high(d[2]))),
		d[4].set(plus(mul(h[4], r[0]), high(d[3]))),

		h[1].set(low(d[1])), h[2].set(low(d[2])), h[3].set(low(d[3])),
		h[4].set(op(i64And, d[4].get(), i64(3))),
		h[0].set(plus(low(d[0]), op(i64ShrU, d[4].get(), i64(2)), op(i64And, d[4].get(), i64(-4)))),
	)
	return f.function("", 0,
		begin,
		repeat(n.get(),
			while(op(i32GeU, n.get(), i32(16)), block, at.add(16), n.add(-16)),
			when(n.get(),
				store(v128Store, scratch.get(), atPad, splat(0)),
				copyBytes(op(i32Add, scratch.get(), i32(atPad)), at.get(), n.get()),
				at.set(op(i32Add, scratch.get(), i32(atPad))),
				n.set(i32(16)),
			),
		),
		end,
	)
}

// sum writes the tag of what scratch absorbed to scratch.
func sum() Function {
	f, p := params(1)
	scratch := p[0]
	h, g, carry := f.locals(typeI64, 5), f.locals(typeI64, 5), f.local(typeI64)

	var begin, reduce, choose, end code
	for i := range h {
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
