// Package foreign is the native back end of e2ee.wasm: what the module asks of its host
// through proxy_call_foreign_function (SPEC.md §10), done with Go's own cryptography and
// decompressors, on the module's memory, in place.
//
// The module is not trusted to name only what is its own. Every span is checked before the
// first operation runs, nothing outside of what an operation writes is written, and no view of
// the memory outlives a call. Keys are read where they stand; what the standard library copies
// of them is package scrub's.
package foreign

import (
	"context"
	"sync"

	"github.com/tetratelabs/wazero/api"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/plugin"
)

// maxWork bounds the bytes that the operations of one call name, all together.
const maxWork = 2 << 30

// Import is the import that Call answers.
const Import = "proxy_call_foreign_function"

// Call answers proxy_call_foreign_function(name, name_size, args, args_size, results,
// results_size). It has no result beside what it writes into the block.
var Call = api.GoModuleFunc(func(_ context.Context, m api.Module, stack []uint64) {
	stack[0] = uint64(call(m.Memory(), stack))
})

func call(m api.Memory, stack []uint64) uint32 {
	memory, ok := m.Read(0, m.Size())
	if !ok {
		return plugin.StatusInvalidMemory
	}
	name, ok := abi.Span{At: uint32(stack[0]), Size: uint32(stack[1])}.In(memory)
	if !ok {
		return plugin.StatusInvalidMemory
	}
	if string(name) != abi.SpansFunction {
		return plugin.StatusNotFound
	}
	w := workers.Get().(*worker)
	defer workers.Put(w)
	return w.run(memory, abi.Span{At: uint32(stack[2]), Size: uint32(stack[3])})
}

// workers holds what a call needs and need not make anew.
var workers = sync.Pool{New: func() any { return &worker{} }}

type worker struct {
	ops     [abi.MaxSpanOps]abi.SpanOp
	sealed  []byte // what SpanOpen may have to put back
	inflate inflater
}

// keepSealed is the most in bytes that a worker keeps for the next call.
const keepSealed = 4 << 20

// run checks and runs the operations of the block at a place in memory. The answer is a status
// of Proxy-Wasm, and for another than OK memory is as it was.
func (w *worker) run(memory []byte, at abi.Span) uint32 {
	block, ok := at.In(memory)
	if !ok {
		return plugin.StatusInvalidMemory
	}
	// What points into memory is forgotten.
	defer func() {
		clear(w.ops[:])
		if cap(w.sealed) > keepSealed {
			w.sealed = nil
		}
	}()
	ops, err := abi.ParseSpans(w.ops[:0], block)
	if err != nil {
		return plugin.StatusBadArgument
	}
	work := uint64(0)
	for i := range ops {
		if !inside(&ops[i], memory, at) {
			return plugin.StatusInvalidMemory
		}
		work += uint64(ops[i].Data.Size) + uint64(ops[i].Head.Size) + uint64(ops[i].Out.Size)
	}
	if work > maxWork {
		return plugin.StatusBadArgument
	}
	for i := range ops {
		s, made := w.do(&ops[i], memory)
		abi.PutSpanStatus(block, i, s, made)
		if s != abi.SpanDone {
			break
		}
	}
	return plugin.StatusOK
}

// inside reports whether the operation's spans lie in memory, and what it writes overlaps
// neither the block nor anything else that it names.
func inside(o *abi.SpanOp, memory []byte, block abi.Span) bool {
	for _, s := range [...]abi.Span{o.Data, o.Head, o.Out} {
		if _, ok := s.In(memory); !ok {
			return false
		}
	}
	inPlace := o.Kind == abi.SpanSeal || o.Kind == abi.SpanOpen
	w := o.Written()
	return !w.Overlaps(block) && !w.Overlaps(o.Head) && (inPlace || !w.Overlaps(o.Data))
}
