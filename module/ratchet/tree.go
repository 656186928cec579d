// Package ratchet is the key tree of one epoch (PROTOCOL.md §2.3): a binary tree of depth
// 24 whose leaves are AEAD keys. A producer walks it forwards and cannot go back (Stack); a
// consumer that holds the root finds any leaf (Root).
//
// It is pure: no I/O, no clock, no randomness, no allocation. Secrets live in fixed arrays
// that are overwritten in place. It may import package abi only. Values must not be copied
// once they hold secrets, and are not safe for use by several goroutines at once.
package ratchet

import (
	"encoding/binary"
	"math/bits"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
)

// Depth is the number of levels below the root; Leaves the number of leaves.
const (
	Depth  = abi.TreeDepth
	Leaves = 1 << Depth
)

// A Node is one node of the tree, SECRET. At level Depth it is a leaf, an AEAD key.
type Node [abi.KeySize]byte

// treeNonce is the nonce of G, "KX1-tree-v1" and a NUL.
var treeNonce = [3]uint32{
	binary.LittleEndian.Uint32([]byte("KX1-")),
	binary.LittleEndian.Uint32([]byte("tree")),
	binary.LittleEndian.Uint32([]byte("-v1\x00")),
}

// expand is G: the ChaCha20 block (RFC 8439 §2.3) under key n and treeNonce at counter 0.
// Its first half becomes left, its second half right. Each may be n itself.
func expand(n, left, right *Node) {
	const c0, c1, c2, c3 = 0x61707865, 0x3320646e, 0x79622d32, 0x6b206574
	var k [8]uint32
	for i := range k {
		k[i] = binary.LittleEndian.Uint32(n[4*i:])
	}
	var x0, x1, x2, x3 uint32 = c0, c1, c2, c3
	x4, x5, x6, x7, x8, x9, x10, x11 := k[0], k[1], k[2], k[3], k[4], k[5], k[6], k[7]
	x12, x13, x14, x15 := uint32(0), treeNonce[0], treeNonce[1], treeNonce[2]
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
	put(left, x0+c0, x1+c1, x2+c2, x3+c3, x4+k[0], x5+k[1], x6+k[2], x7+k[3])
	put(right, x8+k[4], x9+k[5], x10+k[6], x11+k[7], x12, x13+treeNonce[0], x14+treeNonce[1], x15+treeNonce[2])
	clear(k[:])
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

func put(n *Node, w0, w1, w2, w3, w4, w5, w6, w7 uint32) {
	binary.LittleEndian.PutUint32(n[0:], w0)
	binary.LittleEndian.PutUint32(n[4:], w1)
	binary.LittleEndian.PutUint32(n[8:], w2)
	binary.LittleEndian.PutUint32(n[12:], w3)
	binary.LittleEndian.PutUint32(n[16:], w4)
	binary.LittleEndian.PutUint32(n[20:], w5)
	binary.LittleEndian.PutUint32(n[24:], w6)
	binary.LittleEndian.PutUint32(n[28:], w7)
}
