// Package conformance proves a module: it loads any e2ee.wasm and holds it against
// abi/SPEC.md through the ABI alone, as a host would. It runs the corpus of package
// vectors, compares with package reference what the module seals, tampers with it, and
// misuses the ABI. It does all of that twice: on a host with a native back end (SPEC.md §10)
// and on one without.
//
// It is an ordinary package: tests and `wasm-e2ee test` call Run.
package conformance

import (
	"context"
	"errors"
	"fmt"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/wasm-e2ee/wasm-e2ee/host/engine/env"
	"github.com/wasm-e2ee/wasm-e2ee/host/engine/foreign"
)

// ErrFailed is what Run's error wraps when the module fails a check.
var ErrFailed = errors.New("module does not conform")

// A check is one claim about a module.
type check struct {
	name string
	run  func(ctx context.Context, m *module) error
}

// Run compiles a module, whose bytes these are, and runs every check. It calls report with
// each check's name as it ends, and its error, nil where the module passed. The error that
// Run returns wraps ErrFailed where a check failed. A module with foreign exports or
// imports, or of another ABI version, is not run any further.
func Run(ctx context.Context, wasm []byte, report func(name string, err error)) error {
	all, err := vectorChecks()
	if err != nil {
		return err
	}
	return run(ctx, wasm, append(all, checks...), report)
}

func run(ctx context.Context, wasm []byte, checks []check, report func(name string, err error)) error {
	cache := wazero.NewCompilationCache()
	defer cache.Close(ctx)
	config := wazero.NewRuntimeConfig().WithCloseOnContextDone(true).WithMemoryLimitPages(memoryLimit).WithCompilationCache(cache)
	return errors.Join(
		runOn(ctx, wazero.NewRuntimeWithConfig(ctx, config), wasm, checks, report),
		runOn(ctx, wazero.NewRuntimeWithConfig(ctx, config), wasm, checks,
			func(name string, err error) { report(name+", on the native back end", err) },
			env.Function{Name: foreign.Import, Do: foreign.Call}))
}

// runOn runs the checks on a host that answers proxy_call_foreign_function with native, or that
// lacks it.
func runOn(ctx context.Context, rt wazero.Runtime, wasm []byte, checks []check, report func(name string, err error), native ...env.Function) error {
	defer rt.Close(ctx)
	if _, err := wasi_snapshot_preview1.Instantiate(ctx, rt); err != nil {
		return err
	}
	if err := env.Instantiate(ctx, rt, native...); err != nil {
		return err
	}
	compiled, err := rt.CompileModule(ctx, wasm)
	if err != nil {
		return fmt.Errorf("%w: not WebAssembly that compiles: %w", ErrFailed, err)
	}
	m := &module{runtime: rt, compiled: compiled}
	for _, c := range gates {
		err := c.run(ctx, m)
		report(c.name, err)
		if err != nil {
			return fmt.Errorf("%w: %s: %w", ErrFailed, c.name, err)
		}
	}
	failed := 0
	for _, c := range checks {
		err := c.run(ctx, m)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		report(c.name, err)
		if err != nil {
			failed++
		}
	}
	if failed > 0 {
		return fmt.Errorf("%w: %d of %d checks failed", ErrFailed, failed, len(checks)+len(gates))
	}
	return nil
}

// gates are looked at before anything of the module runs for long.
var gates = []check{
	{"exports have the signatures of SPEC.md §3", exportsMatch},
	{"imports are on the list of SPEC.md §7", importsMatch},
	{"ABI version is known", versionIsKnown},
}

var checks = []check{
	{"a deterministic random source is refused", weakRandomRefused},
	{"nothing works before configuring", unconfiguredRefused},
	{"bad configurations are refused", badConfigRefused},
	{"what is sealed is the packed format", sealedIsPacked},
	{"leaves come in order and once", leavesInOrder},
	{"salts differ", saltsDiffer},
	{"two instances seal differently", instancesDiffer},
	{"every flipped byte is refused", flippedBytesRefused},
	{"every flipped byte under a right checksum is refused", flippedUnderChecksum},
	{"every length cut is refused", cutsRefused},
	{"every length cut under a right checksum is refused", cutsUnderChecksum},
	{"another partition or topic is refused", elsewhereRefused},
	{"librdkafka's default batch stays under the broker's limit", defaultBatchFits},
	{"a small buffer is not written beyond", smallBufferAsks},
	{"a bomb does not grow memory", bombsBounded},
	{"bad pointers are refused", badPointersRefused},
	{"bad blocks are refused", badBlocksRefused},
	{"freed memory is wiped and used again", freedIsWiped},
	{"a steady state does not grow memory", steadyState},
	{"an expired lease seals nothing", expiredLeaseRefused},
	{"erased keys seal and open nothing", erasedKeysGone},
	{"erased keys are not in memory", erasedNotInMemory},
	{"counters count", countersCount},
}
