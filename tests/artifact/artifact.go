// Package artifact builds e2ee.wasm for tests, with the flags of the Makefile, so that no
// test runs against a stale file or is skipped for the lack of one.
package artifact

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
)

// Flags are the build flags of the released artifact; the Makefile has the same.
var Flags = []string{"build", "-buildmode=c-shared", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid="}

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
	args := append(append(append([]string{}, Flags...), extra...), "-o", path, "./module")
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
