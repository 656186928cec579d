package conformance

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"math"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/wasm-e2ee/wasm-e2ee/abi"
)

// memoryLimit is the most linear memory an instance may take, in pages of 64 KiB: 512 MiB.
const memoryLimit = 8192

// A module is the compiled module under test.
type module struct {
	runtime  wazero.Runtime
	compiled wazero.CompiledModule
}

// An instance is one instantiated module and the few buffers that calls need.
type instance struct {
	mod    api.Module
	topic  uint32 // a buffer of abi.MaxTopicLen + 1 bytes
	result uint32 // a buffer of abi.ResultSize bytes
	block  uint32 // a buffer of blockSize bytes
}

const blockSize = 4096

// hostConfig is what SPEC.md §7 asks of a host.
func hostConfig() wazero.ModuleConfig {
	return wazero.NewModuleConfig().WithName("").WithStartFunctions("_initialize").
		WithRandSource(rand.Reader).WithSysWalltime().WithSysNanotime()
}

// start returns an instance that is not configured.
func (m *module) start(ctx context.Context, config wazero.ModuleConfig) (*instance, error) {
	mod, err := m.runtime.InstantiateModule(ctx, m.compiled, config)
	if err != nil {
		return nil, fmt.Errorf("does not start: %w", err)
	}
	in := &instance{mod: mod}
	for at, size := range map[*uint32]uint32{&in.topic: abi.MaxTopicLen + 1, &in.result: abi.ResultSize, &in.block: blockSize} {
		if *at, err = in.alloc(ctx, size); err != nil {
			in.close(ctx)
			return nil, err
		}
	}
	return in, nil
}

// configured returns an instance with this configuration.
func (m *module) configured(ctx context.Context, config abi.Config) (*instance, error) {
	in, err := m.start(ctx, hostConfig())
	if err != nil {
		return nil, err
	}
	if err := in.expect(ctx, abi.StatusOK, abi.FuncConfigure, config.Append(nil)); err != nil {
		in.close(ctx)
		return nil, err
	}
	return in, nil
}

func (in *instance) close(ctx context.Context) { in.mod.Close(ctx) }

// call calls an export. What it returns is masked to 32 bits (SPEC.md §2).
func (in *instance) call(ctx context.Context, name string, args ...uint64) (uint32, error) {
	out, err := in.mod.ExportedFunction(name).Call(ctx, args...)
	if err != nil {
		return 0, fmt.Errorf("%s trapped: %w", name, err)
	}
	if len(out) == 0 {
		return 0, nil
	}
	return uint32(out[0]), nil
}

// alloc returns a buffer of size bytes that lies within memory and holds zeros.
func (in *instance) alloc(ctx context.Context, size uint32) (uint32, error) {
	at, err := in.call(ctx, abi.FuncAlloc, uint64(size))
	if err != nil {
		return 0, err
	}
	b, ok := in.mod.Memory().Read(at, size)
	if at == 0 || !ok {
		return 0, fmt.Errorf("e2ee_alloc(%d) gave %d, which is no buffer", size, at)
	}
	if !bytes.Equal(b, make([]byte, size)) {
		return 0, fmt.Errorf("e2ee_alloc(%d) gave a buffer that is not zeros", size)
	}
	return at, nil
}

func (in *instance) free(ctx context.Context, at uint32) error {
	_, err := in.call(ctx, abi.FuncFree, uint64(at))
	return err
}

// withBlock calls a function that takes one block.
func (in *instance) withBlock(ctx context.Context, name string, block []byte) (abi.Status, error) {
	at := in.block
	if len(block) > blockSize {
		var err error
		if at, err = in.alloc(ctx, uint32(len(block))); err != nil {
			return 0, err
		}
		defer in.free(ctx, at)
	}
	in.mod.Memory().Write(at, block)
	s, err := in.call(ctx, name, uint64(at), uint64(len(block)))
	in.mod.Memory().Write(at, make([]byte, len(block)))
	return abi.Status(s), err
}

// expect calls a function that takes one block, and wants this status.
func (in *instance) expect(ctx context.Context, want abi.Status, name string, block []byte) error {
	got, err := in.withBlock(ctx, name, block)
	if err == nil && got != want {
		err = fmt.Errorf("%s: %s, want %s", name, describe(got), describe(want))
	}
	return err
}

// An outcome is what sealing or opening one batch gave.
type outcome struct {
	status abi.Status
	result abi.Result
	batch  []byte // with abi.StatusOK
}

// batch seals or opens a batch in a buffer of its own with the given capacity, twice where
// the module asks for more. It fails where the module traps, breaks the rules for results,
// writes beyond the buffer, or changes a batch that it refuses.
func (in *instance) batch(ctx context.Context, name string, b []byte, capacity int, topic string, partition int32, now uint64) (outcome, error) {
	o, err := in.once(ctx, name, b, capacity, topic, partition, now)
	if err != nil || o.status != abi.StatusNeedSpace {
		return o, err
	}
	if int(o.result.Length) <= capacity || o.result.Length > math.MaxInt32 {
		return o, fmt.Errorf("%s wants %d bytes and had %d", name, o.result.Length, capacity)
	}
	o, err = in.once(ctx, name, b, int(o.result.Length), topic, partition, now)
	if err == nil && o.status == abi.StatusNeedSpace {
		err = fmt.Errorf("%s wants more than it asked for", name)
	}
	return o, err
}

// guard surrounds the batch's capacity in its buffer.
const guard = 64

func (in *instance) once(ctx context.Context, name string, b []byte, capacity int, topic string, partition int32, now uint64) (outcome, error) {
	var o outcome
	buf, err := in.alloc(ctx, uint32(max(capacity, len(b)))+2*guard)
	if err != nil {
		return o, err
	}
	defer in.free(ctx, buf)
	memory := in.mod.Memory()
	fence := bytes.Repeat([]byte{0xC3}, guard)
	at := buf + guard
	memory.Write(buf, fence)
	memory.Write(at, b)
	memory.Write(at+uint32(capacity), fence)
	memory.Write(in.topic, []byte(topic))
	memory.Write(in.result, bytes.Repeat([]byte{0xEE}, abi.ResultSize))
	s, err := in.call(ctx, name, uint64(at), uint64(len(b)), uint64(capacity),
		uint64(in.topic), uint64(len(topic)), uint64(uint32(partition)), now, uint64(in.result))
	if err != nil {
		return o, err
	}
	o.status = abi.Status(s)
	memory = in.mod.Memory()
	before, _ := memory.Read(buf, guard)
	after, _ := memory.Read(at+uint32(capacity), guard)
	if !bytes.Equal(before, fence) || !bytes.Equal(after, fence) {
		return o, fmt.Errorf("%s wrote beside its buffer", name)
	}
	block, _ := memory.Read(in.result, abi.ResultSize)
	if o.status == abi.StatusBadArgument || o.status == abi.StatusNotConfigured {
		if !bytes.Equal(block, bytes.Repeat([]byte{0xEE}, abi.ResultSize)) {
			return o, fmt.Errorf("%s wrote a result with %s", name, describe(o.status))
		}
		return o, nil
	}
	if o.result, err = abi.ParseResult(block); err != nil {
		return o, err
	}
	if o.status == abi.StatusOK {
		if int(o.result.Length) > capacity {
			return o, fmt.Errorf("%s: result of %d bytes in a buffer of %d", name, o.result.Length, capacity)
		}
		out, _ := memory.Read(at, o.result.Length)
		o.batch = bytes.Clone(out)
		return o, nil
	}
	if left, _ := memory.Read(at, uint32(len(b))); !bytes.Equal(left, b) {
		return o, fmt.Errorf("%s: %s, and the batch changed", name, describe(o.status))
	}
	return o, nil
}

func describe(s abi.Status) string { return fmt.Sprintf("status %d (%v)", uint32(s), s) }
