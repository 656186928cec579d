package lease

import (
	"context"
	"errors"
	"sync"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/channel"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/scrub"
)

// Keys is what a Server hands on: an agent, or what stands in its place in a test. Lease, Root
// and Opened are those of engine.Keys: an error wraps an abi.Status.
type Keys interface {
	Lease(ctx context.Context, topic string) (abi.Lease, error)
	Root(ctx context.Context, topic string, partition int32, kid abi.Kid) (abi.Root, error)
	Opened(topic string, kid abi.Kid, leaf uint32, partition int32, offset int64) error
	// Holds returns those of kids whose keys may stay in a data plane.
	Holds(kids []abi.Kid) []abi.Kid
	// Groups are the patterns of the consumer groups that data planes may let pass.
	Groups() []wire.Pattern
}

// answer does what requests ask for and returns the plaintext of the answer, which is the
// caller's to wipe. Keys that are not there are waited for all at once, until ctx ends.
func (s *Server) answer(ctx context.Context, requests []channel.Request) []byte {
	answers := make([]channel.Answer, len(requests))
	size := 2
	var wg sync.WaitGroup
	for i := range requests {
		r, a := &requests[i], &answers[i]
		size += r.AnswerSize()
		switch r.Op {
		case channel.OpLease, channel.OpRoot:
			a.Body = make([]byte, 0, r.AnswerSize())
			wg.Go(func() { s.key(ctx, r, a) })
		case channel.OpRenew:
			a.Body = channel.AppendKids(nil, s.keys.Holds(r.Kids))
		case channel.OpGroups:
			a.Body = wire.AppendPatterns(nil, s.keys.Groups())
		case channel.OpOpened:
			a.Status = statusOf(s.keys.Opened(r.Topic, r.Kid, r.Leaf, r.Partition, r.Offset))
		}
	}
	wg.Wait()
	out := channel.AppendCount(make([]byte, 0, size), len(answers))
	for i, a := range answers {
		s.stats.count(requests[i].Op, a.Status)
		out = channel.AppendAnswer(out, a)
		clear(a.Body)
	}
	return out
}

// key asks for one lease or root. The block goes into a.Body, which has room for it; what is
// left of the key on this goroutine's stack is overwritten.
func (s *Server) key(ctx context.Context, r *channel.Request, a *channel.Answer) {
	scrub.Stack()
	defer scrub.Stack()
	s.fetch(ctx, r, a)
}

func (s *Server) fetch(ctx context.Context, r *channel.Request, a *channel.Answer) {
	if r.Op == channel.OpLease {
		lease, err := s.keys.Lease(ctx, r.Topic)
		if a.Status = statusOf(err); err == nil {
			a.Body = lease.Append(a.Body)
		}
		clear(lease.Node[:])
		return
	}
	root, err := s.keys.Root(ctx, r.Topic, r.Partition, r.Kid)
	if a.Status = statusOf(err); err == nil {
		a.Body = root.Append(a.Body)
	}
	clear(root.Root[:])
}

// statusOf is what a data plane is told of an error.
func statusOf(err error) abi.Status {
	if err == nil {
		return abi.StatusOK
	}
	var status abi.Status
	if errors.As(err, &status) && status != abi.StatusOK {
		return status
	}
	return abi.StatusInternal
}
