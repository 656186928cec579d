// Command e2ee puts the kernel into e2ee.wasm as the linker wrote it.
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/wasm-e2ee/wasm-e2ee/module/kernel/splice"
)

func main() {
	out := flag.String("o", "build/e2ee.wasm", "where the module goes")
	flag.Parse()
	if err := run(flag.Arg(0), *out); err != nil {
		fmt.Fprintln(os.Stderr, "splice:", err)
		os.Exit(1)
	}
}

func run(in, out string) error {
	module, err := os.ReadFile(in)
	if err != nil {
		return err
	}
	if module, err = splice.Splice(module); err != nil {
		return fmt.Errorf("%s: %w", in, err)
	}
	return os.WriteFile(out, module, 0o644)
}
