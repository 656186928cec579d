package conformance

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/wasm-e2ee/wasm-e2ee/tests/artifact"
)

// TestTheArtifactExportsWhatTheSpecificationSays reads SPEC.md's signatures, those of both
// faces: a proxy calls what it finds by name alone.
func TestTheArtifactExportsWhatTheSpecificationSays(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(artifact.Root(), "abi", "SPEC.md"))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"_initialize": " -> "}
	types := regexp.MustCompile(`i32|i64`)
	for _, piece := range strings.Split(string(text), `(func (export "`)[1:] {
		name, rest, _ := strings.Cut(piece, `"`)
		rest, _, _ = strings.Cut(rest, "```")
		params, result, _ := strings.Cut(regexp.MustCompile(`;;.*`).ReplaceAllString(rest, ""), "(result")
		want[name] = strings.Join(types.FindAllString(params, -1), " ") + " -> " + strings.Join(types.FindAllString(result, -1), " ")
	}
	rt := wazero.NewRuntimeWithConfig(t.Context(), wazero.NewRuntimeConfigInterpreter())
	defer rt.Close(t.Context())
	module, err := rt.CompileModule(t.Context(), artifact.Module(t))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for name, f := range module.ExportedFunctions() {
		got[name] = names(f.ParamTypes()) + " -> " + names(f.ResultTypes())
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if got[name] != want[name] {
			t.Errorf("%s is %q, the specification has %q", name, got[name], want[name])
		}
		delete(got, name)
	}
	if len(got) > 0 || len(want) < 25 {
		t.Errorf("%d functions are specified; these are not: %v", len(want), got)
	}
}

func names(types []api.ValueType) string {
	out := make([]string, len(types))
	for i, v := range types {
		out[i] = api.ValueTypeName(v)
	}
	return strings.Join(out, " ")
}
