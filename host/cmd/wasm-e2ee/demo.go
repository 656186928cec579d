package main

import (
	"context"
	"os"
	"time"

	hostdemo "github.com/wasm-e2ee/wasm-e2ee/host/demo"
)

type demo struct {
	Bootstrap string        `placeholder:"HOST:PORT" help:"A Kafka cluster to run on; default: one inside the process."`
	Duration  time.Duration `default:"15s" help:"How long records flow."`
	Module    string        `type:"path" help:"Which e2ee.wasm; default: the one beside this program."`
}

func (c *demo) Run(ctx context.Context) error {
	return hostdemo.Run(ctx, hostdemo.Options{Bootstrap: c.Bootstrap, Duration: c.Duration, Module: c.Module, Out: os.Stdout})
}
