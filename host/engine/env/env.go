// Package env gives e2ee.wasm the functions that it imports for hosts that are proxies
// (SPEC.md §8.3), where the host is none: each answers that it does not exist, unless a Function stands in its
// place.
package env

import (
	"context"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/wasm-e2ee/wasm-e2ee/abi/plugin"
)

// A Function stands in the place of one that does not exist.
type Function struct {
	Name string
	Do   api.GoModuleFunc
}

// Instantiate adds the functions to a runtime, for all modules that are instantiated in it
// afterwards.
func Instantiate(ctx context.Context, rt wazero.Runtime, own ...Function) error {
	b := rt.NewHostModuleBuilder(plugin.ImportModule)
	for _, f := range plugin.Imports() {
		do := api.GoModuleFunc(unimplemented)
		for _, o := range own {
			if o.Name == f.Name {
				do = o.Do
			}
		}
		b.NewFunctionBuilder().
			WithGoModuleFunction(do, Params(f), []api.ValueType{api.ValueTypeI32}).
			Export(f.Name)
	}
	_, err := b.Instantiate(ctx)
	return err
}

// Params returns the types of a function's parameters.
func Params(f plugin.Import) []api.ValueType {
	params := make([]api.ValueType, 0, len(f.Params))
	for _, p := range f.Params {
		if p == 'I' {
			params = append(params, api.ValueTypeI64)
		} else {
			params = append(params, api.ValueTypeI32)
		}
	}
	return params
}

func unimplemented(_ context.Context, _ api.Module, stack []uint64) {
	stack[0] = plugin.StatusUnimplemented
}
