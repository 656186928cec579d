package batches

import (
	"context"
	"crypto/rand"
	"math"
	"sync"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/module/ratchet"
)

// What every batch is produced to.
const (
	Topic     = "bench"
	Partition = 3
)

// Config is the module's configuration.
var Config = abi.Config{MaxDecompressed: 64 << 20}

// Keys are an epoch of their own, without a realm: leases are cut as an agent cuts them.
type Keys struct {
	mu    sync.Mutex
	kid   abi.Kid
	root  ratchet.Node
	stack ratchet.Stack
}

// NewKeys draws an epoch.
func NewKeys() *Keys {
	k := &Keys{}
	rand.Read(k.kid[:])
	rand.Read(k.root[:])
	top := k.root
	k.stack.Reset(0, 0, &top)
	return k
}

// leaseLevel gives leases of 2^16 leaves.
const leaseLevel = 8

// Lease implements engine.Keys.
func (k *Keys) Lease(context.Context, string) (abi.Lease, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	l := abi.Lease{Kid: k.kid, UseBy: math.MaxInt64, Topic: Topic}
	var node ratchet.Node
	start, level, ok := k.stack.Cut(leaseLevel, &node)
	if !ok {
		return l, abi.StatusUnavailable
	}
	l.Start, l.Level, l.Node = start, level, node
	return l, nil
}

// Root implements engine.Keys.
func (k *Keys) Root(context.Context, string, int32, abi.Kid) (abi.Root, error) {
	return abi.Root{Kid: k.kid, Root: k.root, Topic: Topic}, nil
}

// Opened implements engine.Keys: it remembers nothing.
func (k *Keys) Opened(string, abi.Kid, uint32, int32, int64) error { return nil }
