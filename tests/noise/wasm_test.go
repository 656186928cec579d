//go:build !wasip1

package noise

import (
	"bytes"
	"testing"

	"github.com/wasm-e2ee/wasm-e2ee/tests/artifact"
)

// TestPublishedVectorsInWebAssembly runs this package's vectors built for wasip1, in wazero.
func TestPublishedVectorsInWebAssembly(t *testing.T) {
	out := artifact.Test(t, "./tests/noise", "TestPublishedVectors")
	for name := range patterns {
		if !bytes.Contains(out, []byte("--- PASS: TestPublishedVectors/"+name)) {
			t.Errorf("%s did not run:\n%s", name, out)
		}
	}
}
