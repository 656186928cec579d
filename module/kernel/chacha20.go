package kernel

import (
	"encoding/binary"
	"math/bits"
)

// The first row of every ChaCha state, "expand 32-byte k".
const c0, c1, c2, c3 = 0x61707865, 0x3320646e, 0x79622d32, 0x6b206574

// A chacha20 is ChaCha20 (RFC 8439 §2.4) under the subkey and the inner nonce that
// XChaCha20 derives, ready to produce blocks from counter 1 on. SECRET.
type chacha20 struct {
	key    [8]uint32
	n1, n2 uint32 // the inner nonce is 0, n1, n2
}

// start derives the subkey from key and the first 16 bytes of nonce with HChaCha20, and
// from block 0 the one-time key of p.
func (c *chacha20) start(key *[KeySize]byte, nonce *[NonceSize]byte, p *poly1305) {
	for i := range c.key {
		c.key[i] = binary.LittleEndian.Uint32(key[4*i:])
	}
	x := c.rounds(binary.LittleEndian.Uint32(nonce[0:]), binary.LittleEndian.Uint32(nonce[4:]),
		binary.LittleEndian.Uint32(nonce[8:]), binary.LittleEndian.Uint32(nonce[12:]))
	copy(c.key[:4], x[:4])
	copy(c.key[4:], x[12:])
	c.n1 = binary.LittleEndian.Uint32(nonce[16:])
	c.n2 = binary.LittleEndian.Uint32(nonce[20:])

	x = c.rounds(0, 0, c.n1, c.n2)
	x[0] += c0
	x[1] += c1
	x[2] += c2
	x[3] += c3
	for i := range 4 {
		x[4+i] += c.key[i]
	}
	p.start((*[8]uint32)(x[:8]))
	clear(x[:])
}

// rounds returns the state after twenty rounds, without the final addition; its last row
// starts as x12 to x15.
func (c *chacha20) rounds(x12, x13, x14, x15 uint32) [16]uint32 {
	var x0, x1, x2, x3 uint32 = c0, c1, c2, c3
	x4, x5, x6, x7 := c.key[0], c.key[1], c.key[2], c.key[3]
	x8, x9, x10, x11 := c.key[4], c.key[5], c.key[6], c.key[7]
	for range 10 {
		x0, x4, x8, x12 = quarter(x0, x4, x8, x12)
		x1, x5, x9, x13 = quarter(x1, x5, x9, x13)
		x2, x6, x10, x14 = quarter(x2, x6, x10, x14)
		x3, x7, x11, x15 = quarter(x3, x7, x11, x15)
		x0, x5, x10, x15 = quarter(x0, x5, x10, x15)
		x1, x6, x11, x12 = quarter(x1, x6, x11, x12)
		x2, x7, x8, x13 = quarter(x2, x7, x8, x13)
		x3, x4, x9, x14 = quarter(x3, x4, x9, x14)
	}
	return [16]uint32{x0, x1, x2, x3, x4, x5, x6, x7, x8, x9, x10, x11, x12, x13, x14, x15}
}

func quarter(a, b, c, d uint32) (uint32, uint32, uint32, uint32) {
	a += b
	d = bits.RotateLeft32(d^a, 16)
	c += d
	b = bits.RotateLeft32(b^c, 12)
	a += b
	d = bits.RotateLeft32(d^a, 8)
	c += d
	b = bits.RotateLeft32(b^c, 7)
	return a, b, c, d
}

// xor encrypts or decrypts b in place with the key stream from block 1 on.
func (c *chacha20) xor(b []byte) {
	counter := uint32(1)
	for ; len(b) >= 64; b = b[64:] {
		c.xorBlock((*[64]byte)(b), counter)
		counter++
	}
	if len(b) > 0 {
		var last [64]byte
		copy(last[:], b)
		c.xorBlock(&last, counter)
		copy(b, last[:])
		clear(last[:])
	}
}

func (c *chacha20) xorBlock(b *[64]byte, counter uint32) {
	x := c.rounds(counter, 0, c.n1, c.n2)
	k := &c.key
	xor2(b[0:8], x[0]+c0, x[1]+c1)
	xor2(b[8:16], x[2]+c2, x[3]+c3)
	xor2(b[16:24], x[4]+k[0], x[5]+k[1])
	xor2(b[24:32], x[6]+k[2], x[7]+k[3])
	xor2(b[32:40], x[8]+k[4], x[9]+k[5])
	xor2(b[40:48], x[10]+k[6], x[11]+k[7])
	xor2(b[48:56], x[12]+counter, x[13])
	xor2(b[56:64], x[14]+c.n1, x[15]+c.n2)
}

func xor2(b []byte, lo, hi uint32) {
	w := uint64(lo) | uint64(hi)<<32
	binary.LittleEndian.PutUint64(b, binary.LittleEndian.Uint64(b)^w)
}
