package engine

import (
	"context"
	"fmt"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/host/scrub"
)

// An installer carries a key from Keys into an instance, once.
type installer struct {
	want  want
	kid   abi.Kid
	block []byte // abi.Lease's or abi.Root's, SECRET
	fn    string // the export that takes it
}

// A want is what an instance asked for.
type want int

const (
	nothing want = iota
	aLease
	aRoot
)

func (k *installer) fetch(ctx context.Context, keys Keys, topic string, partition int32) error {
	scrub.Stack()
	defer scrub.Stack()
	if k.want == aLease {
		return k.lease(ctx, keys, topic)
	}
	return k.root(ctx, keys, topic, partition)
}

func (k *installer) wipe() {
	clear(k.block)
	k.block = nil
}

func (k *installer) lease(ctx context.Context, keys Keys, topic string) error {
	lease, err := keys.Lease(ctx, topic)
	if err != nil {
		return err
	}
	k.fn, k.block = abi.FuncInstallLease, lease.Append(make([]byte, 0, 64+len(topic)))
	clear(lease.Node[:])
	return nil
}

func (k *installer) root(ctx context.Context, keys Keys, topic string, partition int32) error {
	root, err := keys.Root(ctx, topic, partition, k.kid)
	if err != nil {
		return fmt.Errorf("kid %x: %w", k.kid, err)
	}
	k.fn, k.block = abi.FuncInstallRoot, root.Append(make([]byte, 0, 64+len(topic)))
	clear(root.Root[:])
	return nil
}
