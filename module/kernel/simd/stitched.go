package simd

// stitched is blocks, and absorbs as many bytes at from meanwhile. Each 256 of them are read
// before 256 at p are written, so that from may be p, or lie before it. ChaCha20 keeps a
// processor's vector units busy and Poly1305 its multiplier: together they take little longer
// than ChaCha20 alone.
func stitched() Function {
	f, p := params(4)
	at, n, from, scratch := p[0], p[1], p[2], p[3]
	c, a := f.cipher(), f.authenticator()
	rounds := f.local(typeI32)
	return f.function("", 0,
		c.load(scratch),
		a.load(scratch),
		while(n.get(),
			c.begin(scratch),
			// Sixteen blocks of 16 bytes in the next sixteen rounds.
			rounds.set(i32(8)),
			repeat(rounds.get(),
				a.block(from, 0), c.columns(),
				a.block(from, 16), c.diagonals(),
				from.add(32), rounds.add(-1),
			),
			c.columns(), c.diagonals(),
			c.end(scratch, at),
			at.add(blockBytes),
			n.add(-blockBytes),
		),
		c.store(scratch),
		a.store(scratch),
	)
}
