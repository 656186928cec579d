// Command bench measures sealing and opening record batches through e2ee.wasm on the Go
// host, beside native Go doing the same work: the same package filter, compiled natively.
// Runs are interleaved, so that a machine whose speed drifts slows both; what to trust is
// the ratio. It prints a table and writes the figures as JSON.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/host/engine"
	"github.com/wasm-e2ee/wasm-e2ee/host/sidecar"
)

// A Figure is one row of the table. Speeds are in MB (10^6 bytes) of the client's batches a
// second on one core; Ratio is the median of the ratios of neighbouring runs.
type Figure struct {
	Work       string  `json:"work"`
	RecordSize int     `json:"record_size_bytes"`
	BatchSize  int     `json:"batch_size_bytes"`
	Native     Spread  `json:"native_mb_s"`
	Module     Spread  `json:"module_mb_s"`
	Ratio      Spread  `json:"ratio"`
	Runs       int     `json:"runs"`
	RunSeconds float64 `json:"run_seconds"`
}

// A Spread is the smallest, the middle and the largest of the runs.
type Spread struct {
	Min    float64 `json:"min"`
	Median float64 `json:"median"`
	Max    float64 `json:"max"`
}

func main() {
	out := flag.String("o", "build/bench.json", "where the figures go")
	module := flag.String("module", "build/e2ee.wasm", "the module to measure")
	runs := flag.Int("runs", 9, "runs of each row")
	length := flag.Duration("time", 200*time.Millisecond, "length of one run")
	flag.Parse()
	if err := bench(*out, *module, *runs, *length); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func bench(out, path string, runs int, length time.Duration) error {
	ctx := context.Background()
	module, err := sidecar.FindModule(path)
	if err != nil {
		return err
	}
	keys := newKeys()
	eng, err := engine.New(ctx, engine.Options{Module: module, CacheDir: sidecar.CacheDir(""), Config: config, Instances: 1,
		Log: slog.New(slog.DiscardHandler)}, keys)
	if err != nil {
		return err
	}
	defer eng.Close(ctx)
	native, err := newNative(keys)
	if err != nil {
		return err
	}

	var figures []Figure
	for _, recordSize := range []int{100, 1 << 10} {
		for _, batchSize := range []int{16 << 10, 1000 << 10} {
			batch := makeBatch(recordSize, batchSize)
			sealed, err := eng.Seal(ctx, topic, partition, batch)
			if err != nil {
				return err
			}
			for _, work := range []struct {
				name           string
				native, module func() error
			}{
				{"seal", func() error { return native.seal(batch) }, func() error { _, err := eng.Seal(ctx, topic, partition, batch); return err }},
				{"open", func() error { return native.open(sealed) }, func() error { _, err := eng.Open(ctx, topic, partition, sealed); return err }},
			} {
				figure, err := compare(len(batch), runs, length, work.native, work.module)
				if err != nil {
					return fmt.Errorf("%s: %w", work.name, err)
				}
				figure.Work, figure.RecordSize = work.name, recordSize
				figures = append(figures, figure)
			}
		}
	}
	print(figures)
	encoded, err := json.MarshalIndent(struct {
		Go, OS, Arch string
		Figures      []Figure
	}{runtime.Version(), runtime.GOOS, runtime.GOARCH, figures}, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return err
	}
	return os.WriteFile(out, append(encoded, '\n'), 0o644)
}

// compare runs both in turn, native first, and measures MB/s of a batch of size bytes.
func compare(size, runs int, length time.Duration, native, module func() error) (Figure, error) {
	f := Figure{BatchSize: size, Runs: runs, RunSeconds: length.Seconds()}
	var n, m, ratios []float64
	for i := -1; i < runs; i++ { // the first pair warms up
		a, err := speed(size, length, native)
		if err != nil {
			return f, err
		}
		b, err := speed(size, length, module)
		if err != nil {
			return f, err
		}
		if i >= 0 {
			n, m, ratios = append(n, a), append(m, b), append(ratios, b/a)
		}
	}
	f.Native, f.Module, f.Ratio = spread(n), spread(m), spread(ratios)
	return f, nil
}

func speed(size int, length time.Duration, work func() error) (float64, error) {
	runtime.GC()
	begin, done := time.Now(), 0
	for time.Since(begin) < length {
		for range 8 {
			if err := work(); err != nil {
				return 0, err
			}
			done++
		}
	}
	return float64(done) * float64(size) / 1e6 / time.Since(begin).Seconds(), nil
}

func spread(values []float64) Spread {
	slices.Sort(values)
	return Spread{values[0], values[len(values)/2], values[len(values)-1]}
}

func print(figures []Figure) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "work\trecord B\tbatch B\tnative MB/s\tmodule MB/s\tmodule/native\tmin-max\t")
	for _, f := range figures {
		fmt.Fprintf(w, "%s\t%d\t%d\t%.0f\t%.0f\t%.3f\t%.3f-%.3f\t\n", f.Work, f.RecordSize, f.BatchSize,
			f.Native.Median, f.Module.Median, f.Ratio.Median, f.Ratio.Min, f.Ratio.Max)
	}
	w.Flush()
	fmt.Println("MB/s of the client's bytes on one core; medians of interleaved runs. Native: the same package, compiled by Go for this machine.")
}
