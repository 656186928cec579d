package adversary_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"sync"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/host/engine/env"
	"github.com/wasm-e2ee/wasm-e2ee/tests/artifact"
)

// A plane is a node's data plane: one instance of e2ee.wasm, driven as SPEC.md has it, with
// the node's own time. (host/engine does the same by the machine's clock.)
type plane struct {
	t      *testing.T
	module api.Module
	block  uint32 // a buffer for keys, a topic or a result
	batch  uint32
}

const (
	blockSize = 1024
	resultAt  = 512 // in the block, behind a topic
	batchSize = 4096
)

// compiled is shared by all planes: compiling takes seconds.
var compiled struct {
	sync.Once
	runtime wazero.Runtime
	module  wazero.CompiledModule
	fresh   []byte // the linear memory of an instance that has done nothing
}

func newPlane(t *testing.T) *plane {
	ctx := context.Background()
	compiled.Do(func() {
		compiled.runtime = wazero.NewRuntime(ctx)
		wasi_snapshot_preview1.MustInstantiate(ctx, compiled.runtime)
		err := env.Instantiate(ctx, compiled.runtime)
		if err != nil {
			t.Fatal(err)
		}
		if compiled.module, err = compiled.runtime.CompileModule(ctx, artifact.Module(t)); err != nil {
			t.Fatal(err)
		}
		p := instantiate(t)
		compiled.fresh = bytes.Clone(p.memory())
		p.close()
	})
	if compiled.fresh == nil {
		t.Fatal("e2ee.wasm does not start")
	}
	p := instantiate(t)
	p.block, p.batch = p.call(abi.FuncAlloc, blockSize), p.call(abi.FuncAlloc, batchSize)
	p.give(abi.FuncConfigure, (&abi.Config{MaxDecompressed: 1 << 20}).Append(nil))
	return p
}

func instantiate(t *testing.T) *plane {
	config := wazero.NewModuleConfig().WithName("").WithStartFunctions("_initialize").
		WithRandSource(rand.Reader).WithSysWalltime().WithSysNanotime()
	module, err := compiled.runtime.InstantiateModule(context.Background(), compiled.module, config)
	if err != nil {
		t.Fatal(err)
	}
	return &plane{t: t, module: module}
}

func (p *plane) close() {
	clear(p.memory())
	p.module.Close(context.Background())
}

// memory is the whole linear memory.
func (p *plane) memory() []byte {
	m := p.module.Memory()
	b, _ := m.Read(0, m.Size())
	return b
}

func (p *plane) call(name string, args ...uint64) uint32 {
	out, err := p.module.ExportedFunction(name).Call(context.Background(), args...)
	if err != nil {
		p.t.Fatalf("%s: %v", name, err)
	}
	return uint32(out[0])
}

// give hands a block over, and wipes it from the buffer as host/engine does.
func (p *plane) give(name string, block []byte) {
	if len(block) > blockSize {
		p.t.Fatalf("%s: block of %d bytes", name, len(block))
	}
	p.module.Memory().Write(p.block, block)
	status := abi.Status(p.call(name, uint64(p.block), uint64(len(block))))
	clear(p.memory()[p.block:][:len(block)])
	clear(block)
	if status != abi.StatusOK {
		p.t.Fatalf("%s: %v", name, status)
	}
}

func (p *plane) lease(l *abi.Lease) { p.give(abi.FuncInstallLease, l.Append(nil)) }
func (p *plane) root(r *abi.Root)   { p.give(abi.FuncInstallRoot, r.Append(nil)) }

// erase forgets kids, and everything where there are none.
func (p *plane) erase(kids []abi.Kid) {
	var block []byte
	for len(kids) > blockSize/abi.KidSize {
		p.erase(kids[:blockSize/abi.KidSize])
		kids = kids[blockSize/abi.KidSize:]
	}
	for _, kid := range kids {
		block = append(block, kid[:]...)
	}
	p.give(abi.FuncErase, block)
}

// transform seals or opens a batch.
func (p *plane) transform(name string, batch []byte, to place, now uint64) ([]byte, abi.Status) {
	memory := p.module.Memory()
	memory.WriteString(p.block, to.topic)
	memory.Write(p.batch, batch)
	status := abi.Status(p.call(name, uint64(p.batch), uint64(len(batch)), batchSize,
		uint64(p.block), uint64(len(to.topic)), uint64(uint32(to.partition)), now, uint64(p.block+resultAt)))
	if status != abi.StatusOK {
		return nil, status
	}
	b, _ := memory.Read(p.block+resultAt, abi.ResultSize)
	result, err := abi.ParseResult(b)
	if err != nil {
		p.t.Fatal(err)
	}
	out, _ := memory.Read(p.batch, result.Length)
	return bytes.Clone(out), status
}

// pages are the stretches of a linear memory that differ from a fresh instance's.
func (p *plane) pages() [][]byte {
	const size = 4096
	var out [][]byte
	m, last := p.memory(), -1
	for at := 0; at < len(m); at += size {
		page := m[at:min(at+size, len(m))]
		if at < len(compiled.fresh) && bytes.Equal(page, compiled.fresh[at:min(at+size, len(compiled.fresh))]) || zeros(page) {
			continue
		}
		if last == at {
			out[len(out)-1] = append(out[len(out)-1], page...)
		} else {
			out = append(out, bytes.Clone(page))
		}
		last = at + len(page)
	}
	return out
}

var zeroPage [4096]byte

func zeros(page []byte) bool { return bytes.Equal(page, zeroPage[:len(page)]) }
