package wycheproof

import (
	"bytes"
	"testing"

	"github.com/wasm-e2ee/wasm-e2ee/tests/artifact"
)

// TestTheModulesAEADInWebAssembly runs the tests of module/kernel, its Wycheproof vectors
// among them, as the code that the module is made of: built for wasip1, in wazero.
func TestTheModulesAEADInWebAssembly(t *testing.T) {
	out := artifact.Test(t, "./module/kernel", "Wycheproof|Tampered|ReadyMade")
	if !bytes.Contains(out, []byte("--- PASS: TestWycheproofOfXChaCha20Poly1305")) {
		t.Errorf("the vectors did not run:\n%s", out)
	}
	t.Logf("%s", out)
}
