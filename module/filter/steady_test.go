//go:build !(wasip1 && simd)

package filter

import (
	"testing"

	"github.com/wasm-e2ee/wasm-e2ee/tests/artifact"
)

// aeadAllocations is what the AEAD outside of the artifact allocates: x/crypto makes an object
// for each AEAD and each message, three times two, and opening in place natively keeps the
// ciphertext.
const aeadAllocations = 7

// TestSteadyStateOfTheModuleAllocatesNothing runs the same test inside WebAssembly.
func TestSteadyStateOfTheModuleAllocatesNothing(t *testing.T) {
	t.Logf("%s", artifact.Test(t, "./module/filter", "TestSteadyStateAllocatesForTheAEADAlone"))
}
