package through

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/tests/bench/load"
	"github.com/wasm-e2ee/wasm-e2ee/tests/bench/report"
	"github.com/wasm-e2ee/wasm-e2ee/tests/bench/run"
	"github.com/wasm-e2ee/wasm-e2ee/tests/bench/stand"
)

// A shot is one cell sent one way once. MB are 10^6 bytes of values.
type shot struct {
	produced, consumed         float64 // MB/s
	recordsIn, recordsOut      float64 // records/s
	proxyProduce, proxyConsume float64 // CPU-ms/MB of the proxy
	kafkaProduce, kafkaConsume float64 // CPU-ms/MB of the broker
	rss                        float64 // MB of the proxy, afterwards
	stored                     float64 // bytes in the broker's log for each byte of values
	p50, p99, p999             float64 // ms at the offered load
}

// warmRecords are sent through a new topic before it is measured, so that its keys exist.
const warmRecords = 10

var topics atomic.Int64 // numbers them

func shoot(ctx context.Context, o run.Options, s *stand.Stand, w way, c cell) (shot, error) {
	var r shot
	count := c.bytes / c.size
	mb := float64(count) * float64(c.size) / 1e6
	job := load.Job{Bootstrap: w.bootstrap, Topic: fmt.Sprintf("%sfast-%d", w.prefix, topics.Add(1)), Partitions: c.partitions, Size: c.size, Batch: c.batch}
	if err := s.CreateTopic(ctx, job.Topic, c.partitions); err != nil {
		return r, err
	}
	defer s.DeleteTopic(context.WithoutCancel(ctx), job.Topic)
	if _, err := load.Produce(ctx, job, warmRecords); err != nil {
		return r, err
	}
	if _, err := load.Consume(ctx, job, warmRecords); err != nil {
		return r, err
	}
	before, err := s.Stored(job.Topic)
	if err != nil {
		return r, err
	}

	use := usage{kafka: s.Kafka.Nodes[0].Process.Pid(), proxy: w.pid}
	var took time.Duration
	r.proxyProduce, r.kafkaProduce, err = use.perMB(mb, func() (err error) { took, err = load.Produce(ctx, job, count); return })
	if err != nil {
		return r, err
	}
	r.produced, r.recordsIn = mb/took.Seconds(), float64(count)/took.Seconds()
	after, err := s.Stored(job.Topic)
	if err != nil {
		return r, err
	}
	r.stored = float64(after-before) / (mb * 1e6)
	r.proxyConsume, r.kafkaConsume, err = use.perMB(mb, func() (err error) { took, err = load.Consume(ctx, job, count+warmRecords); return })
	if err != nil {
		return r, err
	}
	r.consumed, r.recordsOut = mb/took.Seconds(), float64(count)/took.Seconds()
	if w.pid != 0 {
		rss, err := stand.RSS(w.pid)
		if err != nil {
			return r, err
		}
		r.rss = float64(rss) / 1e6
	}

	paced := job
	paced.Topic = fmt.Sprintf("%spaced-%d", w.prefix, topics.Add(1))
	if err := s.CreateTopic(ctx, paced.Topic, c.partitions); err != nil {
		return r, err
	}
	defer s.DeleteTopic(context.WithoutCancel(ctx), paced.Topic)
	latencies, err := load.Paced(ctx, paced, c.rate, run.Pick(o, 5*time.Second, 500*time.Millisecond))
	if err != nil {
		return r, err
	}
	r.p50, r.p99, r.p999 = report.Quantile(latencies, 0.5), report.Quantile(latencies, 0.99), report.Quantile(latencies, 0.999)
	return r, nil
}

// usage measures the processor time of two processes.
type usage struct{ kafka, proxy int }

// perMB returns what each used in milliseconds for each of the MB that work moves.
func (u usage) perMB(mb float64, work func() error) (proxy, kafka float64, err error) {
	var before, after [2]time.Duration
	read := func(to *[2]time.Duration) error {
		for i, pid := range []int{u.proxy, u.kafka} {
			if pid == 0 {
				continue
			}
			if to[i], err = stand.CPU(pid); err != nil {
				return err
			}
		}
		return nil
	}
	if err := read(&before); err != nil {
		return 0, 0, err
	}
	if err := work(); err != nil {
		return 0, 0, err
	}
	if err := read(&after); err != nil {
		return 0, 0, err
	}
	ms := func(i int) float64 { return float64(after[i]-before[i]) / 1e6 / mb }
	return ms(0), ms(1), nil
}
