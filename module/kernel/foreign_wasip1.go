package kernel

import (
	"fmt"
	"structs"
	"unsafe"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/plugin"
)

//go:wasmimport env proxy_call_foreign_function
//go:noescape
func proxyCallForeignFunction(name string, args unsafe.Pointer, size uint32, results, resultsSize *uint32) uint32

// A rawOp is abi.SpanOp as it stands in a block: memory is little-endian, as the block is. Go
// would write it byte by byte elsewise.
type rawOp struct {
	_                   structs.HostLayout
	kind, status, codec uint8
	_                   uint8
	sum                 uint32
	data, head, out     abi.Span
	key                 [abi.KeySize]byte
	nonce               [abi.SpanNonceSize]byte
}

// foreignBlock is the block of the call that is being made (SPEC.md §10). Where it is does not
// change, and it holds a key during a call only.
var foreignBlock struct {
	_   structs.HostLayout
	n   uint32
	ops [abi.MaxSpanOps]rawOp
}

// What a host may write, and ours does not.
var foreignResult, foreignResultSize uint32

// hostsAnswer is what is known of the host.
var hostsAnswer struct{ asked, yes bool }

// Native reports whether programs run on the host's native back end. It asks the host once, with no operations.
func Native() bool {
	if !hostsAnswer.asked {
		hostsAnswer.asked = true
		hostsAnswer.yes = callHost(0) == plugin.StatusOK
	}
	return hostsAnswer.yes
}

// callHost has the host run the first n operations of the block.
func callHost(n int) uint32 {
	foreignBlock.n = uint32(n)
	return proxyCallForeignFunction(abi.SpansFunction, unsafe.Pointer(&foreignBlock), uint32(abi.SpansHeaderSize+n*abi.SpanOpSize),
		&foreignResult, &foreignResultSize)
}

// callForeign runs the program on the host. made is what its last step made, where that
// decompresses.
func (p *Program) callForeign() (done, made int) {
	for i := range p.n {
		s, o := &p.steps[i], &foreignBlock.ops[i]
		o.kind, o.status, o.codec, o.sum = uint8(s.kind), uint8(abi.SpanWaiting), s.codec, s.sum
		o.data, o.head, o.out = spanOf(s.data), spanOf(s.head), spanOf(s.out)
		if s.key != nil {
			o.key, o.nonce = *s.key, *s.nonce
		}
	}
	status := callHost(p.n)
	what := abi.SpanDone
	for i := range p.n {
		o := &foreignBlock.ops[i]
		if what == abi.SpanDone {
			if what = abi.SpanStatus(o.status); what == abi.SpanDone {
				done, made = i+1, int(o.sum)
			}
		}
		if p.steps[i].key != nil {
			clear(o.key[:])
			clear(o.nonce[:])
		}
	}
	if status != plugin.StatusOK || what == abi.SpanWaiting {
		panic(fmt.Sprintf("the host answers %d to %d operations", status, p.n))
	}
	return done, made
}

func spanOf(b []byte) abi.Span {
	if len(b) == 0 {
		return abi.Span{}
	}
	return abi.Span{At: uint32(uintptr(unsafe.Pointer(unsafe.SliceData(b)))), Size: uint32(len(b))}
}
