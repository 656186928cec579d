// Package simd writes the kernel of e2ee.wasm: XChaCha20-Poly1305 and CRC-32C as WebAssembly
// functions with 128-bit SIMD, which Go's compiler does not emit. Package splice puts them
// in the place of the imports that package kernel declares.
//
// The functions hold no data segment, no stack in memory and no globals: they work on their
// arguments, on locals, and on scratch memory that the caller lends and that they overwrite
// with zeros before they return. They check no length, so that only wrappers that take slices
// may call them. Nothing that they do depends on secret values: no branch, no address.
package simd

// Sizes in bytes.
const (
	ScratchSize = crcScratch   // the most that any of them needs
	TableSize   = 16 * 256 * 4 // what CRC-32C looks up, see Table
)

// Module is the name under which the functions are imported.
const Module = "kernel"

// A Function is one function in WebAssembly's binary format.
type Function struct {
	Name            string // imported as; empty for one that the others call
	Params, Results []byte // value types
	Body            []byte // locals and expression, without its size
}

// Functions returns the functions, those with a name first. The first without a name gets
// the index helpers, and the others follow it. The names and their signatures are
//
//	seal    (buf, n, aad, aadSize, key, nonce, scratch i32)
//	open    (buf, n, aad, aadSize, key, nonce, scratch i32) (ok i32)
//	crc32c  (crc, p, n, table, scratch i32) (crc i32)
//
// where n counts the bytes of a message without its tag, which follows it in buf.
func Functions(helpers uint32) []Function {
	c := calls{start: helpers, blocks: helpers + 1, absorb: helpers + 2, stitched: helpers + 3, sum: helpers + 4, divide: helpers + 5}
	return []Function{
		c.seal(), c.open(), c.crc32c(),
		c.startMessage(), blocks(), absorb(), stitched(), sum(), divide(),
	}
}

// calls holds the indices of the functions that others call.
type calls struct{ start, blocks, absorb, stitched, sum, divide uint32 }
