package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"

	"github.com/wasm-e2ee/wasm-e2ee/host/config"
	"github.com/wasm-e2ee/wasm-e2ee/host/lease"
	"github.com/wasm-e2ee/wasm-e2ee/host/sidecar"
)

type agentServe struct {
	Config string `required:"" type:"path" placeholder:"FILE" help:"YAML file; see examples/sidecar."`
}

func (c *agentServe) Run(ctx context.Context) error {
	file, err := config.Read(c.Config)
	if err != nil {
		return err
	}
	s, err := sidecar.StartKeyServer(ctx, file, file.Log.Logger())
	if err != nil && ctx.Err() != nil {
		return nil // told to end before it served: as good as afterwards
	}
	if err != nil {
		return err
	}
	return s.Wait()
}

type agentPair struct {
	Out string `required:"" type:"path" placeholder:"FILE" help:"Write the key to this new file, for this user alone."`
}

func (c *agentPair) Run() error {
	key, err := lease.NewKey(rand.Reader)
	if err != nil {
		return err
	}
	defer key.Wipe()
	text := lease.MarshalKey(key)
	defer clear(text)
	if err := writeNew(c.Out, text, 0o600); err != nil {
		return fmt.Errorf("pairing key: %w", err)
	}
	fmt.Fprintf(os.Stdout, "pairing key: %s (PRIVATE: whoever has it gets keys from the agent)\nnext: agent.pairing_key_file in the agent's configuration, and the same key in the data plane's\n", c.Out)
	return nil
}
