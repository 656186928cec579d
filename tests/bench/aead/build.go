package aead

import (
	"fmt"
	"os"
	"os/exec"

	"github.com/wasm-e2ee/wasm-e2ee/module/kernel/splice"
	"github.com/wasm-e2ee/wasm-e2ee/tests/artifact"
)

// buildGuest builds the guest as e2ee.wasm is built, so that it has the same kernel.
func buildGuest(path string) error {
	args := append(append([]string{}, artifact.Flags...), "-o", path, "./tests/bench/aead/guest")
	cmd := exec.Command("go", args...)
	cmd.Dir = artifact.Root()
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOFLAGS=", "GOEXPERIMENT=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building the guest: %w\n%s", err, out)
	}
	linked, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	guest, err := splice.Splice(linked)
	if err != nil {
		return fmt.Errorf("the guest: %w", err)
	}
	return os.WriteFile(path, guest, 0o644)
}
