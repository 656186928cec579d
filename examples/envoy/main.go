// Command envoy shows e2ee.wasm in two unmodified Envoys: it starts a broker, two agents, two
// Envoys, a plain producer and a plain consumer, and prints what was sent, what the broker
// holds and what was received. It leaves nothing behind.
//
//	make build && go run ./examples/envoy
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"github.com/wasm-e2ee/wasm-e2ee/host/demo"
	"github.com/wasm-e2ee/wasm-e2ee/host/envoy"
)

type flags struct {
	Bootstrap string        `placeholder:"HOST:PORT" help:"A Kafka cluster to run on; default: one inside the process."`
	Duration  time.Duration `default:"15s" help:"How long records flow."`
	Module    string        `type:"path" default:"build/e2ee.wasm" placeholder:"FILE" help:"Which e2ee.wasm; default: that of make build."`
	Envoy     string        `type:"path" placeholder:"FILE" help:"Which Envoy; default: the one on the PATH, or that of make deps-envoy."`
}

func main() {
	var f flags
	kong.Parse(&f, kong.Name("envoy"), kong.Description("Show e2ee.wasm in two unmodified Envoys, between plain clients and a broker."))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the next signal ends the process the usual way
	signal.Ignore(syscall.SIGPIPE)
	if err := f.run(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "envoy: %v\n", err)
		os.Exit(1)
	}
}

func (f *flags) run(ctx context.Context) error {
	binary, err := f.find()
	if err != nil {
		return err
	}
	return demo.Run(ctx, demo.Options{Bootstrap: f.Bootstrap, Duration: f.Duration, Module: f.Module, Envoy: binary, Out: os.Stdout})
}

// find is the Envoy that is named, the one on the PATH, or the one that the tests use.
func (f *flags) find() (string, error) {
	binary, err := envoy.Find(f.Envoy)
	if err == nil || f.Envoy != "" {
		return binary, err
	}
	const fetched = "build/deps/envoy-1.40.0/envoy"
	if _, missing := os.Stat(fetched); missing == nil {
		return filepath.Abs(fetched)
	}
	return "", err
}
