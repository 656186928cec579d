package main

import (
	"context"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/agent"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// The limits at 500 consumers, 20 producers and 20 topics: a part of an hour says what an hour
// comes to, since everything in it repeats every 3 min.
func TestGrantTrafficStaysInsideItsLimits(t *testing.T) {
	c, err := measure(shape{500, 20, keyring.DefaultTiming()}, 2*keyring.DefaultTiming().Epoch)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("grants %.1f MB/h written, %.0f MB/h read; roster %.1f MB/h written, %.0f MB/h read",
		c.perHour(c.grants), c.perHour(c.grantsRead), c.perHour(c.roster), c.perHour(c.rosterRead))
	// Two epochs of each producer, or one or three where the edges fall badly for one of them.
	if c.epochs < 2*20-2 || c.epochs > 2*20+2 {
		t.Errorf("%d grants of 20 producers in 2 epochs", c.epochs)
	}
	if got := c.perHour(c.grants); got > 250 {
		t.Errorf("grants are %.1f MB/h written, want at most 250", got)
	}
	if got := c.perHour(c.grantsRead); got > 8000 {
		t.Errorf("grants are %.0f MB/h read, want at most 8000", got)
	}
}

// quick is the default timing 45 times as fast, but for what real time decides.
var quick = keyring.Timing{
	Epoch: 4 * time.Second, Lead: time.Second, PrekeyRotation: 4 * time.Second, PrekeyGrace: 2700 * time.Millisecond,
	Skew: 2 * time.Second, Settle: 2 * time.Second, Window: 4 * time.Second,
	HardCap: time.Hour, Offline: time.Hour, MaxEpoch: time.Hour,
}

// Real agents over a broker write what the count says: per grant and per bundle to a few
// percent, and as many grants as there are epochs.
func TestTheCountIsThatOfRealAgents(t *testing.T) {
	s := shape{consumers: 5, producers: 2, timing: quick}
	want, err := measure(s, 10*quick.Epoch)
	if err != nil {
		t.Fatal(err)
	}
	c, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i := range topics {
		if err := c.CreateTopic(topic(i), 6, nil); err != nil {
			t.Fatal(err)
		}
	}
	f, err := newFleet(s, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	operator := []kgo.Opt{kgo.SeedBrokers(c.ListenAddrs()...)}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	start := func(state *keyring.State) *agent.Agent {
		a, err := agent.Open(ctx, agent.Config{Kafka: operator, StateFile: stateFile(t, state), Timing: quick})
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			if err := a.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		select {
		case <-a.Ready():
		case <-time.After(20 * time.Second):
			t.Fatal("an agent is not ready after 20 s")
		}
		return a
	}
	for _, n := range f.consumers {
		start(n.state)
	}
	for _, n := range f.producers {
		a := start(n.state)
		wg.Go(func() { // records flow
			for ctx.Err() == nil {
				for i := range topics {
					if _, err := a.Lease(ctx, topic(i)); err != nil && ctx.Err() == nil {
						t.Error(err)
						return
					}
				}
				time.Sleep(100 * time.Millisecond)
			}
		})
	}
	begun := time.Now()
	time.Sleep(6 * quick.Epoch)
	stop()
	wg.Wait()

	cl, err := kgo.NewClient(operator...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	// Topics that began one after the other had a grant each at first.
	settled := uint64(begun.Add(2 * quick.Epoch).UnixMilli())
	var grants float64
	starts := map[wire.InstanceID]map[uint32]uint64{}
	for p := range int32(keyring.GrantPartitions) {
		readLog(t, cl, keyring.GrantsTopic, p, func(r *kafka.Record, bytes float64, _ bool) {
			g, err := wire.ParseGrant(r.Value)
			if err != nil {
				t.Fatal(err)
			}
			h := &g.Header
			if h.Start < settled {
				return
			}
			if starts[h.Instance] == nil {
				starts[h.Instance] = map[uint32]uint64{}
			}
			starts[h.Instance][h.Epoch] = h.Start
			grants += bytes
		})
	}
	written := 0
	for _, epochs := range starts {
		written += len(epochs)
		var times []uint64
		for _, at := range epochs {
			times = append(times, at)
		}
		period := time.Duration(slices.Max(times)-slices.Min(times)) * time.Millisecond / time.Duration(max(len(epochs)-1, 1))
		t.Logf("a producer's %d grants begin every %v", len(epochs), period)
		// Later than T by the look every a/4, the gathering and the acknowledgement, which are
		// small at 3 min.
		if period < quick.Epoch || period > quick.Epoch+quick.Lead/4+500*time.Millisecond {
			t.Errorf("grants begin every %v, want %v", period, quick.Epoch)
		}
	}
	near(t, "bytes of a grant", grants/float64(written), float64(want.grants)/float64(want.epochs), 0.02)
	bundles, roster := 0, 0.0
	readLog(t, cl, keyring.RosterTopic, 0, func(r *kafka.Record, bytes float64, alone bool) {
		if wire.Type(r.Key[0]) == wire.TypePrekeyBundle && alone { // not with the chain, as at start
			bundles++
			roster += bytes
		}
	})
	near(t, "bytes of a bundle", roster/float64(bundles), float64(want.roster)/float64(want.bundles), 0.02)
}

func near(t *testing.T, what string, got, want, within float64) {
	t.Helper()
	t.Logf("%s: %.0f by real agents, %.0f counted (%+.1f %%)", what, got, want, 100*(got/want-1))
	if got < want*(1-within) || got > want*(1+within) {
		t.Errorf("%s: %.0f by real agents, %.0f counted", what, got, want)
	}
}

func stateFile(t *testing.T, state *keyring.State) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "node.state")
	store, err := agent.OpenStore(path)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if err := store.SaveState(state); err != nil {
		t.Fatal(err)
	}
	return path
}

// readLog calls each for a partition's records, with their share of the bytes of their batch.
func readLog(t *testing.T, cl *kgo.Client, name string, partition int32, each func(r *kafka.Record, bytes float64, alone bool)) {
	t.Helper()
	for next := int64(0); ; {
		p := kmsg.NewFetchRequestTopicPartition()
		p.Partition, p.FetchOffset, p.PartitionMaxBytes = partition, next, 64<<20
		ft := kmsg.NewFetchRequestTopic()
		ft.Topic, ft.TopicID = name, topicID(t, cl, name)
		ft.Partitions = append(ft.Partitions, p)
		req := kmsg.NewPtrFetchRequest()
		req.MaxBytes, req.Topics = 64<<20, append(req.Topics, ft)
		resp, err := cl.Broker(0).Request(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		part := resp.(*kmsg.FetchResponse).Topics[0].Partitions[0]
		if err := kerr.ErrorForCode(part.ErrorCode); err != nil {
			t.Fatal(err)
		}
		if len(part.RecordBatches) == 0 {
			return
		}
		for b := part.RecordBatches; len(b) > 0; {
			n, err := kafka.BatchSize(b)
			if err != nil {
				t.Fatal(err)
			}
			h, err := kafka.ParseBatchHeader(b)
			if err != nil {
				t.Fatal(err)
			}
			for rest := b[kafka.BatchHeaderSize:n]; len(rest) > 0; {
				var r kafka.Record
				if rest, err = kafka.NextRecord(rest, &r); err != nil {
					t.Fatal(err)
				}
				each(&r, float64(n)/float64(h.NumRecords), h.NumRecords == 1)
			}
			next, b = h.BaseOffset+int64(h.NumRecords), b[n:]
		}
	}
}

func topicID(t *testing.T, cl *kgo.Client, name string) [16]byte {
	t.Helper()
	req := kmsg.NewPtrMetadataRequest()
	rt := kmsg.NewMetadataRequestTopic()
	rt.Topic = kmsg.StringPtr(name)
	req.Topics = append(req.Topics, rt)
	resp, err := req.RequestWith(t.Context(), cl)
	if err != nil {
		t.Fatal(err)
	}
	return resp.Topics[0].TopicID
}
