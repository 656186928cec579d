package envoy

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/wasm-e2ee/wasm-e2ee/tests/artifact"
)

// buildModules builds the module that copies, and e2ee.wasm as the Go compiler leaves it: with
// x/crypto, which is what a kernel of our own is compared with.
func buildModules(dir string) (copying, plain string, err error) {
	copying, plain = filepath.Join(dir, "copy.wasm"), filepath.Join(dir, "xcrypto.wasm")
	for path, pkg := range map[string]string{copying: "./tests/bench/envoy/copy", plain: "./module"} {
		cmd := exec.Command("go", append(append([]string{}, artifact.Flags...), "-o", path, pkg)...)
		cmd.Dir = artifact.Root()
		cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOFLAGS=", "GOEXPERIMENT=")
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", "", fmt.Errorf("building %s: %w\n%s", pkg, err, out)
		}
	}
	return copying, plain, nil
}
