//go:build !unix

package engine

import "context"

// withLinearMemory leaves wazero's own memory in place; the runtime is configured to
// reserve its full capacity, so that it does not move either.
func withLinearMemory(ctx context.Context) (context.Context, func()) { return ctx, func() {} }
