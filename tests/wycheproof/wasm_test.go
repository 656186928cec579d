package wycheproof

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

// TestTheModulesAEADInWebAssembly runs the tests of module/kernel, its Wycheproof vectors
// among them, as the code that the module is made of: built for wasip1, in wazero.
func TestTheModulesAEADInWebAssembly(t *testing.T) {
	file := filepath.Join(t.TempDir(), "kernel.wasm")
	build := exec.Command("go", "test", "-c", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", file, "./module/kernel")
	build.Dir = artifact.Root()
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOFLAGS=", "GOEXPERIMENT=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building module/kernel's tests: %v\n%s", err, out)
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
		WithArgs("kernel.test", "-test.v", "-test.run=Wycheproof|Tampered")
	// A module that ends with status 0 gives no error.
	if _, err := rt.InstantiateWithConfig(t.Context(), binary, config); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	if !bytes.Contains(out.Bytes(), []byte("--- PASS: TestWycheproofOfXChaCha20Poly1305")) {
		t.Errorf("the vectors did not run:\n%s", &out)
	}
	t.Logf("%s", &out)
}
