package conformance

import (
	"context"
	"fmt"
	"slices"

	"github.com/tetratelabs/wazero/api"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/plugin"
	"github.com/wasm-e2ee/wasm-e2ee/host/engine/env"
)

const (
	i32 = api.ValueTypeI32
	i64 = api.ValueTypeI64
)

var batchParams = []api.ValueType{i32, i32, i32, i32, i32, i32, i64, i32}

// signatures are the exports of SPEC.md §3.
var signatures = map[string]struct{ params, results []api.ValueType }{
	"_initialize":        {nil, nil},
	abi.FuncVersion:      {nil, []api.ValueType{i32}},
	abi.FuncAlloc:        {[]api.ValueType{i32}, []api.ValueType{i32}},
	abi.FuncFree:         {[]api.ValueType{i32}, nil},
	abi.FuncConfigure:    {[]api.ValueType{i32, i32}, []api.ValueType{i32}},
	abi.FuncInstallLease: {[]api.ValueType{i32, i32}, []api.ValueType{i32}},
	abi.FuncInstallRoot:  {[]api.ValueType{i32, i32}, []api.ValueType{i32}},
	abi.FuncErase:        {[]api.ValueType{i32, i32}, []api.ValueType{i32}},
	abi.FuncSealBatch:    {batchParams, []api.ValueType{i32}},
	abi.FuncOpenBatch:    {batchParams, []api.ValueType{i32}},
	abi.FuncCounters:     {[]api.ValueType{i32, i32}, []api.ValueType{i32}},
}

// imports are the functions of wasi_snapshot_preview1 that a module may import (SPEC.md §7),
// beside those of package plugin.
var imports = []string{
	"sched_yield", "proc_exit", "args_get", "args_sizes_get", "clock_time_get", "environ_get",
	"environ_sizes_get", "fd_write", "random_get", "poll_oneoff", "fd_close", "fd_read",
	"fd_fdstat_get", "fd_fdstat_set_flags", "fd_prestat_get", "fd_prestat_dir_name",
}

func exportsMatch(_ context.Context, m *module) error {
	exports := m.compiled.ExportedFunctions()
	for name, want := range signatures {
		f, ok := exports[name]
		if !ok {
			return fmt.Errorf("%s is not exported", name)
		}
		if !slices.Equal(f.ParamTypes(), want.params) || !slices.Equal(f.ResultTypes(), want.results) {
			return fmt.Errorf("%s takes %x and gives %x, want %x and %x", name, f.ParamTypes(), f.ResultTypes(), want.params, want.results)
		}
	}
	if _, ok := m.compiled.ExportedMemories()["memory"]; !ok {
		return fmt.Errorf("no memory is exported")
	}
	return nil
}

func importsMatch(_ context.Context, m *module) error {
	for _, f := range m.compiled.ImportedFunctions() {
		space, name, _ := f.Import()
		switch {
		case space == "wasi_snapshot_preview1" && slices.Contains(imports, name):
		case space == plugin.ImportModule && slices.ContainsFunc(plugin.Imports(), func(i plugin.Import) bool { return sameImport(f, i) }):
		default:
			return fmt.Errorf("%s.%s is imported; a host such as Envoy does not offer it, or not with this signature", space, name)
		}
	}
	if n := len(m.compiled.ImportedMemories()); n != 0 {
		return fmt.Errorf("%d memories are imported", n)
	}
	return nil
}

func sameImport(f api.FunctionDefinition, i plugin.Import) bool {
	_, name, _ := f.Import()
	return name == i.Name && slices.Equal(f.ParamTypes(), env.Params(i)) && slices.Equal(f.ResultTypes(), []api.ValueType{i32})
}

func versionIsKnown(ctx context.Context, m *module) error {
	in, err := m.start(ctx, hostConfig())
	if err != nil {
		return err
	}
	defer in.close(ctx)
	v, err := in.call(ctx, abi.FuncVersion)
	if err == nil && v != abi.Version {
		err = fmt.Errorf("version %d, want %d", v, abi.Version)
	}
	return err
}
