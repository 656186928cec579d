// Package run is what the sections of the benchmark have in common: how long they measure,
// and how two kinds of work are timed in turn.
package run

import (
	"context"
	"runtime"
	"strings"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/tests/bench/report"
)

// Options say how much is measured, and of what.
type Options struct {
	Module  string                      // path of e2ee.wasm
	Program string                      // path of wasm-e2ee
	Profile string                      // where a sidecar's profile goes; "": it is not profiled
	Dir     string                      // for what is only needed while it runs
	Rounds  int                         // of each row
	Match   string                      // measure only rows with this in their names
	Quick   bool                        // sizes for development: the figures mean little
	Log     func(text string, a ...any) // what is going on
}

// Wants tells whether what has this name is asked for.
func (o Options) Wants(name string) bool { return strings.Contains(name, o.Match) }

// Pick returns full, or quick in a quick run.
func Pick[T any](o Options, full, quick T) T {
	if o.Quick {
		return quick
	}
	return full
}

// A Work is one side of a comparison.
type Work struct {
	Name string
	Do   func() error
}

// InTurn times works one after the other, round by round, so that a machine whose speed
// drifts slows all; every other round goes backwards. A first round warms up. Each side's
// values are MB (10^6 bytes) a second, where one Do works on size bytes.
func InTurn(ctx context.Context, o Options, size int, works ...Work) ([]report.Side, error) {
	sides := make([]report.Side, len(works))
	length := Pick(o, 300*time.Millisecond, 30*time.Millisecond)
	for round := -1; round < o.Rounds; round++ {
		for i := range works {
			if round%2 != 0 {
				i = len(works) - 1 - i
			}
			if err := context.Cause(ctx); err != nil {
				return nil, err
			}
			speed, err := speed(size, length, works[i].Do)
			if err != nil {
				return nil, err
			}
			sides[i].Name = works[i].Name
			if round >= 0 {
				sides[i].Values = append(sides[i].Values, speed)
			}
		}
	}
	return sides, nil
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
