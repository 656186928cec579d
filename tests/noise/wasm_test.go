//go:build !wasip1

package noise

import (
	"bytes"
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/wasm-e2ee/wasm-e2ee/tests/artifact"
)

// TestPublishedVectorsInWebAssembly runs this package's vectors built for wasip1, in wazero.
func TestPublishedVectorsInWebAssembly(t *testing.T) {
	file := filepath.Join(t.TempDir(), "noise.wasm")
	build := exec.Command("go", "test", "-c", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", file, "./tests/noise")
	build.Dir = artifact.Root()
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOFLAGS=", "GOEXPERIMENT=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building this package's tests: %v\n%s", err, out)
	}
	binary, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	rt := wazero.NewRuntimeWithConfig(t.Context(), wazero.NewRuntimeConfig().WithCloseOnContextDone(true))
	defer rt.Close(t.Context())
	wasi_snapshot_preview1.MustInstantiate(t.Context(), rt)
	var out bytes.Buffer
	config := wazero.NewModuleConfig().WithStdout(&out).WithStderr(&out).
		WithRandSource(rand.Reader).WithSysWalltime().WithSysNanotime().
		WithArgs("noise.test", "-test.v", "-test.run=TestPublishedVectors")
	// A module that ends with status 0 gives no error.
	if _, err := rt.InstantiateWithConfig(t.Context(), binary, config); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	for name := range patterns {
		if !bytes.Contains(out.Bytes(), []byte("--- PASS: TestPublishedVectors/"+name)) {
			t.Errorf("%s did not run:\n%s", name, &out)
		}
	}
}
