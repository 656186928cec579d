package abi_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/plugin"
)

// declared returns the constants of abi.go and status.go whose name starts with prefix, in
// the order of the files, with their values: exports as strings, statuses as numbers, and
// counters, which are an iota, as their place.
func declared(t *testing.T, file, prefix string) (names []string, values map[string]string) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	values = map[string]string{}
	for _, d := range f.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.CONST {
			continue
		}
		for i, s := range g.Specs {
			v := s.(*ast.ValueSpec)
			name := v.Names[0].Name
			if !strings.HasPrefix(name, prefix) {
				continue
			}
			value := strconv.Itoa(i)
			if len(v.Values) == 1 {
				if lit, ok := v.Values[0].(*ast.BasicLit); ok {
					value = strings.Trim(lit.Value, `"`)
				}
			}
			names, values[name] = append(names, name), value
		}
	}
	if len(names) == 0 {
		t.Fatalf("%s declares no constant %s…", file, prefix)
	}
	return names, values
}

func spec(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("SPEC.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// section returns the text from the heading that starts with title to the next heading of
// the same or a higher level.
func section(t *testing.T, text, title string) string {
	t.Helper()
	start := strings.Index(text, "\n"+title)
	if start < 0 {
		t.Fatalf("no heading %q", title)
	}
	rest := text[start+1:]
	level := strings.IndexByte(rest, ' ')
	_, body, _ := strings.Cut(rest, "\n")
	end := regexp.MustCompile(fmt.Sprintf(`(?m)^#{1,%d} `, level)).FindStringIndex(body)
	if end == nil {
		return body
	}
	return body[:end[0]]
}

func TestSpecListsEveryExportOnceAndNoOther(t *testing.T) {
	text := section(t, spec(t), "## 3.")
	var got []string
	for _, m := range regexp.MustCompile(`\(func \(export "([^"]+)"\)`).FindAllStringSubmatch(text, -1) {
		got = append(got, m[1])
	}
	names, values := declared(t, "abi.go", "Func")
	var want []string
	for _, n := range names {
		want = append(want, values[n])
	}
	if !slices.Equal(got, want) {
		t.Errorf("SPEC.md §3 has the functions\n%q\nabi.go declares\n%q", got, want)
	}
	for i, name := range want {
		if !strings.Contains(text, fmt.Sprintf("### 3.%d %s\n", i+1, name)) {
			t.Errorf("SPEC.md has no heading 3.%d for %s", i+1, name)
		}
	}
}

func TestSpecListsEveryStatusWithItsNumber(t *testing.T) {
	text := section(t, spec(t), "## 5.")
	got := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^\| (\d+) \| (\w+) \| [^|]+ \| [^|]+ \|$`).FindAllStringSubmatch(text, -1) {
		if _, twice := got[m[2]]; twice {
			t.Errorf("SPEC.md §5 lists %s twice", m[2])
		}
		got[m[2]] = m[1]
	}
	_, want := declared(t, "status.go", "Status")
	for name, number := range want {
		if got[name] != number {
			t.Errorf("%s is %s in status.go and %q in SPEC.md §5", name, number, got[name])
		}
		n, err := strconv.ParseUint(number, 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(abi.Status(n).String(), "unknown status") {
			t.Errorf("%s has no text", name)
		}
		words := regexp.MustCompile("[A-Z][a-z]*").FindAllString(strings.TrimPrefix(name, "Status"), -1)
		if want := strings.ToLower(strings.Join(words, "_")); abi.Status(n).Name() != want && name != "StatusOK" {
			t.Errorf("%s is named %q, want %q", name, abi.Status(n).Name(), want)
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("SPEC.md §5 lists %s, which status.go does not declare", name)
		}
	}
}

func TestSpecListsEveryCounterInItsPlace(t *testing.T) {
	text := section(t, spec(t), "### 4.5")
	names, values := declared(t, "abi.go", "Counter")
	if len(names) != int(abi.NumCounters) {
		t.Fatalf("abi.go declares %d counters, NumCounters is %d", len(names), abi.NumCounters)
	}
	for _, name := range names {
		if !strings.Contains(text, "| "+values[name]+" | "+name+" |") {
			t.Errorf("SPEC.md §4.5 does not give %s the index %s", name, values[name])
		}
	}
	if rows := strings.Count(text, "| Counter"); rows != len(names) {
		t.Errorf("SPEC.md §4.5 has %d counters, abi.go %d", rows, len(names))
	}
}

// widths sums the fixed widths of a block's table.
func widths(t *testing.T, title string) int {
	t.Helper()
	sum := 0
	for _, m := range regexp.MustCompile(`(?m)^\| (\d+) \| `).FindAllStringSubmatch(section(t, spec(t), title), -1) {
		n, err := strconv.Atoi(m[1])
		if err != nil {
			t.Fatal(err)
		}
		sum += n
	}
	return sum
}

func TestSpecGivesEachBlockItsSize(t *testing.T) {
	lease := abi.Lease{Topic: "t"}
	root := abi.Root{Topic: "t"}
	config := abi.Config{Rules: []abi.Rule{{Pattern: "t"}}}
	for _, c := range []struct {
		title string
		size  int // of a block whose strings are one byte each, without that byte
	}{
		{"### 4.1", len(config.Append(nil)) - 1},
		{"### 4.2", len(lease.Append(nil)) - 1},
		{"### 4.3", len(root.Append(nil)) - 1},
		{"### 4.4", abi.ResultSize},
	} {
		if got := widths(t, c.title); got != c.size {
			t.Errorf("SPEC.md %s sums to %d bytes, the block has %d", c.title, got, c.size)
		}
	}
}

func TestSpecStatesTheVersion(t *testing.T) {
	if want := fmt.Sprintf("# The module's ABI, version %d\n", abi.Version); !strings.HasPrefix(spec(t), want) {
		t.Errorf("SPEC.md does not start with %q", want)
	}
}

func TestSpecListsEveryImport(t *testing.T) {
	types := strings.NewReplacer("i", " i32", "I", " i64")
	var want []string
	for _, f := range plugin.Imports() {
		want = append(want, fmt.Sprintf(`(import "%s" "%s" (func (param%s) (result i32)))`, plugin.ImportModule, f.Name, types.Replace(f.Params)))
	}
	if text := section(t, spec(t), "### 8.3"); !strings.Contains(text, "```wat\n"+strings.Join(want, "\n")+"\n```") {
		t.Errorf("SPEC.md §8.3 does not list\n%s", strings.Join(want, "\n"))
	}
}

// TestSpecListsEveryKeyOfThePlugin sets each field to what its type allows, and looks for the
// keys that are written.
func TestSpecListsEveryKeyOfThePlugin(t *testing.T) {
	text := section(t, spec(t), "### 8.1")
	full := plugin.Config{Brokers: plugin.Brokers{ByID: map[int32]string{1: "a"}, Host: "a", BasePort: 1},
		Policy: plugin.Policy{Plain: []string{"a"}, OnUnreadable: "stop"}, ProduceWaitMs: 1, MaxFrameBytes: 1, MaxMemoryBytes: 1}
	b, err := full.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	keys := regexp.MustCompile(`"([a-z_]+)":`).FindAllStringSubmatch(string(b), -1)
	for _, m := range keys {
		if !regexp.MustCompile("`(\\w+\\.)?" + m[1] + "[`.]").MatchString(text) {
			t.Errorf("SPEC.md §8.1 does not list %s", m[1])
		}
	}
	if len(keys) != 12 {
		t.Errorf("%d keys are written", len(keys))
	}
	for _, n := range []int64{plugin.DefaultProduceWait.Milliseconds(), plugin.DefaultMaxFrameBytes, plugin.DefaultMaxMemoryBytes} {
		if !strings.Contains(text, fmt.Sprintf("| %d |", n)) {
			t.Errorf("SPEC.md §8.1 does not have the default %d", n)
		}
	}
	if !strings.Contains(text, "`"+plugin.KeyVariable+"`") {
		t.Error("SPEC.md §8.1 does not name the environment variable")
	}
}
