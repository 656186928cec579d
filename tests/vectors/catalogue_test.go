package vectors

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// catalogue is the text of PROTOCOL.md §2.19.
func catalogue(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../../abi/PROTOCOL.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, ok := strings.Cut(string(b), "\n### 2.19 ")
	if text, _, ok = strings.Cut(text, "\n## 3"); !ok {
		t.Fatal("PROTOCOL.md has no §2.19")
	}
	return text
}

func TestEveryRefusalOfAControlRecordHasItsVector(t *testing.T) {
	named := map[string]Kind{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z0-9-]+)` \\| .* \\| ([a-z ]+) \\|$").FindAllStringSubmatch(catalogue(t), -1) {
		if named[m[1]] != "" {
			t.Errorf("%s is named twice", m[1])
		}
		named[m[1]] = Kind(m[2])
	}
	shown := map[string]bool{}
	show := func(name, refusal string, kind Kind) {
		if refusal == "" {
			return
		}
		if shown[refusal] = true; named[refusal] != kind {
			t.Errorf("vector %s: refusal %q of kind %q, which PROTOCOL.md §2.19 calls %q", name, refusal, kind, named[refusal])
		}
	}
	controls, err := Controls()
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range controls {
		show(v.Name, v.Refusal, v.Want.Kind)
	}
	decisions, err := Decisions()
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range decisions {
		show(v.Name, v.Refusal, v.Want.Kind)
	}
	enrolments, err := Enrolments()
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range enrolments {
		show(v.Name, v.Refusal, v.Want.Kind)
	}
	replays, err := Replays()
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range replays {
		for _, s := range v.Steps {
			if s.Want != "" && s.Want != Taken {
				show(v.Name, v.Refusal, s.Want)
			}
		}
	}
	for name := range named {
		if !shown[name] {
			t.Errorf("refusal %s has no vector", name)
		}
	}
	if len(named) < 200 {
		t.Errorf("only %d refusals found", len(named))
	}
}

func TestEveryRefusalOfABatchHasAVector(t *testing.T) {
	all, err := All()
	if err != nil {
		t.Fatal(err)
	}
	shown := map[int]bool{}
	for _, v := range all {
		shown[int(v.Want.Status)] = true
	}
	rows := regexp.MustCompile(`(?m)^\| .* \| ([0-9]+) \|$`).FindAllStringSubmatch(catalogue(t), -1)
	if len(rows) < 10 {
		t.Fatalf("only %d refusals found", len(rows))
	}
	for _, m := range rows {
		status, _ := strconv.Atoi(m[1])
		if !shown[status] {
			t.Errorf("no vector ends with status %d", status)
		}
		delete(shown, status)
	}
	delete(shown, 0) // ok
	delete(shown, 3) // a larger buffer, asked for by status
	for status := range shown {
		t.Errorf("vectors end with status %d, which PROTOCOL.md §2.19 does not name", status)
	}
}
