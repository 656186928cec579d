package envoy

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/host/demo"
	"github.com/wasm-e2ee/wasm-e2ee/tests/artifact"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/deps"
)

// The demo with Envoys at both ends, whose embedded broker is all that it needs beside them.
func TestEverythingThatTheDemoShowsHoldsInEnvoy(t *testing.T) {
	part := deps.Envoy(current)
	deps.Need(t, part)
	wasm := filepath.Join(t.TempDir(), "e2ee.wasm")
	if err := os.WriteFile(wasm, artifact.Module(t), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", t.TempDir())
	var out bytes.Buffer
	begin := time.Now()
	if err := demo.Run(t.Context(), demo.Options{Duration: 12 * time.Second, Module: wasm, Envoy: filepath.Join(deps.Dir(part), "envoy"), Out: &out}); err != nil {
		t.Errorf("%v\n%s", err, &out)
	}
	t.Logf("took %v", time.Since(begin).Round(time.Second))
	for _, want := range []string{"stored in the clear              0 of", `wasm_e2ee_partitions_total{direction="seal"}`, "all of it held"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("not printed: %q\n%s", want, &out)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(os.TempDir(), "*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
