// Package batches measures sealing and opening record batches through e2ee.wasm in the Go
// host, beside native Go doing the same work: package filter, compiled for this machine.
package batches

import (
	"context"
	"fmt"
	"log/slog"
	"testing"

	"github.com/wasm-e2ee/wasm-e2ee/host/engine"
	"github.com/wasm-e2ee/wasm-e2ee/host/sidecar"
	"github.com/wasm-e2ee/wasm-e2ee/tests/bench/report"
	"github.com/wasm-e2ee/wasm-e2ee/tests/bench/run"
)

// sizes are those of the client's batches. 16 KiB is what a Java producer sends by default.
var sizes = []struct {
	name                string
	recordSize, maximum int
	target              float64 // 0: none
}{
	{"1 MiB of 1 KiB records", 1 << 10, 1 << 20, 0.85},
	{"16 KiB of 1 KiB records", 1 << 10, 16 << 10, 0.60},
	{"16 KiB of 100 B records", 100, 16 << 10, 0.60},
	{"1 MiB of 100 B records", 100, 1 << 20, 0},
}

// Rows measures packed batches on one core.
func Rows(ctx context.Context, o run.Options) ([]report.Row, error) {
	module, err := sidecar.FindModule(o.Module)
	if err != nil {
		return nil, err
	}
	keys := NewKeys()
	eng, err := engine.New(ctx, engine.Options{Module: module, CacheDir: sidecar.CacheDir(""), Config: Config, Instances: 1,
		Log: slog.New(slog.DiscardHandler)}, keys)
	if err != nil {
		return nil, err
	}
	defer eng.Close(ctx)
	native, err := newNative(keys)
	if err != nil {
		return nil, err
	}
	var rows []report.Row
	for _, s := range sizes {
		batch := Make(s.recordSize, s.maximum)
		sealed, err := eng.Seal(ctx, Topic, Partition, batch)
		if err != nil {
			return nil, err
		}
		var kept []byte // for what comes out, as a proxy keeps it
		for _, work := range []struct {
			name           string
			module, native func() error
		}{
			{"seal", func() (err error) { kept, err = eng.SealTo(ctx, kept[:0], Topic, Partition, batch); return err }, func() error { return native.seal(batch) }},
			{"open", func() (err error) { kept, err = eng.OpenTo(ctx, kept[:0], Topic, Partition, sealed); return err }, func() error { return native.open(sealed) }},
		} {
			name := work.name + " " + s.name
			if !o.Wants(name) {
				continue
			}
			o.Log("%s", name)
			sides, err := run.InTurn(ctx, o, len(batch), run.Work{Name: "module", Do: work.module}, run.Work{Name: "native", Do: work.native})
			if err != nil {
				return nil, fmt.Errorf("%s: %w", work.name, err)
			}
			var target *report.Target
			if s.target > 0 {
				target = report.AtLeast(s.target)
			}
			row := report.Compare(name, "MB/s", target, sides...)
			row.Match = s.name
			row.Note = "packed, the client's bytes, one core; native is the same package compiled by Go for this machine, on one buffer that it keeps"
			allocations := testing.AllocsPerRun(20, func() { err = work.module() })
			if err != nil {
				return nil, err
			}
			rows = append(rows, row, report.Single(name+", the host's allocations", "allocs/batch", nil,
				report.Side{Name: "host", Values: []float64{allocations}}))
		}
	}
	return rows, nil
}
