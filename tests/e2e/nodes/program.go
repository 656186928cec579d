// Package nodes runs the product's own programs for end-to-end tests: it builds wasm-e2ee and
// e2ee.wasm from this tree, makes realms, enrols nodes, and starts their sidecars and agents.
// Everything that these tests know about the program's command line, configuration and log is
// in this package.
package nodes

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/host/process"
	"github.com/wasm-e2ee/wasm-e2ee/tests/artifact"
)

var top = sync.OnceValues(func() (string, error) { return os.MkdirTemp("", "wasm-e2ee-e2e-") })

// Scratch is a folder that lasts as long as the whole run, until Clean.
func Scratch(name string) string {
	dir, err := top()
	if err == nil {
		dir = filepath.Join(dir, name)
		err = os.MkdirAll(dir, 0o755)
	}
	if err != nil {
		panic(err) // there is no temporary folder to work in
	}
	return dir
}

// Clean removes every scratch folder. It is TestMain's, at the end.
func Clean() {
	if dir, err := top(); err == nil {
		os.RemoveAll(dir)
	}
}

// Program builds wasm-e2ee and e2ee.wasm beside it, once, and returns the program's path.
func Program(t testing.TB) string {
	t.Helper()
	path, err := buildProgram()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// Module is the path of the e2ee.wasm that the program's sidecars load.
func Module(t testing.TB) string {
	t.Helper()
	return filepath.Join(filepath.Dir(Program(t)), "e2ee.wasm")
}

var buildProgram = sync.OnceValues(func() (string, error) {
	dir := Scratch("bin")
	path := filepath.Join(dir, "wasm-e2ee")
	if _, err := artifact.Build(filepath.Join(dir, "e2ee.wasm")); err != nil {
		return "", err
	}
	build := exec.Command("go", "build", "-o", path, "./host/cmd/wasm-e2ee")
	build.Dir = artifact.Root()
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build ./host/cmd/wasm-e2ee: %w\n%s", err, out)
	}
	return path, nil
})

// Run runs the program to its end, within a minute, and returns what it printed and its exit
// code.
func Run(t testing.TB, args ...string) (string, int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := process.Run(ctx, process.Spec{Name: "wasm-e2ee " + args[0], Args: append([]string{Program(t)}, args...)})
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return out, exit.ExitCode()
	case err != nil:
		t.Fatal(err)
	}
	return out, 0
}

// MustRun is Run for what has to succeed.
func MustRun(t testing.TB, args ...string) string {
	t.Helper()
	out, code := Run(t, args...)
	if code != 0 {
		t.Fatalf("wasm-e2ee %s: exit code %d\n%s", strings.Join(args, " "), code, out)
	}
	return out
}

// Poll waits until a condition holds, and fails the test when it does not in time.
func Poll(t testing.TB, limit time.Duration, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("after %v: not yet: %s", limit, what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
