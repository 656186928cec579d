package aead

import (
	"context"
	"fmt"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
)

// wazeroGuest is the guest in this process.
type wazeroGuest struct {
	runtime wazero.Runtime
	fns     map[string]api.Function
	stack   [2]uint64
}

func startWazero(ctx context.Context, guest []byte) (*wazeroGuest, error) {
	g := &wazeroGuest{runtime: wazero.NewRuntime(ctx), fns: map[string]api.Function{}}
	if _, err := wasi_snapshot_preview1.Instantiate(ctx, g.runtime); err != nil {
		return nil, err
	}
	module, err := g.runtime.InstantiateWithConfig(ctx, guest, wazero.NewModuleConfig().WithStartFunctions("_initialize"))
	if err != nil {
		return nil, fmt.Errorf("the guest does not start in wazero: %w", err)
	}
	for _, name := range []string{"seal", "open"} {
		g.fns[name] = module.ExportedFunction(name)
	}
	return g, nil
}

func (g *wazeroGuest) call(ctx context.Context, op string, size, messages uint32) error {
	g.stack = [2]uint64{uint64(size), uint64(messages)}
	if err := g.fns[op].CallWithStack(ctx, g.stack[:]); err != nil {
		return err
	}
	if uint32(g.stack[0]) != 1 {
		return fmt.Errorf("the guest's %s failed in wazero", op)
	}
	return nil
}

func (g *wazeroGuest) close(ctx context.Context) { _ = g.runtime.Close(ctx) }
