// Package structure holds the shape of the source tree: which room may import which.
package structure

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const modulePath = "github.com/wasm-e2ee/wasm-e2ee/"

// rooms lists, for each folder, the folders of this module that code in it may import. The
// longest matching folder counts; tests may import what they need.
var rooms = map[string][]string{
	"abi":    {"abi"},
	"module": {"abi", "module"},
	"host":   {"abi", "host"},

	"host/scrub":         {},
	"host/keyring":       {"abi", "module/ratchet", "host/scrub"},
	"host/engine":        {"abi", "host/scrub"},
	"host/agent":         {"abi", "host/keyring", "host/private", "host/scrub"},
	"host/private":       {},
	"host/process":       {},
	"host/issuer":        {"abi", "host/agent", "host/keyring", "host/private"},
	"host/lease":         {"abi", "host/private", "host/scrub"},
	"host/proxy":         {"abi"},
	"host/config":        {"abi", "host/keyring"},
	"host/envoy":         {"abi", "host/config", "host/keyring", "host/lease"},
	"host/exposure":      {"abi", "host/keyring"},
	"host/inspect":       {"abi", "host/keyring"},
	"host/metrics":       {"abi", "host/agent", "host/exposure", "host/lease", "host/proxy"},
	"host/demo":          {"abi", "host", "tests/adversary"},
	"host/cmd/wasm-e2ee": {"abi", "host", "tests/conformance"},

	"tests":    {"abi", "module", "host", "tests"},
	"examples": {"abi", "host"},
}

// standardOnly are the folders whose code imports nothing from outside Go's standard
// library and this module.
var standardOnly = []string{"abi"}

func TestImportsPointOneWay(t *testing.T) {
	seen := 0
	walk(t, func(file, folder string, imports []string) {
		allowed, ok := rooms[room(folder, rooms)]
		if !ok {
			t.Errorf("%s: folder %s has no rule", file, folder)
			return
		}
		for _, path := range imports {
			if local, ok := strings.CutPrefix(path, modulePath); ok {
				seen++
				if !slices.ContainsFunc(allowed, func(a string) bool { return under(local, a) }) && !under(local, folder) {
					t.Errorf("%s imports %s; %s may import %s", file, local, folder, strings.Join(allowed, ", "))
				}
			} else if slices.ContainsFunc(standardOnly, func(f string) bool { return under(folder, f) }) && strings.Contains(strings.Split(path, "/")[0], ".") {
				t.Errorf("%s imports %s; %s uses the standard library only", file, path, folder)
			}
		}
	})
	if seen == 0 {
		t.Fatal("no import was looked at")
	}
}

// TestProtocolCodeReadsNoClockAndNoNetwork holds PROTOCOL.md §2's rule that times are
// handed in, for the code that decides.
func TestProtocolCodeReadsNoClockAndNoNetwork(t *testing.T) {
	protocol := []string{"abi", "module", "host/keyring", "host/exposure"}
	seen := 0
	walk(t, func(file, folder string, imports []string) {
		// What puts the kernel into a linked module reads and writes files, and is no part of it.
		if !slices.ContainsFunc(protocol, func(f string) bool { return under(folder, f) }) || under(folder, "module/kernel/splice") {
			return
		}
		seen++
		for _, path := range imports {
			if path == "net" || strings.HasPrefix(path, "net/") || path == "os" || path == "os/exec" {
				t.Errorf("%s imports %s", file, path)
			}
		}
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, call := range []string{"time.Now(", "time.Since(", "time.Sleep(", "time.After("} {
			if strings.Contains(string(source), call) {
				t.Errorf("%s calls %s…)", file, call)
			}
		}
	})
	if seen == 0 {
		t.Fatal("no file was looked at")
	}
}

// walk calls f for each Go file that is not a test.
func walk(t *testing.T, f func(file, folder string, imports []string)) {
	top := filepath.Join("..", "..")
	for _, dir := range []string{"abi", "module", "host", "tests", "examples"} {
		err := filepath.WalkDir(filepath.Join(top, dir), func(file string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if d.IsDir() && (d.Name() == "testdata" || d.Name() == "node_modules") {
				return filepath.SkipDir
			}
			if !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
				return nil
			}
			parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
			if err != nil {
				return err
			}
			var imports []string
			for _, spec := range parsed.Imports {
				imports = append(imports, strings.Trim(spec.Path.Value, `"`))
			}
			folder, err := filepath.Rel(top, filepath.Dir(file))
			f(file, filepath.ToSlash(folder), imports)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func room(folder string, rooms map[string][]string) string {
	for f := folder; f != "."; f = filepath.ToSlash(filepath.Dir(f)) {
		if _, ok := rooms[f]; ok {
			return f
		}
	}
	return ""
}

func under(path, folder string) bool { return path == folder || strings.HasPrefix(path, folder+"/") }
