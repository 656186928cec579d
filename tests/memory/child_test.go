//go:build linux

package memory

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/wasm-e2ee/wasm-e2ee/host/config"
	"github.com/wasm-e2ee/wasm-e2ee/host/sidecar"
)

// The environment of a child: this test binary, run again as a sidecar.
const (
	envBootstrap = "MEMORY_TEST_BOOTSTRAP"
	envState     = "MEMORY_TEST_STATE"
	envModule    = "MEMORY_TEST_MODULE"  // a directory with e2ee.wasm and a cache
	envPairing   = "MEMORY_TEST_PAIRING" // a pairing key's file: an agent alone instead of a sidecar
)

func TestMain(m *testing.M) {
	if os.Getenv(envState) != "" {
		if err := child(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// child is a sidecar as the product runs it, or an agent. Its parent tells it by lines on the
// standard input to collect garbage or to shut down and stay; it ends with its input.
func child() error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	dir := os.Getenv(envModule)
	file := &config.File{
		Cluster: config.Cluster{Bootstrap: []string{os.Getenv(envBootstrap)}}, Listen: "127.0.0.1:0", State: os.Getenv(envState),
		Module: filepath.Join(dir, "e2ee.wasm"), CacheDir: filepath.Join(dir, "cache"), Timing: timing,
		Agent: config.Agent{Listen: "127.0.0.1:0", PairingKeyFile: os.Getenv(envPairing)},
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	var side interface {
		Addr() net.Addr
		Wait() error
	}
	var err error
	if file.Agent.PairingKeyFile != "" {
		side, err = sidecar.StartKeyServer(ctx, file, log)
	} else {
		side, err = sidecar.Start(ctx, file, log)
	}
	if err != nil {
		return err
	}
	fmt.Println(side.Addr())
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		switch lines.Text() {
		case "gc":
			runtime.GC()
			runtime.GC()
		case "close":
			cancel()
			if err := side.Wait(); err != nil {
				return err
			}
		}
		fmt.Println("done")
	}
	return nil
}
