package main

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wasm-e2ee/wasm-e2ee/module/kernel/splice"
	"github.com/wasm-e2ee/wasm-e2ee/tests/artifact"
)

// TestTheArtifactIsTheSameFromAnyFolder builds the module from a copy of its sources in
// another folder, with a build cache of its own, so that nothing of the first build is
// taken over.
func TestTheArtifactIsTheSameFromAnyFolder(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the standard library for WebAssembly once more")
	}
	here := artifact.Module(t)
	copied := filepath.Join(t.TempDir(), "a folder with another name")
	for _, name := range []string{"go.mod", "go.sum", "abi", "module"} {
		copyTree(t, filepath.Join(artifact.Root(), name), filepath.Join(copied, name))
	}
	out := filepath.Join(copied, "e2ee.wasm")
	cmd := exec.Command("go", append(append([]string{}, artifact.Flags...), "-o", out, "./module")...)
	cmd.Dir = copied
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOFLAGS=", "GOWORK=off", "GOEXPERIMENT=", "GOCACHE="+t.TempDir())
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	linked, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	there, err := splice.Splice(linked)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(here, there) {
		t.Errorf("%d bytes here, %d bytes from the copy, and they differ", len(here), len(there))
	}
}

// copyTree copies a file, or the Go files of a folder that are not tests.
func copyTree(t *testing.T, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || path != from && (!strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go")) {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		if err := os.MkdirAll(filepath.Dir(target), 0o700); err != nil {
			return err
		}
		return os.WriteFile(target, b, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
}
