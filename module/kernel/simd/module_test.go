package simd

import (
	"context"
	"encoding/binary"
	"slices"
	"strconv"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// Where a module that holds the kernel alone has what its functions are given.
const (
	atScratch = 1 << 10
	atTable   = 32 << 10
	atKeys    = 64 << 10 // key, then nonce
	atAAD     = 65 << 10
	atBuffer  = 128 << 10
	pages     = 64

	numNamed = 3 // functions with a name
)

// bare returns a module of the kernel and a memory. Functions without a name are exported as
// their numbers.
func bare() []byte {
	all := Functions(numNamed)
	size := func(b []byte) []byte { return append(uleb(uint32(len(b))), b...) }
	vector := func(parts ...[]byte) []byte { return append(uleb(uint32(len(parts))), slices.Concat(parts...)...) }
	var types, functions, exports, bodies [][]byte
	for i, f := range all {
		types = append(types, slices.Concat([]byte{0x60}, size(f.Params), size(f.Results)))
		functions = append(functions, uleb(uint32(i)))
		bodies = append(bodies, size(f.Body))
		name := f.Name
		if name == "" {
			name = strconv.Itoa(i)
		}
		exports = append(exports, slices.Concat(size([]byte(name)), []byte{0}, uleb(uint32(i))))
	}
	exports = append(exports, append(size([]byte("memory")), 2, 0))
	module := []byte("\x00asm\x01\x00\x00\x00")
	for _, s := range []struct {
		id   byte
		body []byte
	}{
		{1, vector(types...)}, {3, vector(functions...)}, {5, append([]byte{1, 0}, uleb(pages)...)}, {7, vector(exports...)}, {10, vector(bodies...)},
	} {
		module = append(append(module, s.id), size(s.body)...)
	}
	return module
}

// A machine runs the kernel.
type machine struct {
	tb              testing.TB
	module          api.Module
	memory          []byte
	seal, open, crc api.Function
}

func newMachine(tb testing.TB, config wazero.RuntimeConfig) *machine {
	ctx := context.Background()
	runtime := wazero.NewRuntimeWithConfig(ctx, config)
	tb.Cleanup(func() { runtime.Close(ctx) })
	module, err := runtime.Instantiate(ctx, bare())
	if err != nil {
		tb.Fatal(err)
	}
	m := &machine{tb, module, nil, module.ExportedFunction("seal"), module.ExportedFunction("open"), module.ExportedFunction("crc32c")}
	m.memory, _ = module.Memory().Read(0, pages<<16)
	for i, r := range Table() {
		binary.LittleEndian.PutUint32(m.memory[atTable+4*i:], r)
	}
	return m
}

func (m *machine) call(f api.Function, stack ...uint64) uint32 {
	if err := f.CallWithStack(context.Background(), stack); err != nil {
		m.tb.Fatal(err)
	}
	return uint32(stack[0])
}

func (m *machine) sealAt(at, n, aadSize int) {
	m.call(m.seal, uint64(at), uint64(n), atAAD, uint64(aadSize), atKeys, atKeys+32, atScratch)
}

func (m *machine) openAt(at, n, aadSize int) bool {
	return m.call(m.open, uint64(at), uint64(n), atAAD, uint64(aadSize), atKeys, atKeys+32, atScratch) == 1
}

func (m *machine) crcAt(crc uint32, at, n int) uint32 {
	return m.call(m.crc, uint64(crc), uint64(at), uint64(n), atTable, atScratch)
}

// helper is a function without a name, in the order of Functions.
func (m *machine) helper(i int) api.Function {
	return m.module.ExportedFunction(strconv.Itoa(numNamed + i))
}
