package report

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

var sample = []Row{
	{Section: "s", Name: "a & b", Unit: "MB/s", Ratio: true, Target: AtLeast(0.5), Command: "go run x", Note: "a note",
		Sides: []Side{{"one", []float64{1, 2, 3}}, {"<two>", []float64{2, 4, 6}}}},
	{Section: "s", Name: "nothing", Unit: "ms", Command: "go run x", Sides: []Side{{"one", []float64{0}}}},
}

func TestPlotsAreWellFormed(t *testing.T) {
	dir := t.TempDir()
	files, err := Plots(dir, sample)
	if err != nil || len(files) != 2 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		f, err := os.Open(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for d := xml.NewDecoder(f); err == nil; {
			_, err = d.Token()
		}
		if !errors.Is(err, io.EOF) {
			t.Errorf("%s: %v", file, err)
		}
	}
}

func TestADocumentKeepsWhatIsAroundItsResults(t *testing.T) {
	path := filepath.Join(t.TempDir(), "README.md")
	if err := os.WriteFile(path, []byte("before\n"+beginMark+"\nold\n"+endMark+"\nafter\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var first string
	for range 2 { // the second time over its own results
		if err := Markdown(path, sample, []string{"plots/s.svg"}); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		text := string(b)
		if !strings.HasPrefix(text, "before\n") || !strings.HasSuffix(text, "\nafter\n") || strings.Contains(text, "old") ||
			!strings.Contains(text, "| s: a & b | >= 0.5 | 0.500 | reached |") || !strings.Contains(text, "* s: go run x\n") {
			t.Errorf("%s", text)
		}
		if first != "" && text != first {
			t.Errorf("the second time:\n%s", text)
		}
		first = text
	}
	if err := os.WriteFile(path, []byte("no marks"), 0o644); err != nil {
		t.Fatal(err)
	}
	if Markdown(path, sample, nil) == nil {
		t.Error("a document without marks was written")
	}
}

func TestRowsAreReadAsTheyWereWritten(t *testing.T) {
	var b bytes.Buffer
	if err := JSON(&b, sample); err != nil {
		t.Fatal(err)
	}
	rows, err := ReadJSON(&b)
	if err != nil || !reflect.DeepEqual(rows, sample) {
		t.Errorf("%+v, %v", rows, err)
	}
	if _, err := ReadJSON(strings.NewReader(`{"rows": [{"name": "x", "ratio": true, "sides": [{}]}]}`)); err == nil {
		t.Error("a ratio of one side was read")
	}
}

func TestEveryRowIsPrintedWithItsCommand(t *testing.T) {
	var b strings.Builder
	Table(&b, sample)
	for _, want := range []string{"s: a & b", "s: nothing", "s: a note\n", "s: go run x\n", "one 2 [1.50, 2.50]"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, &b)
		}
	}
}
