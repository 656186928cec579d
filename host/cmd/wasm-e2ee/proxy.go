package main

import (
	"context"

	"github.com/wasm-e2ee/wasm-e2ee/host/config"
	"github.com/wasm-e2ee/wasm-e2ee/host/sidecar"
)

type proxy struct {
	Config string `required:"" type:"path" placeholder:"FILE" help:"YAML file; see examples/sidecar."`
}

func (c *proxy) Run(ctx context.Context) error {
	file, err := config.Read(c.Config)
	if err != nil {
		return err
	}
	s, err := sidecar.Start(ctx, file, file.Log.Logger())
	if err != nil && ctx.Err() != nil {
		return nil // told to end before it served: as good as afterwards
	}
	if err != nil {
		return err
	}
	return s.Wait()
}
