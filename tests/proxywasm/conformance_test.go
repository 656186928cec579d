package proxywasm

import (
	"fmt"
	"log/slog"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wasm-e2ee/wasm-e2ee/host/config"
	"github.com/wasm-e2ee/wasm-e2ee/host/sidecar"
)

// canary stands in every value, and must stand nowhere on the way to a broker.
const canary = "canary-c4n4ry"

// values are n values with the canary in them.
func values(prefix string, n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("%s %s %d", canary, prefix, i)
	}
	return all
}

// count is a metric of e2ee.wasm.
func count(p *Proxy, name string) uint64 { return p.Metrics()["wasm_e2ee_"+name] }

func TestClientsAreEncryptedEndToEnd(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ workers, brokers, records int }{{1, 1, 2000}, {2, 3, 2000}} {
		t.Run(fmt.Sprintf("%d workers %d brokers", c.workers, c.brokers), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, c.brokers, "orders")
			consumer := w.proxy(w.office(consuming).start(), c.workers, nil)
			producer := w.proxy(w.office(producing).start(), c.workers, nil)
			all := values("order", c.records)
			w.produce(w.client(producer.Addr(0), kgo.RecordPartitioner(kgo.RoundRobinPartitioner()), kgo.ProducerBatchCompression(kgo.NoCompression())), all)
			w.consume(w.reader(consumer.Addr(0)), all)
			if w.forwarded(canary) {
				t.Error("a broker was sent plaintext")
			}
			for _, m := range []struct {
				p    *Proxy
				name string
				want uint64
			}{{producer, "sealed_records_total", uint64(c.records)}, {consumer, "opened_records_total", uint64(c.records)},
				{producer, "opened_records_total", 0}, {producer, "refused_batches_total", 0}, {consumer, "refused_batches_total", 0}} {
				eventually(t, m.name, func() bool { return count(m.p, m.name) == m.want })
			}
			if a, b := count(producer, "sealed_batches_total"), count(consumer, "opened_batches_total"); a != b || a == 0 {
				t.Errorf("%d batches sealed, %d opened", a, b)
			}
		})
	}
}

// TestAProxyAndASidecarUnderstandEachOther has one at each end, both ways.
func TestAProxyAndASidecarUnderstandEachOther(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, "orders")
	start := func(file *config.File) string {
		s, err := sidecar.Start(t.Context(), file, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Wait() })
		return s.Addr().String()
	}
	proxyReads := w.proxy(w.office(consuming).start(), 1, nil)
	sidecarReads := start(w.file(consuming))
	proxyWrites := w.proxy(w.office(producing).start(), 1, nil)
	sidecarWrites := start(w.file(producing))
	a, b := values("from the proxy", 100), values("from the sidecar", 100)
	w.produce(w.client(proxyWrites.Addr(0)), a)
	w.produce(w.client(sidecarWrites), b)
	w.consume(w.client(proxyReads.Addr(0), kgo.ConsumeTopics("orders"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart())), append(a, b...))
	w.consume(w.client(sidecarReads, kgo.ConsumeTopics("orders"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart())), append(a, b...))
	if w.forwarded(canary) {
		t.Error("a broker was sent plaintext")
	}
}
