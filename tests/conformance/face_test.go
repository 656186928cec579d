package conformance

import (
	"crypto/rand"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/wasm-e2ee/wasm-e2ee/host/engine/env"
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

// TestAHostThatIsNoProxyMayCallTheCallbacks wants them to refuse, rather than to trap or to let
// anything pass.
func TestAHostThatIsNoProxyMayCallTheCallbacks(t *testing.T) {
	rt := wazero.NewRuntimeWithConfig(t.Context(), wazero.NewRuntimeConfigInterpreter())
	defer rt.Close(t.Context())
	wasi_snapshot_preview1.MustInstantiate(t.Context(), rt)
	if err := env.Instantiate(t.Context(), rt); err != nil {
		t.Fatal(err)
	}
	config := wazero.NewModuleConfig().WithStartFunctions("_initialize").WithRandSource(rand.Reader).WithSysWalltime().WithSysNanotime()
	module, err := rt.InstantiateWithConfig(t.Context(), artifact.Module(t), config)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		args []uint64
		want uint32 // of what it returns, if it does
	}{
		{"proxy_on_context_create", []uint64{1, 0}, 0},
		{"proxy_on_vm_start", []uint64{1, 0}, 1},
		{"proxy_on_configure", []uint64{1, 0}, 0}, // refused
		{"proxy_on_context_create", []uint64{2, 1}, 0},
		{"proxy_on_new_connection", []uint64{2}, 1}, // paused
		{"proxy_on_downstream_data", []uint64{2, 10, 0}, 1},
		{"proxy_on_upstream_data", []uint64{2, 10, 0}, 1},
		{"proxy_on_downstream_data", []uint64{7, 10, 1}, 1}, // of no context
		{"proxy_on_tick", []uint64{1}, 0},
		{"proxy_on_http_call_response", []uint64{1, 0, 0, 0, 0}, 0},
		{"proxy_on_downstream_connection_close", []uint64{2, 0}, 0},
		{"proxy_on_done", []uint64{2}, 1},
		{"proxy_on_log", []uint64{2}, 0},
		{"proxy_on_delete", []uint64{2}, 0},
		{"proxy_on_delete", []uint64{1}, 0},
	} {
		got, err := module.ExportedFunction(c.name).Call(t.Context(), c.args...)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if len(got) == 1 && uint32(got[0]) != c.want {
			t.Errorf("%s%v is %d, want %d", c.name, c.args, uint32(got[0]), c.want)
		}
	}
}

func names(types []api.ValueType) string {
	out := make([]string, len(types))
	for i, v := range types {
		out[i] = api.ValueTypeName(v)
	}
	return strings.Join(out, " ")
}
