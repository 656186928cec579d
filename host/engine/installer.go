package engine

import (
	"context"
	"fmt"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
)

// An installer carries a key from Keys into an instance, once.
type installer struct {
	want  func(*installer, context.Context, Keys, string) error
	kid   abi.Kid
	block []byte // abi.Lease's or abi.Root's, SECRET
	fn    string // the export that takes it
}

func (k *installer) fetch(ctx context.Context, keys Keys, topic string) error {
	return k.want(k, ctx, keys, topic)
}

func (k *installer) wipe() {
	clear(k.block)
	k.block = nil
}

func wantLease(k *installer, ctx context.Context, keys Keys, topic string) error {
	lease, err := keys.Lease(ctx, topic)
	if err != nil {
		return err
	}
	k.fn, k.block = abi.FuncInstallLease, lease.Append(make([]byte, 0, 64+len(topic)))
	clear(lease.Node[:])
	return nil
}

func wantRoot(k *installer, ctx context.Context, keys Keys, topic string) error {
	root, err := keys.Root(ctx, topic, k.kid)
	if err != nil {
		return fmt.Errorf("kid %x: %w", k.kid, err)
	}
	k.fn, k.block = abi.FuncInstallRoot, root.Append(make([]byte, 0, 64+len(topic)))
	clear(root.Root[:])
	return nil
}
