package report

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// The lines of a document between which Markdown writes.
const (
	beginMark = "<!-- what follows is written by the benchmark -->"
	endMark   = "<!-- what precedes is written by the benchmark -->"
)

// Markdown replaces what stands between the two marks of the document at path by the rows, the
// machine, the date and the plots, whose paths are relative to the document.
func Markdown(path string, rows []Row, plots []string) error {
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	head, rest, found := bytes.Cut(old, []byte(beginMark))
	_, tail, foundEnd := bytes.Cut(rest, []byte(endMark))
	if !found || !foundEnd {
		return errors.New(path + " lacks the marks between which the results belong")
	}
	m := ThisMachine()
	var b bytes.Buffer
	b.Write(head)
	fmt.Fprintf(&b, "%s\n\n%s: %s, %d cores, %s %s.\n", beginMark, time.Now().UTC().Format(time.DateOnly), m.Processor, m.Cores, m.System, m.Kernel)
	b.WriteString("\n| Figure | Target | Result | | Measured |\n|---|---|---|---|---|\n")
	for _, r := range withTarget(rows) {
		fmt.Fprintf(&b, "| %s: %s | %s | %s | %s | %s |\n", r.Section, r.Name, r.Target, r.result(), r.Verdict(), r.sides())
	}
	for _, p := range plots {
		fmt.Fprintf(&b, "\n![%[1]s](%[1]s)\n", p)
	}
	b.WriteString("\nAlso measured:\n\n| Figure | Result | Measured |\n|---|---|---|\n")
	for _, r := range rows {
		if r.Target == nil {
			fmt.Fprintf(&b, "| %s: %s | %s | %s |\n", r.Section, r.Name, r.result(), r.sides())
		}
	}
	b.WriteString("\n")
	for _, line := range notes(rows) {
		fmt.Fprintf(&b, "* %s\n", strings.ReplaceAll(line, "|", `\|`))
	}
	b.WriteString("\n" + endMark)
	b.Write(tail)
	return os.WriteFile(path, b.Bytes(), 0o644)
}
