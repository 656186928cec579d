package report

import (
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"strings"
)

// A file is what JSON writes.
type file struct {
	Machine Machine   `json:"machine"`
	Go      string    `json:"go"`
	Rows    []fileRow `json:"rows"`
}

type fileRow struct {
	Row
	Result  Spread  `json:"result"`
	Verdict Verdict `json:"verdict,omitempty"`
}

// JSON writes the rows, every round of every side, and the machine.
func JSON(out io.Writer, rows []Row) error {
	document := file{Machine: ThisMachine(), Go: runtime.Version()}
	for _, r := range rows {
		document.Rows = append(document.Rows, fileRow{r, r.Result(), r.Verdict()})
	}
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(document)
}

// ReadJSON reads the rows that JSON wrote. What they come to is worked out anew.
func ReadJSON(in io.Reader) (rows []Row, err error) {
	var document file
	if err := json.NewDecoder(in).Decode(&document); err != nil {
		return nil, err
	}
	for _, r := range document.Rows {
		if len(r.Sides) == 0 || r.Ratio && len(r.Sides) < 2 {
			return nil, fmt.Errorf("the row %q lacks a side", r.Name)
		}
		rows = append(rows, r.Row)
	}
	return rows, nil
}

// Benchstat writes one line for each round of each side, as `go test -bench` does, for
// golang.org/x/perf/cmd/benchstat: compare two runs, or `benchstat -col /side FILE`.
func Benchstat(out io.Writer, rows []Row) error {
	m := ThisMachine()
	if _, err := fmt.Fprintf(out, "goos: %s\ngoarch: %s\ncpu: %s\n", runtime.GOOS, runtime.GOARCH, m.Processor); err != nil {
		return err
	}
	for _, r := range rows {
		for _, s := range r.Sides {
			for _, v := range s.Values {
				if _, err := fmt.Fprintf(out, "Benchmark%s/%s/side=%s 1 %v %s\n", word(r.Section), word(r.Name), word(s.Name), v, word(r.Unit)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// word makes one word of a name: benchstat splits lines at spaces and names at slashes.
func word(s string) string {
	return strings.Trim(strings.Map(func(c rune) rune {
		if c == ' ' || c == ',' || c == ':' {
			return '_'
		}
		return c
	}, s), "_")
}
