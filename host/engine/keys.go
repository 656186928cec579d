package engine

import (
	"context"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
)

// Keys is what an Engine asks when an instance lacks a key. The agent of this process
// answers; a test or a program with an agent elsewhere may stand in its place.
type Keys interface {
	// Lease returns a subtree that nobody else holds, for sealing records of topic. It
	// waits until the epoch's grant is acknowledged or ctx ends. Its error wraps an
	// abi.Status: StatusUnavailable (retry), StatusNoRecipient, StatusCompacted,
	// StatusNotEntitled, StatusClockSkew or StatusShuttingDown.
	Lease(ctx context.Context, topic string) (abi.Lease, error)

	// Root returns the root that opens batches of topic sealed under kid. It waits for a
	// grant that may still arrive, and for a peer that may share the key, until ctx ends. Its
	// error wraps an abi.Status: StatusPending (ask again), StatusHistory (to be passed over,
	// in this partition), StatusUnreadable, StatusErased, StatusNotEntitled, StatusUnavailable
	// or StatusShuttingDown.
	Root(ctx context.Context, topic string, partition int32, kid abi.Kid) (abi.Root, error)

	// Opened is told of every batch that opened, before it is delivered, with the base offset
	// at which the broker served it (PROTOCOL.md §2.8.6). After an error the batch must not be
	// delivered: it wraps StatusReplayed where the same one stood at another offset before,
	// StatusErased where its key has just gone.
	Opened(topic string, kid abi.Kid, leaf uint32, partition int32, offset int64) error
}
