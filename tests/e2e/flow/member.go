package flow

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A Member is one application of a group behind a sidecar. It commits what it has been given
// after each poll.
type Member struct {
	Group     *Group
	Flow      *Flow
	Bootstrap string

	cl   *kgo.Client
	done chan struct{} // nil while it is away
}

// Join starts the member. It may be called again after Leave.
func (m *Member) Join(t testing.TB) {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(m.Bootstrap),
		kgo.ConsumerGroup(m.Group.Name),
		kgo.ConsumeTopics(m.Flow.Topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(),
		kgo.BlockRebalanceOnPoll(),
		kgo.FetchMaxWait(100 * time.Millisecond),
		kgo.RetryBackoffFn(func(int) time.Duration { return 100 * time.Millisecond }),
		kgo.OnPartitionsAssigned(func(context.Context, *kgo.Client, map[string][]int32) { m.Group.Assigned.Add(1) }),
	}, m.Group.Opts...)...)
	if err != nil {
		t.Error(err) // not Fatal: whoever churns is not the test's own goroutine
		return
	}
	m.cl, m.done = cl, make(chan struct{})
	go m.run(cl, m.done)
}

func (m *Member) run(cl *kgo.Client, done chan struct{}) {
	defer close(done)
	for {
		fetches := cl.PollFetches(context.Background())
		if fetches.IsClientClosed() {
			return
		}
		for _, e := range fetches.Errors() {
			// A sidecar that restarts is away for a moment, and the client comes back by itself.
			var session *kgo.ErrGroupSession
			if !errors.As(e.Err, &session) {
				m.Flow.Fail("group %s behind %s, partition %d: %v", m.Group.Name, m.Bootstrap, e.Partition, e.Err)
			}
		}
		fetches.EachRecord(func(r *kgo.Record) { m.Flow.Delivered(m.Group.Name, r) })
		// What a rebalance keeps from being committed is delivered again, to somebody.
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		_ = cl.CommitUncommittedOffsets(ctx)
		cancel()
		cl.AllowRebalance()
	}
}

// Leave ends the member, which tells its group.
func (m *Member) Leave() {
	if m.done == nil {
		return
	}
	m.cl.CloseAllowingRebalance()
	<-m.done
	m.cl, m.done = nil, nil
}

// LeaveAll ends members side by side.
func LeaveAll(members []*Member) {
	var wg sync.WaitGroup
	for _, m := range members {
		wg.Go(m.Leave)
	}
	wg.Wait()
}
