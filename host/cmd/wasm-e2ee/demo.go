package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	hostdemo "github.com/wasm-e2ee/wasm-e2ee/host/demo"
)

type demo struct {
	Bootstrap string        `placeholder:"HOST:PORT" help:"A Kafka cluster to run on; default: one inside the process."`
	Duration  time.Duration `default:"15s" help:"How long records flow."`
	Module    string        `type:"path" placeholder:"FILE" help:"Which e2ee.wasm; default: the one beside this program."`
	Envoy     string        `type:"path" placeholder:"FILE" help:"Run the module in this Envoy, at both ends; default: in sidecars."`
	Keep      string        `type:"path" placeholder:"DIR" help:"A new directory for the nodes' state files and configurations, to look at with exposure and inspect; default: nothing is left behind."`
}

func (c *demo) Run(ctx context.Context) error {
	// A pipe that closes (`| head`) is an error of Write, so that the demo still removes
	// what it made, instead of a signal that ends the process on the spot.
	signal.Ignore(syscall.SIGPIPE)
	return hostdemo.Run(ctx, hostdemo.Options{Bootstrap: c.Bootstrap, Duration: c.Duration, Module: c.Module, Envoy: c.Envoy, Keep: c.Keep, Out: os.Stdout})
}
