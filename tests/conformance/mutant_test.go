package conformance

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wasm-e2ee/wasm-e2ee/tests/artifact"
)

// mutants are modules with one protection taken out, by a check that must then fail.
var mutants = map[string]struct{ file, old, new, check string }{
	"no tag check": {
		artifact.TagCheck.File, artifact.TagCheck.Old, artifact.TagCheck.New,
		"vector flipped-tag",
	},
	"stubs not looked at": {
		"module/filter/open.go", "inPlace = inPlace && r.Value != nil && len(r.Value) == 0", "_ = r",
		"vector shape-stub-with-value",
	},
	"partition not bound": {
		"abi/wire/pctx.go", "uint32(partition))", "uint32(partition&0))",
		"another partition or topic is refused",
	},
	"one salt for all": {
		"module/filter/seal.go", "io.ReadFull(f.random, f.salt[:])", "io.ReadFull(f.random, f.salt[:0])",
		"salts differ",
	},
	"random source not tried": {
		"module/filter/filter.go", "if weakRandom(f.random) {", "if false {",
		"a deterministic random source is refused",
	},
	"roots not wiped": {
		"module/filter/keys.go", "clear(r.node[:])", "_ = r",
		"erased keys are not in memory",
	},
	"paths not wiped": {
		"module/filter/keys.go", "p.to.Wipe()", "_ = p",
		"erased keys are not in memory",
	},
	"freed buffers not wiped": {
		"module/memory_wasip1.go", "clear(b)", "_ = b",
		"freed memory is wiped and used again",
	},
}

// TestAModuleWithoutAProtectionIsRefused builds each mutant with an overlay, so that no such
// code is in the tree, and wants the check that is made for it to fail.
func TestAModuleWithoutAProtectionIsRefused(t *testing.T) {
	vectors, err := vectorChecks()
	if err != nil {
		t.Fatal(err)
	}
	for name, m := range mutants {
		t.Run(name, func(t *testing.T) {
			var made []check
			for _, c := range append(vectors, checks...) {
				if c.name == m.check {
					made = append(made, c)
				}
			}
			wasm, err := artifact.Mutant(filepath.Join(t.TempDir(), "mutant.wasm"), m.file, m.old, m.new)
			if err != nil {
				t.Fatal(err)
			}
			err = run(t.Context(), wasm, made, func(check string, err error) {
				if strings.HasPrefix(check, m.check) { // with or without the back end
					t.Logf("%s: %v", check, err)
				} else if err != nil {
					t.Errorf("%s: %v", check, err)
				}
			})
			if len(made) != 1 || !errors.Is(err, ErrFailed) {
				t.Errorf("%d checks are called %q; outcome: %v", len(made), m.check, err)
			}
		})
	}
}
