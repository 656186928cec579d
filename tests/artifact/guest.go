package artifact

import (
	"bytes"
	"crypto/rand"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/wasm-e2ee/wasm-e2ee/host/engine/env"
	"github.com/wasm-e2ee/wasm-e2ee/module/kernel/splice"
)

// Test runs those tests of a package of this tree that match the pattern run, built for
// wasip1 with the kernel of the artifact, in wazero, and returns what they print. A test that
// fails there fails tb.
func Test(tb testing.TB, pkg, run string) []byte {
	tb.Helper()
	file := filepath.Join(tb.TempDir(), "test.wasm")
	build := exec.Command("go", "test", "-c", "-tags=simd", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", file, pkg)
	build.Dir = Root()
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOFLAGS=", "GOEXPERIMENT=")
	if out, err := build.CombinedOutput(); err != nil {
		tb.Fatalf("building the tests of %s: %v\n%s", pkg, err, out)
	}
	binary, err := os.ReadFile(file)
	if err != nil {
		tb.Fatal(err)
	}
	if spliced, err := splice.Splice(binary); err == nil {
		binary = spliced
	} else if !errors.Is(err, splice.ErrNoKernel) {
		tb.Fatal(err)
	}
	rt := wazero.NewRuntimeWithConfig(tb.Context(), wazero.NewRuntimeConfig().WithCloseOnContextDone(true))
	defer rt.Close(tb.Context())
	wasi_snapshot_preview1.MustInstantiate(tb.Context(), rt)
	if err := env.Instantiate(tb.Context(), rt); err != nil {
		tb.Fatal(err)
	}
	var out bytes.Buffer
	config := wazero.NewModuleConfig().WithStdout(&out).WithStderr(&out).
		WithRandSource(rand.Reader).WithSysWalltime().WithSysNanotime().
		WithArgs("test", "-test.v", "-test.run="+run)
	// A module that ends with status 0 gives no error.
	if _, err := rt.InstantiateWithConfig(tb.Context(), binary, config); err != nil {
		tb.Fatalf("%v\n%s", err, &out)
	}
	return out.Bytes()
}
