// Package examples_test runs what the documents show: configurations are read, commands are
// executed, and links lead somewhere.
package examples_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/wasm-e2ee/wasm-e2ee/host/config"
	"github.com/wasm-e2ee/wasm-e2ee/host/envoy"
	"github.com/wasm-e2ee/wasm-e2ee/tests/artifact"
)

var documents = []string{
	"../README.md",
	"../abi/PROTOCOL.md",
	"../abi/SPEC.md",
	"../abi/RATIONALE.md",
	"quickstart/README.md",
	"sidecar/README.md",
	"sidecar/OPERATING.md",
	"envoy/README.md",
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// blocks returns the fenced blocks of one language.
func blocks(text, language string) []string {
	var out []string
	for _, m := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```$").FindAllStringSubmatch(text, -1) {
		out = append(out, m[1])
	}
	return out
}

func TestConfigurationsInDocumentsAreAccepted(t *testing.T) {
	files := []string{"sidecar/producer.yaml", "sidecar/consumer.yaml", "envoy/agent.yaml"}
	for _, document := range documents {
		for _, block := range blocks(read(t, document), "yaml") {
			path := filepath.Join(t.TempDir(), "node.yaml")
			if err := os.WriteFile(path, []byte(block), 0o600); err != nil {
				t.Fatal(err)
			}
			files = append(files, path)
		}
	}
	if len(files) < 5 {
		t.Fatalf("found %d configurations, the documents have more", len(files))
	}
	for _, path := range files {
		if _, err := config.Read(path); err != nil {
			t.Error(err)
		}
	}
}

// keys lists the keys of a configuration, those of sections with the section's name.
func keys(section string, f reflect.Type) []string {
	var out []string
	for i := range f.NumField() {
		field := f.Field(i)
		name := section + field.Tag.Get("yaml")
		if strings.HasSuffix(name, ",inline") {
			out = append(out, keys(section, field.Type)...)
		} else if field.Type.Kind() == reflect.Struct && field.Type != reflect.TypeFor[time.Time]() {
			out = append(out, keys(name+".", field.Type)...)
		} else {
			out = append(out, name)
		}
	}
	return out
}

func TestEveryConfigurationKeyIsListed(t *testing.T) {
	table := read(t, "sidecar/README.md")
	want := keys("", reflect.TypeFor[config.File]())
	for _, key := range want {
		if !strings.Contains(table, "`"+key+"`") {
			t.Errorf("sidecar/README.md does not list %s", key)
		}
	}
	rows := regexp.MustCompile("(?m)^\\| (`[^|]+`) \\|").FindAllStringSubmatch(table, -1)
	listed := 0
	for _, row := range rows {
		listed += strings.Count(row[1], "`") / 2
	}
	if listed != len(want) {
		t.Errorf("sidecar/README.md lists %d keys, the configuration has %d", listed, len(want))
	}
}

// TestEnrolmentInDocumentsRuns executes the commands of each document in one folder, on a
// cluster of their own. An issuer that the document starts runs beside them.
func TestEnrolmentInDocumentsRuns(t *testing.T) {
	bin := t.TempDir()
	build := exec.Command("go", "build", "-o", filepath.Join(bin, "wasm-e2ee"), "../host/cmd/wasm-e2ee")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	if _, err := artifact.Build(filepath.Join(bin, "e2ee.wasm")); err != nil {
		t.Fatal(err)
	}
	for document, states := range map[string]int{"../README.md": 0, "quickstart/README.md": 3, "envoy/README.md": 1} {
		cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
		if err != nil {
			t.Fatal(err)
		}
		defer cluster.Close()
		dir := t.TempDir()
		shell := func(script string) *exec.Cmd {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			t.Cleanup(cancel)
			run := exec.CommandContext(ctx, "sh", "-eu", "-c", strings.ReplaceAll(script, "localhost:9092", cluster.ListenAddrs()[0]))
			run.WaitDelay = time.Second
			run.Dir = dir
			run.Env = append(os.Environ(), "PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"))
			return run
		}
		text := read(t, document)
		issuer := regexp.MustCompile(`(?m)^wasm-e2ee issuer .*localhost.*$`).FindString(text)
		scripts := blocks(text, "sh")
		if len(scripts) == 0 {
			t.Errorf("%s has no commands", document)
		}
		for i, script := range scripts {
			if out, err := shell(script).CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s%s", document, err, script, out)
			}
			if i == 0 && issuer != "" {
				run := shell("exec " + issuer)
				if err := run.Start(); err != nil {
					t.Fatal(err)
				}
				defer func() { run.Process.Kill(); run.Wait() }()
			}
		}
		if document == "envoy/README.md" {
			checkEnvoy(t, filepath.Join(dir, "envoy.yaml"))
		}
		if made, _ := filepath.Glob(filepath.Join(dir, "*.state")); len(made) != states {
			t.Errorf("%s enrols %v, want %d nodes", document, made, states)
		}
	}
}

// checkEnvoy is for the configuration that a document's commands wrote.
func checkEnvoy(t *testing.T, path string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err == nil {
		err = envoy.Check(text)
	}
	if err != nil {
		t.Error(err)
	}
}

// anchor is how a heading is addressed.
func anchor(heading string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(strings.TrimSpace(heading)) {
		switch {
		case unicode.IsLetter(r), unicode.IsDigit(r), r == '_', r == '-':
			b.WriteRune(r)
		case r == ' ':
			b.WriteByte('-')
		}
	}
	return b.String()
}

func TestLinksInDocumentsLeadSomewhere(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#\s]*)(?:#([^)\s]+))?\)`)
	heading := regexp.MustCompile(`(?m)^#+ (.+)$`)
	for _, document := range documents {
		for _, m := range link.FindAllStringSubmatch(read(t, document), -1) {
			target := document
			if m[1] != "" {
				target = filepath.Join(filepath.Dir(document), m[1])
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s links to %s: %v", document, m[1], err)
				continue
			}
			found := m[2] == ""
			if !found {
				for _, h := range heading.FindAllStringSubmatch(read(t, target), -1) {
					found = found || anchor(h[1]) == m[2]
				}
			}
			if !found {
				t.Errorf("%s links to #%s, which %s does not have", document, m[2], target)
			}
		}
	}
}
