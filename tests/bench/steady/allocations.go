// Package steady measures what must not add up: allocations in the module for each batch, and
// a sidecar's memory over the number of records that it has sealed.
package steady

import (
	"context"
	"fmt"

	"github.com/wasm-e2ee/wasm-e2ee/tests/bench/batches"
	"github.com/wasm-e2ee/wasm-e2ee/tests/bench/report"
	"github.com/wasm-e2ee/wasm-e2ee/tests/bench/run"
)

// Allocations counts what Go allocates inside the module for each batch, once it has its keys
// and its buffers; and by how much its linear memory grows meanwhile.
func Allocations(ctx context.Context, o run.Options) ([]report.Row, error) {
	guest, err := startCounting(ctx, o.Dir)
	if err != nil {
		return nil, err
	}
	defer guest.close(ctx)
	keys := batches.NewKeys()
	if err := guest.configure(ctx, keys); err != nil {
		return nil, err
	}
	count := run.Pick(o, 2000, 200)
	var rows []report.Row
	for _, s := range []struct {
		name                string
		recordSize, maximum int
	}{{"1 MiB of 1 KiB records", 1 << 10, 1 << 20}, {"16 KiB of 1 KiB records", 1 << 10, 16 << 10}, {"16 KiB of 100 B records", 100, 16 << 10}} {
		batch := batches.Make(s.recordSize, s.maximum)
		sealed, err := guest.batch(ctx, sealBatch, batch)
		if err != nil {
			return nil, err
		}
		for _, work := range []struct {
			name, fn string
			batch    []byte
		}{{"seal", sealBatch, batch}, {"open", openBatch, sealed}} {
			o.Log("%s %s", work.name, s.name)
			for range count / 10 { // the first ones make room
				if _, err := guest.batch(ctx, work.fn, work.batch); err != nil {
					return nil, err
				}
			}
			allocated, size, err := guest.measure(ctx)
			if err != nil {
				return nil, err
			}
			for range count {
				if _, err := guest.batch(ctx, work.fn, work.batch); err != nil {
					return nil, err
				}
			}
			allocatedAfter, sizeAfter, err := guest.measure(ctx)
			if err != nil {
				return nil, err
			}
			row := report.Single(fmt.Sprintf("in the module, %s %s", work.name, s.name), "allocs/batch", report.AtMost(0),
				report.Side{Name: "module", Values: []float64{float64(allocatedAfter-allocated) / float64(count)}})
			row.Note = fmt.Sprintf("runtime.MemStats.Mallocs of e2ee.wasm, built with one more export, over %d batches", count)
			rows = append(rows, row, report.Single(fmt.Sprintf("linear memory, %s %s", work.name, s.name), "B/batch", report.AtMost(0),
				report.Side{Name: "module", Values: []float64{float64(sizeAfter-size) / float64(count)}}))
		}
	}
	return rows, nil
}
