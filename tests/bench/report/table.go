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
	for _, line := range notes(rows) {
		fmt.Fprintln(out, line)
	}
}

// notes are what to know about the rows of each section, and its command, once each.
func notes(rows []Row) (lines []string) {
	seen := map[string]bool{"": true}
	for _, of := range []func(Row) string{func(r Row) string { return r.Note }, func(r Row) string { return r.Command }} {
		for _, r := range rows {
			if text := of(r); !seen[text] {
				seen[text] = true
				lines = append(lines, r.Section+": "+text)
			}
		}
	}
	return lines
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
