package steady

import (
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/host/engine/env"
	"github.com/wasm-e2ee/wasm-e2ee/tests/artifact"
	"github.com/wasm-e2ee/wasm-e2ee/tests/bench/batches"
)

const (
	sealBatch = abi.FuncSealBatch
	openBatch = abi.FuncOpenBatch
)

//go:embed mallocs.go.txt
var mallocs []byte

// buildCounting builds the module with an export that counts its allocations: one file more,
// which is never in the tree's package.
func buildCounting(dir string) ([]byte, error) {
	source, list := filepath.Join(dir, "mallocs_wasip1.go"), filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(source, mallocs, 0o600); err != nil {
		return nil, err
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {filepath.Join(artifact.Root(), "module", "mallocs_wasip1.go"): source}})
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(list, overlay, 0o600); err != nil {
		return nil, err
	}
	return artifact.Build(filepath.Join(dir, "counting.wasm"), "-overlay="+list)
}

// A counting is an instance of that module, driven by hand: nothing but SPEC.md §3 is called
// between two measurements.
type counting struct {
	runtime wazero.Runtime
	module  api.Module
	keys    *batches.Keys

	topic, result, block, buf uint32 // buffers in its memory
}

// Sizes of the buffers in bytes.
const (
	blockSize = 4096
	bufSize   = 2 << 20
)

func startCounting(ctx context.Context, dir string) (*counting, error) {
	binary, err := buildCounting(dir)
	if err != nil {
		return nil, err
	}
	c := &counting{runtime: wazero.NewRuntime(ctx)}
	if _, err := wasi_snapshot_preview1.Instantiate(ctx, c.runtime); err != nil {
		return nil, err
	}
	if err := env.Instantiate(ctx, c.runtime); err != nil {
		return nil, err
	}
	c.module, err = c.runtime.InstantiateWithConfig(ctx, binary, wazero.NewModuleConfig().WithStartFunctions("_initialize").
		WithRandSource(rand.Reader).WithSysWalltime().WithSysNanotime())
	if err != nil {
		return nil, err
	}
	for at, size := range map[*uint32]uint64{&c.topic: abi.MaxTopicLen, &c.result: abi.ResultSize, &c.block: blockSize, &c.buf: bufSize} {
		if *at, err = c.call(ctx, abi.FuncAlloc, size); err != nil {
			return nil, err
		}
	}
	c.module.Memory().WriteString(c.topic, batches.Topic)
	return c, nil
}

func (c *counting) configure(ctx context.Context, keys *batches.Keys) error {
	c.keys = keys
	root, err := keys.Root(ctx, batches.Topic, 0, abi.Kid{})
	if err != nil {
		return err
	}
	if err := c.with(ctx, abi.FuncConfigure, batches.Config.Append(nil)); err != nil {
		return err
	}
	return c.with(ctx, abi.FuncInstallRoot, root.Append(nil))
}

// with calls a function that takes one block.
func (c *counting) with(ctx context.Context, fn string, block []byte) error {
	c.module.Memory().Write(c.block, block)
	status, err := c.call(ctx, fn, uint64(c.block), uint64(len(block)))
	if err != nil {
		return err
	}
	return abi.Status(status).Err()
}

// batch seals or opens one batch, with a new lease where one is needed, and returns a copy.
func (c *counting) batch(ctx context.Context, fn string, batch []byte) ([]byte, error) {
	for range 2 {
		c.module.Memory().Write(c.buf, batch)
		status, err := c.call(ctx, fn, uint64(c.buf), uint64(len(batch)), bufSize, uint64(c.topic), uint64(len(batches.Topic)),
			batches.Partition, uint64(time.Now().UnixMilli()), uint64(c.result))
		if err != nil {
			return nil, err
		}
		if abi.Status(status) == abi.StatusNeedLease {
			lease, err := c.keys.Lease(ctx, batches.Topic)
			if err != nil {
				return nil, err
			}
			if err := c.with(ctx, abi.FuncInstallLease, lease.Append(nil)); err != nil {
				return nil, err
			}
			continue
		}
		if err := abi.Status(status).Err(); err != nil {
			return nil, fmt.Errorf("%s: %w", fn, err)
		}
		block, _ := c.module.Memory().Read(c.result, abi.ResultSize)
		result, err := abi.ParseResult(block)
		if err != nil {
			return nil, err
		}
		out, _ := c.module.Memory().Read(c.buf, result.Length)
		return append([]byte(nil), out...), nil
	}
	return nil, fmt.Errorf("%s: %w", fn, abi.StatusNeedLease)
}

// measure returns how many objects the module has allocated so far, and its memory in bytes.
func (c *counting) measure(ctx context.Context) (allocated uint64, size uint32, err error) {
	out, err := c.module.ExportedFunction("bench_mallocs").Call(ctx)
	if err != nil {
		return 0, 0, err
	}
	return out[0], c.module.Memory().Size(), nil
}

func (c *counting) call(ctx context.Context, fn string, args ...uint64) (uint32, error) {
	out, err := c.module.ExportedFunction(fn).Call(ctx, args...)
	if err != nil || len(out) == 0 {
		return 0, err
	}
	return uint32(out[0]), nil
}

func (c *counting) close(ctx context.Context) { _ = c.runtime.Close(ctx) }
