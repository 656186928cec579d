package kernel

import "encoding/binary"

// A poly1305 is the one-time authenticator of RFC 8439 §2.5. SECRET.
//
// Limbs are 32 bits wide and products fit 64 bits, because WebAssembly has no wider
// multiplication: the clamped r has limbs below 2^28, the accumulator's stay below 2^33, so
// five products add up below 2^64. Modulo 2^130-5, 2^128·r_i is r_i + r_i/4, exactly, for
// the r_i that clamping makes multiples of four; r0 is split.
type poly1305 struct {
	r  [4]uint64 // clamped r
	rr [4]uint64 // 5·⌊r0/4⌋, then r_i + r_i/4
	s  [4]uint32 // added at the end
	h  [5]uint64 // accumulator, little-endian limbs
}

// start takes the one-time key as eight little-endian words, r then s.
func (p *poly1305) start(key *[8]uint32) {
	p.r = [4]uint64{
		uint64(key[0] & 0x0fffffff),
		uint64(key[1] & 0x0ffffffc),
		uint64(key[2] & 0x0ffffffc),
		uint64(key[3] & 0x0ffffffc),
	}
	p.rr[0] = p.r[0] >> 2 * 5
	for i := 1; i < 4; i++ {
		p.rr[i] = p.r[i] + p.r[i]>>2
	}
	copy(p.s[:], key[4:])
	p.h = [5]uint64{}
}

// update adds b, padded with zeros to whole blocks of 16 bytes as the AEAD asks.
func (p *poly1305) update(b []byte) {
	const mask = 1<<32 - 1
	r0, r1, r2, r3 := p.r[0], p.r[1], p.r[2], p.r[3]
	q0, q1, q2, q3 := p.rr[0], p.rr[1], p.rr[2], p.rr[3]
	h0, h1, h2, h3, h4 := p.h[0], p.h[1], p.h[2], p.h[3], p.h[4]
	var last [16]byte
	for len(b) > 0 {
		if len(b) < 16 {
			copy(last[:], b)
			b = last[:]
		}
		lo, hi := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:16])
		b = b[16:]
		h0 += lo & mask
		h1 += lo >> 32
		h2 += hi & mask
		h3 += hi >> 32
		h4++

		x0 := h0*r0 + h1*q3 + h2*q2 + h3*q1 + h4*q0
		x1 := h0*r1 + h1*r0 + h2*q3 + h3*q2 + h4*q1
		x2 := h0*r2 + h1*r1 + h2*r0 + h3*q3 + h4*q2
		x3 := h0*r3 + h1*r2 + h2*r1 + h3*r0 + h4*q3
		x4 := h4 * (r0 & 3)

		// What lies above bit 130 comes back times five; carries move up once.
		x4 += x3 >> 32
		h0 = x4>>2*5 + x0&mask
		h1 = h0>>32 + x1&mask + x0>>32
		h0 &= mask
		h2 = h1>>32 + x2&mask + x1>>32
		h1 &= mask
		h3 = h2>>32 + x3&mask + x2>>32
		h2 &= mask
		h4 = h3>>32 + x4&3
		h3 &= mask
	}
	p.h = [5]uint64{h0, h1, h2, h3, h4}
}

// sum reduces the accumulator, adds s and writes the tag.
func (p *poly1305) sum(tag *[TagSize]byte) {
	const mask = 1<<32 - 1
	// The top limb is at most 4, so h is below twice 2^130-5: where adding five reaches
	// 2^130, the modulus fits once.
	h := p.h
	var t [5]uint64
	carry := uint64(5)
	for i := range t {
		carry += h[i]
		t[i] = carry & mask
		carry >>= 32
	}
	fits := -(t[4] >> 2)
	t[4] &= 3
	for i := range h {
		h[i] = h[i]&^fits | t[i]&fits
	}
	carry = 0
	for i := range 4 {
		carry += h[i] + uint64(p.s[i])
		binary.LittleEndian.PutUint32(tag[4*i:], uint32(carry))
		carry >>= 32
	}
}
