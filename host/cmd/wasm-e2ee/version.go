package main

import (
	"crypto/sha256"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/host/scrub"
	"github.com/wasm-e2ee/wasm-e2ee/host/sidecar"
)

type version struct {
	Module string `type:"path" placeholder:"FILE" help:"Which e2ee.wasm to show; default: the one beside this program."`
}

func (c *version) Run() error {
	build := "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		build = info.Main.Version
	}
	fmt.Printf("wasm-e2ee %s, %s %s/%s\n", build, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	wiped := "overwritten"
	if !scrub.Works {
		wiped = "not all overwritten: built without GOEXPERIMENT=runtimesecret, or not for linux on amd64 or arm64"
	}
	fmt.Printf("copies of erased keys in memory: %s\n", wiped)
	fmt.Printf("module ABI %d, protocol KX1 suite 0x1\n", abi.Version)
	module, err := sidecar.FindModule(c.Module)
	if err != nil {
		return err
	}
	fmt.Printf("e2ee.wasm %d bytes, sha256 %x\n", len(module), sha256.Sum256(module))
	return nil
}
