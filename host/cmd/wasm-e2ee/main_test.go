package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wasm-e2ee/wasm-e2ee/tests/artifact"
)

var folder string // with wasm-e2ee and e2ee.wasm, as make build leaves them

func TestMain(m *testing.M) { os.Exit(build(m)) }

func build(m *testing.M) int {
	dir, err := os.MkdirTemp("", "wasm-e2ee-cmd-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	folder = dir
	if out, err := exec.Command("go", "build", "-o", filepath.Join(dir, "wasm-e2ee"), ".").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%v\n%s", err, out)
		return 1
	}
	if _, err := artifact.Build(filepath.Join(dir, "e2ee.wasm")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

func command(t *testing.T, dir string, args ...string) *exec.Cmd {
	c := exec.CommandContext(t.Context(), filepath.Join(folder, "wasm-e2ee"), args...)
	c.Dir = dir
	c.Env = append(os.Environ(), "TMPDIR="+dir)
	return c
}

// invoke returns the exit code, standard output and standard error.
func invoke(t *testing.T, dir string, args ...string) (int, string, string) {
	t.Helper()
	c := command(t, dir, args...)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return c.ProcessState.ExitCode(), out.String(), errs.String()
}

// must runs commands that succeed without a word on standard error.
func must(t *testing.T, dir string, lines ...string) string {
	t.Helper()
	var all string
	for _, line := range lines {
		code, out, errs := invoke(t, dir, strings.Fields(line)...)
		if code != 0 || errs != "" {
			t.Fatalf("wasm-e2ee %s: exit %d\n%s%s", line, code, out, errs)
		}
		all += out
	}
	return all
}

// enrolled are the steps that the README shows for one node.
var enrolled = []string{
	"enroll --state node.state --csr node.csr --consume orders --group billing",
	"realm issue --dir realm --csr node.csr --out node.cred",
	"enroll --state node.state --credential node.cred",
}

func TestAMistakeEndsWithItsCodeAndAHint(t *testing.T) {
	dir := t.TempDir()
	must(t, dir, append([]string{"realm init --dir realm"}, enrolled...)...)
	for name, text := range map[string]string{
		"key.yaml":  "bootsrap: [127.0.0.1:1]\n",
		"time.yaml": "bootstrap: [127.0.0.1:1]\nstate: node.state\nproduce_wait: 8\n",
		"none.yaml": "bootstrap: [127.0.0.1:1]\nstate: missing.state\n",
		"down.yaml": "bootstrap: [127.0.0.1:1]\nstate: node.state\nlisten: 127.0.0.1:0\n",
		"text":      "neither of ours\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for line, want := range map[string]struct {
		code int
		text string
	}{
		"":                                            {exitUsage, ""},
		"encrypt":                                     {exitUsage, "unexpected argument encrypt"},
		"proxy":                                       {exitUsage, "hint: wasm-e2ee proxy --help"},
		"realm issue --hours 3":                       {exitUsage, "hint: wasm-e2ee realm issue --help"},
		"demo --duration long":                        {exitUsage, "--duration"},
		"demo --duration 1s":                          {exitFailed, "hint: at least 12s"},
		"demo --bootstrap 127.0.0.1:1":                {exitFailed, "hint: is it up"},
		"proxy --config missing.yaml":                 {exitFailed, "hint: examples/sidecar"},
		"proxy --config key.yaml":                     {exitFailed, `unknown field "bootsrap"`},
		"proxy --config time.yaml":                    {exitFailed, `"8" is not a duration`},
		"proxy --config none.yaml":                    {exitFailed, "hint: create it with"},
		"proxy --config down.yaml":                    {exitFailed, "kafka brokers [127.0.0.1:1] cannot be reached"},
		"exposure":                                    {exitFailed, "hint: --state FILE"},
		"exposure --state text":                       {exitFailed, "hint: name the file that"},
		"exposure --state s --grants":                 {exitFailed, "hint: --config FILE"},
		"exposure --state no.state":                   {exitFailed, "no.state"},
		"exposure --as-of tomorrow":                   {exitUsage, "hint: wasm-e2ee exposure --help"},
		"inspect text":                                {exitFailed, "not recognised"},
		"test text":                                   {exitFailed, "not WebAssembly"},
		"test missing.wasm":                           {exitFailed, "missing.wasm"},
		"version --module missing.wasm":               {exitFailed, "missing.wasm"},
		"realm init --dir realm":                      {exitFailed, "hint: it is never overwritten"},
		"realm issue --dir no --csr node.csr --out c": {exitFailed, "hint: wasm-e2ee realm init"},
		"realm issue --dir realm --csr node.cred --out c":        {exitFailed, "hint: a request is what"},
		"enroll --state new.state --csr new.csr":                 {exitFailed, "hint: --produce TOPIC"},
		"enroll --state new.state --credential node.cred":        {exitFailed, "hint: first make a request"},
		"enroll --state node.state --csr node.state --produce a": {exitFailed, "exists and is something else"},
	} {
		code, _, errs := invoke(t, dir, strings.Fields(line)...)
		if code != want.code || !strings.Contains(errs, want.text) {
			t.Errorf("wasm-e2ee %s: exit %d, want %d and %q\n%s", line, code, want.code, want.text, errs)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "new*")); left != nil {
		t.Errorf("mistakes left %v", left)
	}
}

// TestRenewingIsTheSameCommandsAgain as the README says, with the files of the last time in
// place.
func TestRenewingIsTheSameCommandsAgain(t *testing.T) {
	dir := t.TempDir()
	must(t, dir, "realm init --dir realm")
	first := must(t, dir, enrolled...)
	again := must(t, dir, enrolled...)
	node, _, _ := strings.Cut(first, ":")
	if !strings.HasPrefix(again, node+":") {
		t.Errorf("first %s, then another node:\n%s", node, again)
	}
}

func TestAModuleThatDoesNotConformEndsWithOne(t *testing.T) {
	mutant := filepath.Join(t.TempDir(), "mutant.wasm")
	m := artifact.TagCheck
	if _, err := artifact.Mutant(mutant, m.File, m.Old, m.New); err != nil {
		t.Fatal(err)
	}
	code, out, errs := invoke(t, t.TempDir(), "test", mutant)
	if code != exitFailed || !strings.Contains(out, "FAIL  vector flipped-tag") || !strings.Contains(errs, "module does not conform") {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
}

func TestADemoThatIsInterruptedSaysSo(t *testing.T) {
	dir := t.TempDir()
	c := command(t, dir, "demo")
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var errs bytes.Buffer
	c.Stderr = &errs
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	for seen := ""; !strings.Contains(seen, "order 1:"); {
		b := make([]byte, 4096)
		n, err := out.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		seen += string(b[:n])
	}
	if err := c.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait()
	if code := c.ProcessState.ExitCode(); code != exitInterrupted || errs.String() != "wasm-e2ee: interrupted\n" {
		t.Errorf("exit %d: %s", code, &errs)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestADemoWhoseReaderGoesLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	c := command(t, dir, "demo")
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	out.Close()
	_ = c.Wait()
	if code := c.ProcessState.ExitCode(); code != exitFailed {
		t.Errorf("exit %d", code)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
