// Command mutant builds a copy of e2ee.wasm whose tag check was removed, which
// `wasm-e2ee test` must refuse.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/wasm-e2ee/wasm-e2ee/tests/artifact"
)

func main() {
	out := flag.String("o", "build/no-tag-check.wasm", "where it goes")
	flag.Parse()
	path, err := filepath.Abs(*out)
	if err == nil {
		_, err = artifact.Mutant(path, artifact.TagCheck.File, artifact.TagCheck.Old, artifact.TagCheck.New)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutant:", err)
		os.Exit(1)
	}
}
