package envoy

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/clients"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/nodes"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/raw"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/records"
)

// injected has the broker store plaintext behind sealed records: these come, the injected ones
// do not, the client is told, and metric and log say so.
func (w *world) injected(t *testing.T, r *row, out, in face) {
	topic := w.topic(t, "injected", 1, nil)
	sent := records.Generate(42, 20, records.Shape{}, w.canaries)
	for i := range sent {
		sent[i].Timestamp = -1
	}
	job := clients.Job{Bootstrap: out.bootstrap(), Topic: topic, Group: topic, Records: sent, Count: len(sent) + 1, Timeout: 20 * time.Second}
	if err := clients.FranzGo.Produce(t.Context(), job); err != nil {
		t.Fatal(err)
	}
	raw.Store(t, w.broker.Nodes[0].Addr, topic, 0, raw.PlainBatch("injected"))
	job.Bootstrap = in.bootstrap()
	got, err := clients.FranzGo.Consume(t.Context(), job)
	if len(got) != len(sent) || !errors.Is(err, kerr.TopicAuthorizationFailed) {
		t.Errorf("%d records and %v, want %d and an authorization error", len(got), err, len(sent))
	}
	if i := slices.IndexFunc(got, func(r records.Record) bool { return string(r.Value) == "injected" }); i >= 0 {
		t.Error("the injected record was delivered")
	}
	nodes.Poll(t, 5*time.Second, "the refusal in a metric", func() bool { return in.metric("refusals_total.direction.open.status.plaintext") > 0 })
	nodes.Poll(t, 5*time.Second, "the refusal in the log", func() bool { return strings.Contains(in.log(), topic) })
	r.note("%d records before it, then %v", len(got), kerr.TopicAuthorizationFailed.Message)
}

// produceOnce sends one Produce of one batch of plain text, without retries, and returns what
// the partition's answer says.
func produceOnce(bootstrap, topic string, limit time.Duration) error {
	c, err := net.Dial("tcp", bootstrap)
	if err != nil {
		return err
	}
	defer c.Close()
	req := kmsg.NewPtrProduceRequest()
	req.Version, req.Acks, req.TimeoutMillis = 8, -1, 10_000
	req.Topics = []kmsg.ProduceRequestTopic{{Topic: topic, Partitions: []kmsg.ProduceRequestTopicPartition{{Records: raw.PlainBatch("once")}}}}
	body, err := raw.Exchange(c, req, 1, limit)
	if err != nil {
		return err
	}
	resp := req.ResponseKind().(*kmsg.ProduceResponse)
	resp.Version = req.Version
	if err := resp.ReadFrom(body); err != nil {
		return err
	}
	p := resp.Topics[0].Partitions[0]
	if err = kerr.ErrorForCode(p.ErrorCode); err != nil && p.ErrorMessage != nil {
		err = fmt.Errorf("%w: %s", err, *p.ErrorMessage)
	}
	return err
}

// agentKilled kills the agent of a face: what has no key yet is refused with an error after
// which clients try again, nothing of it is stored, and it goes through once the agent is back.
func (w *world) agentKilled(t *testing.T, r *row, out *envoyFace, in face) {
	topic := w.topic(t, "agent", 1, nil)
	out.agent.Crash()
	begin := time.Now()
	err := produceOnce(out.bootstrap(), topic, produceWait+10*time.Second)
	took := time.Since(begin)
	if !kerr.IsRetriable(err) {
		t.Errorf("a Produce without an agent: %v, want an error after which clients try again", err)
	}
	if err == nil || !strings.Contains(err.Error(), "see that wasm-e2ee agent runs") {
		t.Errorf("the producer is told %v", err)
	}
	if took > produceWait+3*time.Second {
		t.Errorf("answered after %v, want at most %v", took, produceWait+3*time.Second)
	}
	r.note("%v after %.1f s", err, took.Seconds())
	sent := records.Generate(43, 200, clients.FranzGo.Shape, w.canaries)
	for i := range sent {
		sent[i].Partition = 0
	}
	job := clients.Job{Bootstrap: out.bootstrap(), Topic: topic, Group: topic, Records: sent, Count: len(sent)}
	produced := make(chan error, 1)
	go func() { produced <- clients.FranzGo.Produce(t.Context(), job) }()
	select {
	case err := <-produced:
		t.Errorf("produced without an agent: %v", err)
	case <-time.After(produceWait + time.Second):
	}
	if n := w.stored(t, topic); n != 0 {
		t.Errorf("%d records are stored that nobody had a key for", n)
	}
	for _, name := range []string{"agent_failures_total", "refusals_total.direction.seal.status.unavailable"} {
		if out.metric(name) == 0 {
			t.Errorf("%s is 0", name)
		}
	}
	if !strings.Contains(out.log(), "the agent cannot be reached") {
		t.Error("the log does not say that the agent is gone")
	}
	out.agent.Start(t)
	back := time.Now()
	if err := <-produced; err != nil {
		t.Fatalf("the agent is back: %v", err)
	}
	r.note("goes on %.1f s after it is back", time.Since(back).Seconds())
	job.Bootstrap = in.bootstrap()
	got, err := clients.FranzGo.Consume(t.Context(), job)
	if err == nil {
		err = records.Compare(sent, got, records.Times{}, false)
	}
	if err != nil {
		t.Error(err)
	}
}

// garbage opens n connections with what no client sends: each is closed, and a client beside
// them is served all the while.
func (w *world) garbage(t *testing.T, r *row, out *envoyFace, in face, n int, seed uint64) {
	topic := w.topic(t, "garbage", 3, nil)
	sent := records.Generate(61, 1000, clients.FranzGo.Shape, w.canaries)
	job := clients.Job{Bootstrap: out.bootstrap(), Topic: topic, Group: topic, Codec: "snappy", Records: sent, Count: len(sent), PerSecond: 500}
	healthy := make(chan error, 1)
	go func() { healthy <- clients.FranzGo.Produce(t.Context(), job) }()

	rng := rand.New(rand.NewPCG(seed, 1))
	kinds := raw.Garbage(rng)
	var names []string
	for name := range kinds {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names { // one by one: each counts
		before := out.closed()
		if err := closes(out.bootstrap(), kinds[name]); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !waits(5*time.Second, func() bool { return out.closed() > before }) {
			t.Errorf("%s: no metric counts the connection that was closed", name)
		}
	}
	before, memory := out.closed(), out.rss()
	const atOnce = 16
	var wg sync.WaitGroup
	work := make(chan string)
	for range atOnce {
		wg.Go(func() {
			for name := range work {
				if err := closes(out.bootstrap(), kinds[name]); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
	begin := time.Now()
	for i := range n {
		if t.Failed() {
			break
		}
		name := names[i%len(names)]
		work <- name
	}
	close(work)
	wg.Wait()
	took := time.Since(begin)
	if err := <-healthy; err != nil {
		t.Errorf("the healthy client: %v", err)
	}
	job.Bootstrap = in.bootstrap()
	got, err := clients.FranzGo.Consume(t.Context(), job)
	if err == nil {
		err = records.Compare(sent, got, records.Times{}, false)
	}
	if err != nil {
		t.Errorf("the healthy client's records: %v", err)
	}
	if !waits(10*time.Second, func() bool { return out.closed()-before >= int64(n) }) {
		t.Errorf("%d connections were closed, %d of them counted", n, out.closed()-before)
	}
	if !strings.Contains(out.log(), "connection closed") {
		t.Error("the log does not say that connections were closed")
	}
	r.note("%d connections in %.1f s", n, took.Seconds())
	r.note("memory %+d MB", (out.rss()-memory)>>20)
}

// waits reports whether a condition holds in time.
func waits(limit time.Duration, holds func() bool) bool {
	for deadline := time.Now().Add(limit); !holds(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// closes sends bytes over a connection of its own and wants it to be closed.
func closes(addr string, sends []byte) error {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := c.Write(sends); err != nil && !raw.IsReset(err) {
		return err
	}
	answer, err := io.ReadAll(io.LimitReader(c, 1<<20))
	if err != nil && !raw.IsReset(err) {
		return fmt.Errorf("the connection stays open (%d B answered): %w", len(answer), err)
	}
	return nil
}
