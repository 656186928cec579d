package envoy

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"
)

// A report is the rows of the table that is printed at the end.
type report struct {
	mu   sync.Mutex
	rows []*row
}

// A row is what one scenario came to.
type row struct {
	scenario, where string
	result          string
	took            time.Duration
	figures         []string
}

var summary report

// scenario runs one scenario as a subtest and gives it a row of the summary.
func scenario(t *testing.T, name, where string, run func(t *testing.T, r *row)) bool {
	t.Helper()
	return t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
		r := &row{scenario: name, where: where, result: "did not end"}
		summary.mu.Lock()
		summary.rows = append(summary.rows, r)
		summary.mu.Unlock()
		begin := time.Now()
		defer func() {
			r.took = time.Since(begin)
			switch {
			case t.Failed():
				r.result = "FAILED"
			case t.Skipped():
				r.result = "skipped"
			default:
				r.result = "ok"
			}
		}()
		run(t, r)
	})
}

// note adds a figure.
func (r *row) note(format string, args ...any) {
	r.figures = append(r.figures, fmt.Sprintf(format, args...))
}

// print writes the table, if there is anything in it.
func (s *report) print(w io.Writer) {
	if len(s.rows) == 0 {
		return
	}
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(tab, "\nscenario\twhere\tresult\ttime\tfigures\n")
	for _, r := range s.rows {
		fmt.Fprintf(tab, "%s\t%s\t%s\t%.1fs\t%s\n", r.scenario, r.where, r.result, r.took.Seconds(), strings.Join(r.figures, ", "))
	}
	tab.Flush()
}
