package simd

// Opcodes of the WebAssembly specification 2.0, §5.4, in the bytes that stand in the code.
const (
	i32Load    = "\x28"
	i64Load32  = "\x35" // zero-extended
	i32Load8   = "\x2d" // zero-extended
	i64Store   = "\x37"
	i64Load    = "\x29"
	i32Store   = "\x36"
	i64Store32 = "\x3e"

	i32Eqz  = "\x45"
	i32LtU  = "\x49"
	i32GtU  = "\x4b"
	i32GeU  = "\x4f"
	i32Add  = "\x6a"
	i32Sub  = "\x6b"
	i32And  = "\x71"
	i32Xor  = "\x73"
	i32Shl  = "\x74"
	i32ShrU = "\x76"

	i64Add       = "\x7c"
	i64Sub       = "\x7d"
	i64Mul       = "\x7e"
	i64And       = "\x83"
	i64Xor       = "\x85"
	i64Shl       = "\x86"
	i64ShrU      = "\x88"
	i64ExtendI32 = "\xad" // unsigned

	v128Load        = "\xfd\x00"
	v128Load32Splat = "\xfd\x09"
	v128Store       = "\xfd\x0b"
	v128Const       = "\xfd\x0c"
	i8x16Shuffle    = "\xfd\x0d"
	i8x16Swizzle    = "\xfd\x0e"
	i32x4Extract0   = "\xfd\x1b\x00"
	v128Or          = "\xfd\x50"
	v128Xor         = "\xfd\x51"
	v128AnyTrue     = "\xfd\x53"
	i32x4Shl        = "\xfd\xab\x01"
	i32x4ShrU       = "\xfd\xad\x01"
	i32x4Add        = "\xfd\xae\x01"
)
