package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"

	"github.com/wasm-e2ee/wasm-e2ee/tests/conformance"
)

type test struct {
	Module  string `arg:"" type:"path" help:"The module to prove."`
	Verbose bool   `short:"v" help:"Name the checks that passed too."`
}

func (c *test) Run(ctx context.Context) error {
	module, err := os.ReadFile(c.Module)
	if err != nil {
		return err
	}
	fmt.Printf("%s: %d bytes, sha256 %x; this takes some 20 s\n", c.Module, len(module), sha256.Sum256(module))
	passed, failed := 0, 0
	err = conformance.Run(ctx, module, func(name string, err error) {
		if err != nil {
			failed++
			fmt.Printf("FAIL  %s\n      %v\n", name, err)
			return
		}
		passed++
		if c.Verbose {
			fmt.Printf("ok    %s\n", name)
		}
	})
	if passed+failed > 0 {
		fmt.Printf("%d passed, %d failed\n", passed, failed)
	}
	return err
}
