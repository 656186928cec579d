// Package inside measures the time that records spend in a sidecar, from the last byte in to
// the last byte out, while a client and a broker that note the time are at its two ends. The
// broker is franz-go's fake one, in this process: its own time is not part of it.
package inside

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wasm-e2ee/wasm-e2ee/tests/bench/report"
	"github.com/wasm-e2ee/wasm-e2ee/tests/bench/run"
	"github.com/wasm-e2ee/wasm-e2ee/tests/bench/stand"
)

const (
	recordSize = 1 << 10 // bytes
	rate       = 1000    // records a second, each in a request of its own
	mostP99    = 1       // ms
)

// Kafka's numbers of the two requests that carry records.
const (
	produceAPI = 0
	fetchAPI   = 1
)

const producerID, consumerID = "bench-producer", "bench-consumer"

// A way is one that is measured: through the sidecar, sealed or not, or through nothing at all,
// which is what the loopback, the system's scheduler and this process take.
type way struct {
	name, bootstrap, topic string
	values                 map[string][]float64 // by figure: one for each round
}

// Rows measures produce and fetch at 1,000 records a second.
func Rows(ctx context.Context, o run.Options) ([]report.Row, error) {
	t := newTap()
	sealed, plain := stand.SealedTopics+"inside", stand.PlainTopics+"inside"
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, sealed, plain), kfake.ListenFn(t.listen))
	if err != nil {
		return nil, err
	}
	defer cluster.Close()
	upstream := cluster.ListenAddrs()[0]
	s, err := stand.StartSidecar(ctx, o, filepath.Join(o.Dir, "sidecar"), upstream)
	if err != nil {
		return nil, err
	}
	defer s.Stop(10 * time.Second)
	ways := []*way{
		{"sidecar sealing", s.Addr, sealed, map[string][]float64{}},
		{"sidecar, plain topic", s.Addr, plain, map[string][]float64{}},
		{"no sidecar", upstream, plain, map[string][]float64{}},
	}
	length := run.Pick(o, 5*time.Second, time.Second)
	for round := -1; round < o.Rounds; round++ {
		for _, w := range ways {
			if err := w.measure(ctx, t, length, round >= 0); err != nil {
				return nil, fmt.Errorf("%s: %w", w.name, err)
			}
		}
		o.Log("round %d of %d", round+1, o.Rounds)
	}
	var rows []report.Row
	for _, figure := range []string{"produce p99", "fetch p99", "produce p50", "fetch p50", "produce p99.9", "fetch p99.9"} {
		for _, w := range ways {
			var target *report.Target
			if w.name != "no sidecar" && (figure == "produce p99" || figure == "fetch p99") {
				target = report.AtMost(mostP99)
			}
			row := report.Single(w.name+", "+figure, "ms", target, report.Side{Name: "in to out", Values: w.values[figure]})
			row.Note = fmt.Sprintf("records of %d B, %d a second, each in a request of its own, %v each round after one that warms up; "+
				"from before the write of a frame's last byte until after the read of it at the other end, both in the benchmark's process: "+
				"what `no sidecar` shows is in all of it", recordSize, rate, length)
			rows = append(rows, row)
		}
	}
	return rows, nil
}

// measure sends and receives for a while over new connections, warm ones when it counts.
func (w *way) measure(ctx context.Context, t *tap, length time.Duration, count bool) error {
	ctx, cancel := context.WithTimeout(ctx, length+time.Minute)
	defer cancel()
	producer, err := kgo.NewClient(kgo.SeedBrokers(w.bootstrap), kgo.ClientID(producerID), kgo.Dialer(t.dial), kgo.DefaultProduceTopic(w.topic),
		kgo.ProducerLinger(0), kgo.ProducerBatchCompression(kgo.NoCompression()))
	if err != nil {
		return err
	}
	defer producer.Close()
	consumer, err := kgo.NewClient(kgo.SeedBrokers(w.bootstrap), kgo.ClientID(consumerID), kgo.Dialer(t.dial), kgo.FetchMinBytes(1),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{w.topic: {0: kgo.NewOffset().AtEnd()}}))
	if err != nil {
		return err
	}
	defer consumer.Close()
	go func() {
		for ctx.Err() == nil && !consumer.PollFetches(ctx).IsClientClosed() {
		}
	}()
	if err := offer(ctx, producer, time.Second); err != nil {
		return err
	}
	t.reset()
	if err := offer(ctx, producer, length); err != nil {
		return err
	}
	if !count {
		return nil
	}
	requests, responses := t.took(produceAPI, producerID), t.took(fetchAPI, consumerID)
	for name, all := range map[string][]float64{"produce": requests, "fetch": responses} {
		if want := int(length.Seconds() * rate / 4); len(all) < want {
			return fmt.Errorf("%d %s frames were seen at both ends, want at least %d", len(all), name, want)
		}
		slices.Sort(all)
		for figure, q := range map[string]float64{"p50": 0.5, "p99": 0.99, "p99.9": 0.999} {
			w.values[name+" "+figure] = append(w.values[name+" "+figure], report.Quantile(all, q))
		}
	}
	return nil
}

// offer produces at the rate for a while and returns when all is acknowledged.
func offer(ctx context.Context, producer *kgo.Client, length time.Duration) error {
	failed := make(chan error, 1)
	value, begin := make([]byte, recordSize), time.Now()
	for i := range int(length.Seconds() * rate) {
		if wait := time.Duration(i)*time.Second/rate - time.Since(begin); wait > 0 {
			time.Sleep(wait)
		}
		producer.Produce(ctx, &kgo.Record{Value: value}, func(_ *kgo.Record, err error) {
			if err != nil {
				select {
				case failed <- err:
				default:
				}
			}
		})
	}
	if err := producer.Flush(ctx); err != nil {
		return err
	}
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

// took returns the milliseconds of every frame of one kind that was seen at both ends.
func (t *tap) took(api int16, client string) (all []float64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	frames := t.requests
	if api == fetchAPI {
		frames = t.responses
	}
	for c, at := range frames {
		if c.api != api || c.client != client || at.in.IsZero() || at.out.IsZero() || api == fetchAPI && !t.records[c] {
			continue
		}
		all = append(all, float64(at.out.Sub(at.in))/1e6)
	}
	return all
}
