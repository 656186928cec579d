package report

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Table writes the rows that have a target, then the others, each with its sides; and the
// commands once for each section.
func Table(out io.Writer, rows []Row) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "FIGURE\tTARGET\tRESULT\tVERDICT\tMEASURED")
	for _, r := range rows {
		if r.Target != nil {
			fmt.Fprintf(w, "%s: %s\t%s\t%s\t%s\t%s\n", r.Section, r.Name, r.Target, r.result(), r.Verdict(), r.sides())
		}
	}
	w.Flush()
	if rest := len(rows) - len(withTarget(rows)); rest > 0 {
		fmt.Fprintln(w, "\nALSO MEASURED\tRESULT\tSIDES")
		for _, r := range rows {
			if r.Target == nil {
				fmt.Fprintf(w, "%s: %s\t%s\t%s\n", r.Section, r.Name, r.result(), r.sides())
			}
		}
		w.Flush()
	}
	fmt.Fprintln(out, "\nMedians; [lower, upper quartile] of the rounds; a ratio is that of the first side to the second, round by round.")
	seen := map[string]bool{}
	for _, r := range rows {
		if !seen[r.Note] && r.Note != "" {
			fmt.Fprintf(out, "%s: %s\n", r.Section, r.Note)
		}
		seen[r.Note] = true
	}
	for _, r := range rows {
		if !seen[r.Command] {
			fmt.Fprintf(out, "%s: %s\n", r.Section, r.Command)
		}
		seen[r.Command] = true
	}
}

func withTarget(rows []Row) (with []Row) {
	for _, r := range rows {
		if r.Target != nil {
			with = append(with, r)
		}
	}
	return with
}

func (r Row) result() string {
	if r.Ratio {
		return r.Result().String()
	}
	return r.Result().String() + " " + r.Unit
}

func (r Row) sides() string {
	var all []string
	for _, s := range r.Sides {
		all = append(all, s.Name+" "+Of(s.Values).String())
	}
	return strings.Join(all, " · ") + " " + r.Unit
}
