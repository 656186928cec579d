// Package artifact builds e2ee.wasm for tests, with the flags of the Makefile, so that no
// test runs against a stale file or is skipped for the lack of one.
package artifact

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/wasm-e2ee/wasm-e2ee/module/kernel/splice"
)

// Flags are the build flags of the released artifact before the kernel is put in; the
// Makefile has the same.
var Flags = append(slices.Clone(portable), "-tags=simd")

var portable = []string{"build", "-buildmode=c-shared", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid="}

// Module returns the bytes of e2ee.wasm as built from this tree.
func Module(tb testing.TB) []byte {
	tb.Helper()
	module, err := build()
	if err != nil {
		tb.Fatalf("building e2ee.wasm: %v", err)
	}
	return module
}

var build = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "e2ee-artifact-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	return Build(filepath.Join(dir, "e2ee.wasm"))
})

// OverlayEnv names a file for the compiler's -overlay: a test that runs with it builds its
// e2ee.wasm from the edited tree too.
const OverlayEnv = "E2EE_OVERLAY"

// Build writes e2ee.wasm to path and returns its bytes; extra flags go before the package.
// An error carries the compiler's output.
func Build(path string, extra ...string) ([]byte, error) {
	linked, err := link(path, append(slices.Clone(Flags), extra...))
	if err != nil {
		return nil, err
	}
	module, err := splice.Splice(linked)
	if err != nil {
		return nil, err
	}
	return module, os.WriteFile(path, module, 0o644)
}

// BuildPortable is Build of the module whose kernel is Go, for hosts without SIMD. What is
// edited in that kernel shows in this build alone.
func BuildPortable(path string, extra ...string) ([]byte, error) {
	return link(path, append(slices.Clone(portable), extra...))
}

func link(path string, args []string) ([]byte, error) {
	args = append(args, "-o", path, "./module")
	if overlay := os.Getenv(OverlayEnv); overlay != "" {
		args = append([]string{"build", "-overlay=" + overlay}, args[1:]...)
	}
	cmd := exec.Command("go", args...)
	cmd.Dir = Root()
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOFLAGS=", "GOEXPERIMENT=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, &buildError{err, out}
	}
	return os.ReadFile(path)
}

// Root is the top of the source tree.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..")
}

type buildError struct {
	err    error
	output []byte
}

func (e *buildError) Error() string { return e.err.Error() + "\n" + string(e.output) }
func (e *buildError) Unwrap() error { return e.err }
