// Command bench measures how fast the product is and what it costs, and prints that beside its
// targets. It ends with 1 where a figure falls short by more than its spread, and with 2 where
// one could not be measured.
package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
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

// A request is what the command line asks for.
type request struct {
	run.Options
	only, out, plots, document string
	keep                       bool
}

func main() {
	var r request
	flag.StringVar(&r.only, "only", "", "sections to run, comma separated: "+strings.Join(names(), ", ")+"; empty: all")
	flag.StringVar(&r.Match, "match", "", "measure only what has this in its name, as far as it can be measured alone")
	flag.StringVar(&r.out, "o", "build/bench.json", "where the figures go; beside it, with .txt, lines for benchstat")
	flag.BoolVar(&r.keep, "keep", false, "keep the figures in -o of sections that are not run now")
	flag.StringVar(&r.plots, "plots", "", "folder for plots as SVG; empty: none")
	flag.StringVar(&r.document, "document", "", "document whose results are replaced, with plots beside it in the folder plots; empty: none")
	flag.StringVar(&r.Module, "module", "build/e2ee.wasm", "the module to measure")
	flag.StringVar(&r.Program, "program", "build/wasm-e2ee", "the program to measure")
	flag.StringVar(&r.Profile, "profile", "", "where a profile of the sidecar's processor time goes, for go tool pprof; empty: none")
	flag.IntVar(&r.Rounds, "rounds", 0, "rounds of each row; 0: as many as each section needs")
	flag.BoolVar(&r.Quick, "quick", false, "small and short, for work on the benchmark itself: the figures mean little")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	earlier, err := r.earlier()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	rows, err := measure(ctx, r)
	if len(rows) > 0 {
		rows = merge(rows, earlier)
		report.Table(os.Stdout, rows)
		err = errors.Join(err, r.save(rows))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	short := 0
	for _, row := range rows {
		if row.Verdict() == report.Short {
			short++
		}
	}
	if short > 0 {
		fmt.Fprintf(os.Stderr, "bench: %d figures fall short of their targets\n", short)
		os.Exit(1)
	}
}

func names() (all []string) {
	for _, s := range sections {
		all = append(all, s.name)
	}
	return all
}

// measure runs the sections. One that fails does not take the others along.
func measure(ctx context.Context, r request) (rows []report.Row, failed error) {
	wanted := strings.Split(r.only, ",")
	for _, name := range wanted {
		if name != "" && !slices.Contains(names(), name) {
			return nil, fmt.Errorf("no section %q\nhint: they are %s", name, strings.Join(names(), ", "))
		}
	}
	for _, s := range sections {
		if r.only != "" && !slices.Contains(wanted, s.name) {
			continue
		}
		o := r.Options
		if o.Rounds == 0 {
			o.Rounds = run.Pick(o, s.rounds, min(3, s.rounds))
		}
		if err := context.Cause(ctx); err != nil {
			return rows, errors.Join(failed, err)
		}
		begin := time.Now()
		o.Log = func(text string, a ...any) {
			fmt.Fprintf(os.Stderr, "%6.1fs %s: %s\n", time.Since(begin).Seconds(), s.name, fmt.Sprintf(text, a...))
		}
		found, err := inFolder(o, func(o run.Options) ([]report.Row, error) { return s.rows(ctx, o) })
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", s.name, err))
			continue
		}
		command := fmt.Sprintf("go run ./tests/bench -only %s -rounds %d", s.name, o.Rounds)
		if o.Quick {
			command += " -quick"
		}
		for i := range found {
			found[i].Section, found[i].Command = s.name, command
			if match := cmp.Or(o.Match, found[i].Match); match != "" {
				found[i].Command += " -match '" + match + "'"
			}
		}
		rows = append(rows, found...)
	}
	return rows, failed
}

// inFolder gives a section a folder of its own while it runs.
func inFolder(o run.Options, rows func(run.Options) ([]report.Row, error)) (_ []report.Row, err error) {
	if o.Dir, err = os.MkdirTemp("", "wasm-e2ee-bench-"); err != nil {
		return nil, err
	}
	defer os.RemoveAll(o.Dir)
	return rows(o)
}

// earlier returns the rows of an earlier run that are to be kept.
func (r request) earlier() ([]report.Row, error) {
	if !r.keep {
		return nil, nil
	}
	f, err := os.Open(r.out)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	rows, err := report.ReadJSON(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.out, err)
	}
	return rows, nil
}

// merge returns rows and, of the sections that have none there, those of an earlier run, in
// the order of sections.
func merge(rows, earlier []report.Row) (all []report.Row) {
	of := func(rows []report.Row, section string) []report.Row {
		return slices.DeleteFunc(slices.Clone(rows), func(row report.Row) bool { return row.Section != section })
	}
	for _, name := range names() {
		found := of(rows, name)
		if len(found) == 0 {
			found = of(earlier, name)
		}
		all = append(all, found...)
	}
	return all
}

// save writes every form that was asked for.
func (r request) save(rows []report.Row) error {
	err := errors.Join(write(r.out, rows, report.JSON), write(strings.TrimSuffix(r.out, filepath.Ext(r.out))+".txt", rows, report.Benchstat))
	if r.plots != "" {
		_, plotErr := report.Plots(r.plots, rows)
		err = errors.Join(err, plotErr)
	}
	if r.document != "" {
		const folder = "plots"
		files, plotErr := report.Plots(filepath.Join(filepath.Dir(r.document), folder), rows)
		for i := range files {
			files[i] = folder + "/" + files[i]
		}
		err = errors.Join(err, plotErr, report.Markdown(r.document, rows, files))
	}
	return err
}

func write(path string, rows []report.Row, to func(io.Writer, []report.Row) error) error {
	var b bytes.Buffer
	if err := to(&b, rows); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, b.Bytes(), 0o644)
}
