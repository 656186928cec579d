package envoy

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/wasm-e2ee/wasm-e2ee/tests/artifact"
)

// buildModules builds the module that copies, and e2ee.wasm for hosts without SIMD: its kernel
// is x/crypto, which is what a kernel of our own is compared with.
func buildModules(dir string) (copying, portable string, err error) {
	copying, portable = filepath.Join(dir, "copy.wasm"), filepath.Join(dir, "portable.wasm")
	if _, err := artifact.BuildPortable(portable); err != nil {
		return "", "", err
	}
	cmd := exec.Command("go", append(append([]string{}, artifact.Flags...), "-o", copying, "./tests/bench/envoy/copy")...)
	cmd.Dir = artifact.Root()
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOFLAGS=", "GOEXPERIMENT=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", "", fmt.Errorf("building the module that copies: %w\n%s", err, out)
	}
	return copying, portable, nil
}
