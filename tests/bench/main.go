// Command bench measures how fast the product is and what it costs, and prints that beside its
// targets. It ends with 1 where a figure falls short by more than its spread.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/tests/bench/aead"
	"github.com/wasm-e2ee/wasm-e2ee/tests/bench/batches"
	"github.com/wasm-e2ee/wasm-e2ee/tests/bench/envoy"
	"github.com/wasm-e2ee/wasm-e2ee/tests/bench/inside"
	"github.com/wasm-e2ee/wasm-e2ee/tests/bench/report"
	"github.com/wasm-e2ee/wasm-e2ee/tests/bench/run"
	"github.com/wasm-e2ee/wasm-e2ee/tests/bench/steady"
	"github.com/wasm-e2ee/wasm-e2ee/tests/bench/stored"
	"github.com/wasm-e2ee/wasm-e2ee/tests/bench/through"
)

// sections are what can be measured alone with -only, in order.
var sections = []struct {
	name   string
	rounds int // where the command line names none
	rows   func(context.Context, run.Options) ([]report.Row, error)
}{
	{"batches", 15, batches.Rows},
	{"aead", 15, aead.Rows},
	{"allocations", 1, steady.Allocations},
	{"through", 5, through.Rows},
	{"inside", 7, inside.Rows},
	{"stored", 1, stored.Rows},
	{"memory", 1, steady.Memory},
	{"envoy", 9, envoy.Rows},
}

func main() {
	only := flag.String("only", "", "sections to run, comma separated: "+names()+"; empty: all")
	out := flag.String("o", "build/bench.json", "where the figures go; beside it, with .txt, lines for benchstat")
	plots := flag.String("plots", "", "folder for plots as SVG; empty: none")
	module := flag.String("module", "build/e2ee.wasm", "the module to measure")
	program := flag.String("program", "build/wasm-e2ee", "the program to measure")
	rounds := flag.Int("rounds", 0, "rounds of each row; 0: as many as each section needs")
	quick := flag.Bool("quick", false, "small and short, for work on the benchmark itself: the figures mean little")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	short, err := bench(ctx, *only, *out, *plots, run.Options{Module: *module, Program: *program, Rounds: *rounds, Quick: *quick})
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	if short > 0 {
		fmt.Fprintf(os.Stderr, "bench: %d figures fall short of their targets\n", short)
		os.Exit(1)
	}
}

func names() string {
	var all []string
	for _, s := range sections {
		all = append(all, s.name)
	}
	return strings.Join(all, ", ")
}

// bench runs the sections and returns how many rows fall short.
func bench(ctx context.Context, only, out, plots string, o run.Options) (short int, err error) {
	wanted := map[string]bool{}
	for _, name := range strings.Split(only, ",") {
		if name != "" && !strings.Contains(","+strings.ReplaceAll(names(), " ", "")+",", ","+name+",") {
			return 0, fmt.Errorf("no section %q; they are %s", name, names())
		}
		wanted[name] = true
	}
	var rows []report.Row
	for _, s := range sections {
		if !wanted[""] && !wanted[s.name] {
			continue
		}
		own := o
		if own.Rounds == 0 {
			own.Rounds = run.Pick(o, s.rounds, min(3, s.rounds))
		}
		begin := time.Now()
		own.Log = func(text string, a ...any) {
			fmt.Fprintf(os.Stderr, "%6.1fs %s: %s\n", time.Since(begin).Seconds(), s.name, fmt.Sprintf(text, a...))
		}
		if own.Dir, err = os.MkdirTemp("", "wasm-e2ee-bench-"); err != nil {
			return 0, err
		}
		found, err := s.rows(ctx, own)
		os.RemoveAll(own.Dir)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", s.name, err)
		}
		command := fmt.Sprintf("go run ./tests/bench -only %s -rounds %d", s.name, own.Rounds)
		if o.Quick {
			command += " -quick"
		}
		for i := range found {
			found[i].Section, found[i].Command = s.name, command
		}
		rows = append(rows, found...)
	}
	report.Table(os.Stdout, rows)
	if err := save(out, rows, report.JSON); err != nil {
		return 0, err
	}
	if err := save(strings.TrimSuffix(out, filepath.Ext(out))+".txt", rows, report.Benchstat); err != nil {
		return 0, err
	}
	if plots != "" {
		if err := report.Plots(plots, rows); err != nil {
			return 0, err
		}
	}
	for _, r := range rows {
		if r.Verdict() == report.Short {
			short++
		}
	}
	return short, nil
}

func save(path string, rows []report.Row, write func(io.Writer, []report.Row) error) error {
	var b bytes.Buffer
	if err := write(&b, rows); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, b.Bytes(), 0o644)
}
