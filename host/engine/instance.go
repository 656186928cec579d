package engine

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
)

// i32 and i64 shorten the table of signatures.
const (
	i32 = api.ValueTypeI32
	i64 = api.ValueTypeI64
)

// signatures are SPEC.md §3. Each function returns one i32.
var signatures = map[string][]api.ValueType{
	abi.FuncVersion:      {},
	abi.FuncAlloc:        {i32},
	abi.FuncFree:         {i32},
	abi.FuncConfigure:    {i32, i32},
	abi.FuncInstallLease: {i32, i32},
	abi.FuncInstallRoot:  {i32, i32},
	abi.FuncErase:        {i32, i32},
	abi.FuncSealBatch:    {i32, i32, i32, i32, i32, i32, i64, i32},
	abi.FuncOpenBatch:    {i32, i32, i32, i32, i32, i32, i64, i32},
	abi.FuncCounters:     {i32, i32},
}

// noResult are the functions without a result.
var noResult = map[string]bool{abi.FuncFree: true}

// checkExports refuses a module that lacks a function, or has one with another signature,
// before anything of it runs.
func checkExports(module wazero.CompiledModule) error {
	exports := module.ExportedFunctions()
	for name, params := range signatures {
		f, ok := exports[name]
		if !ok {
			return fmt.Errorf("module exports no %s (hint: is this an e2ee.wasm?)", name)
		}
		want := 1
		if noResult[name] {
			want = 0
		}
		if string(f.ParamTypes()) != string(params) || len(f.ResultTypes()) != want || want == 1 && f.ResultTypes()[0] != i32 {
			return fmt.Errorf("module's %s has another signature than abi/SPEC.md (hint: built for another ABI version?)", name)
		}
	}
	return nil
}

// keepBuffer is the largest batch buffer in bytes that an instance keeps between calls.
const keepBuffer = 4 << 20

// An instance is one instantiated module, used by one goroutine at a time. Every error of
// its methods means that it must be discarded.
type instance struct {
	module api.Module
	memory api.Memory
	unmap  func() // gives memory back, after the module is closed
	fns    map[string]api.Function
	stack  [8]uint64

	scratch, scratchSize uint32 // topic name, then the result block; blocks of keys go here too
	buf, bufSize         uint32 // the batch
}

// maxStatus is the last number that SPEC.md §5 sets aside.
const maxStatus = 63

// scratchBytes holds any fixed block: a topic name and a result, a lease, counters.
const scratchBytes = 1024

func (e *Engine) newInstance(ctx context.Context) (*instance, error) {
	memoryCtx, unmap := withLinearMemory(ctx)
	module, err := e.runtime.InstantiateModule(memoryCtx, e.module, moduleConfig())
	if err != nil {
		unmap()
		return nil, fmt.Errorf("module does not start: %w", err)
	}
	in := &instance{module: module, memory: module.Memory(), unmap: unmap, fns: map[string]api.Function{}}
	for name := range signatures {
		in.fns[name] = module.ExportedFunction(name)
	}
	if err := in.configure(ctx, e.config.Append(nil)); err != nil {
		in.close(ctx)
		return nil, err
	}
	return in, nil
}

func (in *instance) configure(ctx context.Context, config []byte) error {
	version, err := in.call(ctx, abi.FuncVersion)
	if err != nil {
		return err
	}
	if version != abi.Version {
		return fmt.Errorf("module speaks ABI version %d, this host %d (hint: take both from one release)", version, abi.Version)
	}
	if in.scratch, err = in.alloc(ctx, scratchBytes); err != nil {
		return err
	}
	in.scratchSize = scratchBytes
	status, err := in.callWithBlock(ctx, abi.FuncConfigure, config)
	if err != nil {
		return err
	}
	if status != abi.StatusOK {
		return fmt.Errorf("module refuses its configuration: %w", status)
	}
	return nil
}

// run installs key, if it carries one, runs op over batch, and appends the outcome to dst.
// Where status is not StatusOK, dst is returned as it was.
//
// An instance that is full makes room by erasing all that it holds: leases are burned, and
// roots are asked for again when a batch needs them. What is full would else stay so, with
// keys of topics that nobody uses any more.
func (in *instance) run(ctx context.Context, op operation, key *installer, topic string, partition int32,
	batch []byte, capacity int, dst []byte) ([]byte, abi.Result, abi.Status, error) {
	var result abi.Result
	if key.block != nil {
		status, err := in.callWithBlock(ctx, key.fn, key.block)
		if err == nil && status == abi.StatusFull {
			if err = in.erase(ctx, nil); err == nil {
				status, err = in.callWithBlock(ctx, key.fn, key.block)
			}
		}
		if err != nil || status != abi.StatusOK {
			return dst, result, status, err
		}
	}
	if len(topic) > abi.MaxTopicLen {
		return dst, result, abi.StatusBadArgument, nil
	}
	if err := in.reserve(ctx, uint32(capacity)); err != nil {
		return dst, result, 0, err
	}
	resultAt := in.scratch + 256 // clear of the longest topic name, and aligned
	if !in.memory.WriteString(in.scratch, topic) || !in.memory.Write(in.buf, batch) {
		return dst, result, 0, errMemory
	}
	status, err := in.call(ctx, op.fn, uint64(in.buf), uint64(len(batch)), uint64(in.bufSize),
		uint64(in.scratch), uint64(len(topic)), uint64(uint32(partition)), now(), uint64(resultAt))
	if err != nil {
		return dst, result, 0, err
	}
	block, ok := in.memory.Read(resultAt, abi.ResultSize)
	if !ok {
		return dst, result, 0, errMemory
	}
	if result, err = abi.ParseResult(block); err != nil {
		return dst, result, 0, err
	}
	if err := broken(op.fn, abi.Status(status)); err != nil {
		return dst, result, 0, err
	}
	if abi.Status(status) == abi.StatusOK {
		out, ok := in.memory.Read(in.buf, result.Length)
		if !ok || result.Length > in.bufSize {
			return dst, result, 0, errMemory
		}
		dst = append(dst, out...)
	}
	if in.bufSize > keepBuffer {
		err = in.freeBuffer(ctx)
	}
	return dst, result, abi.Status(status), err
}

// broken returns an error where a status says that the instance is in an unknown state: it
// is StatusInternal, or none that a module may return (SPEC.md §9).
func broken(fn string, s abi.Status) error {
	switch {
	case s <= abi.StatusNeedSpace, s >= abi.StatusMalformed && s < abi.StatusInternal, s >= abi.StatusUnavailable && s <= maxStatus:
		return nil
	}
	return fmt.Errorf("%s: %w", fn, s)
}

var errMemory = fmt.Errorf("module handed out a range outside its memory")

// reserve makes the batch buffer at least size bytes.
func (in *instance) reserve(ctx context.Context, size uint32) error {
	if size <= in.bufSize {
		return nil
	}
	if err := in.freeBuffer(ctx); err != nil {
		return err
	}
	size = max(size, 64<<10)
	ptr, err := in.alloc(ctx, size)
	if err != nil {
		return err
	}
	in.buf, in.bufSize = ptr, size
	return nil
}

func (in *instance) freeBuffer(ctx context.Context) error {
	if in.buf == 0 {
		return nil
	}
	_, err := in.call(ctx, abi.FuncFree, uint64(in.buf))
	in.buf, in.bufSize = 0, 0
	return err
}

func (in *instance) alloc(ctx context.Context, size uint32) (uint32, error) {
	ptr, err := in.call(ctx, abi.FuncAlloc, uint64(size))
	if err != nil {
		return 0, err
	}
	if ptr == 0 {
		return 0, fmt.Errorf("module has no room for %d bytes", size)
	}
	return ptr, nil
}

// callWithBlock hands one block to fn(ptr, len) and wipes it from the module's memory.
func (in *instance) callWithBlock(ctx context.Context, fn string, block []byte) (abi.Status, error) {
	ptr, size := in.scratch, uint32(len(block))
	if size > in.scratchSize {
		var err error
		if ptr, err = in.alloc(ctx, size); err != nil {
			return 0, err
		}
	}
	if !in.memory.Write(ptr, block) {
		return 0, errMemory
	}
	status, err := in.call(ctx, fn, uint64(ptr), uint64(size))
	if err != nil {
		return 0, err
	}
	if view, ok := in.memory.Read(ptr, size); ok {
		clear(view)
	}
	if err := broken(fn, abi.Status(status)); err != nil {
		return 0, err
	}
	if ptr != in.scratch {
		_, err = in.call(ctx, abi.FuncFree, uint64(ptr))
	}
	return abi.Status(status), err
}

func (in *instance) erase(ctx context.Context, kids []abi.Kid) error {
	block := make([]byte, 0, len(kids)*abi.KidSize)
	for _, kid := range kids {
		block = append(block, kid[:]...)
	}
	status, err := in.callWithBlock(ctx, abi.FuncErase, block)
	if err == nil {
		err = status.Err()
	}
	return err
}

func (in *instance) counters(ctx context.Context) (c [abi.NumCounters]uint64, err error) {
	const size = uint32(8 * abi.NumCounters)
	status, err := in.call(ctx, abi.FuncCounters, uint64(in.scratch), uint64(size))
	if err != nil {
		return c, err
	}
	if err := abi.Status(status).Err(); err != nil {
		return c, err
	}
	block, ok := in.memory.Read(in.scratch, size)
	if !ok {
		return c, errMemory
	}
	for i := range c {
		c[i] = binary.LittleEndian.Uint64(block[8*i:])
	}
	return c, nil
}

// call returns fn's i32. Its upper half on the stack is garbage and is cut off.
func (in *instance) call(ctx context.Context, fn string, args ...uint64) (uint32, error) {
	stack := in.stack[:max(1, copy(in.stack[:], args))]
	if err := in.fns[fn].CallWithStack(ctx, stack); err != nil {
		return 0, fmt.Errorf("%s: %w", fn, err)
	}
	return uint32(stack[0]), nil
}

// size is the instance's memory in bytes.
func (in *instance) size() uint32 { return in.memory.Size() }

// close wipes the whole memory, keys and plaintext with it, and frees the instance.
func (in *instance) close(ctx context.Context) {
	if view, ok := in.memory.Read(0, in.memory.Size()); ok {
		clear(view)
	}
	// The runtime has nothing to report that could be acted on: the memory is wiped.
	_ = in.module.Close(ctx)
	in.unmap()
}
