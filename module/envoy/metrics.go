package envoy

import (
	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/plugin"
)

// A metric is one name of the host's, and what of it was told the host so far. Several
// workers add to one name, so each tells what changed: gauges are sums over them.
type metric struct {
	name  string
	kind  plugin.Metric
	value func(s *sample) uint64
	id    uint32
	told  uint64
	ok    bool // the host knows it
}

// A sample is what all metrics are read from at one time.
type sample struct {
	filter  [abi.NumCounters]uint64
	stats   Stats
	channel ChannelStats
	vm      vmStats
	open    uint64
}

// vmStats counts what becomes of connections.
type vmStats struct {
	connections uint64            // begun
	closed      map[string]uint64 // by us, by whose fault it was
}

// Whose fault it is that a connection was closed.
const (
	faultClient = "client" // sent what is not let through
	faultBroker = "broker" // likewise
	faultModule = "module" // a bug
)

func counter(name string, value func(s *sample) uint64) metric {
	return metric{name: plugin.MetricPrefix + name, kind: plugin.MetricCounter, value: value}
}

func gauge(name string, value func(s *sample) uint64) metric {
	return metric{name: plugin.MetricPrefix + name, kind: plugin.MetricGauge, value: value}
}

func filterCounter(name string, c abi.Counter) metric {
	return counter(name, func(s *sample) uint64 { return s.filter[c] })
}

// newMetrics returns all metrics. Names, labels and meanings are those of the sidecar
// (package host/metrics); those from closed_connections_total on are of this surface alone.
func newMetrics() []metric {
	all := []metric{
		filterCounter("sealed_batches_total", abi.CounterSealedBatches),
		filterCounter("sealed_records_total", abi.CounterSealedRecords),
		filterCounter("sealed_bytes_total", abi.CounterSealedBytes),
		filterCounter("opened_batches_total", abi.CounterOpenedBatches),
		filterCounter("opened_records_total", abi.CounterOpenedRecords),
		filterCounter("opened_bytes_total", abi.CounterOpenedBytes),
		filterCounter("passed_batches_total", abi.CounterPassedBatches),
		filterCounter("refused_batches_total", abi.CounterRefusedBatches),
		filterCounter("erased_keys_total", abi.CounterErased),
		gauge("installed_leases", func(s *sample) uint64 { return s.filter[abi.CounterLeases] }),
		gauge("installed_roots", func(s *sample) uint64 { return s.filter[abi.CounterRoots] }),
		counter("partitions_total.direction.seal", func(s *sample) uint64 { return s.stats.Sealed }),
		counter("partitions_total.direction.open", func(s *sample) uint64 { return s.stats.Opened }),
		counter("held_fetches_total", func(s *sample) uint64 { return s.stats.Held }),
		counter("refused_groups_total", func(s *sample) uint64 { return s.stats.Groups }),
		counter("connections_total", func(s *sample) uint64 { return s.vm.connections }),
		gauge("open_connections", func(s *sample) uint64 { return s.open }),
	}
	for status := abi.StatusMalformed; status < numStatuses; status++ {
		name := status.Name()
		if name == "" {
			continue
		}
		all = append(all,
			counter("refusals_total.direction.seal.status."+name, func(s *sample) uint64 { return s.stats.SealRefused[status] }),
			counter("refusals_total.direction.open.status."+name, func(s *sample) uint64 { return s.stats.OpenRefused[status] }),
			counter("skipped_batches_total.status."+name, func(s *sample) uint64 { return s.stats.Skipped[status] }))
	}
	for _, fault := range []string{faultClient, faultBroker, faultModule} {
		all = append(all, counter("closed_connections_total.fault."+fault, func(s *sample) uint64 { return s.vm.closed[fault] }))
	}
	return append(all,
		counter("topic_id_conflicts_total", func(s *sample) uint64 { return s.stats.TopicIDs }),
		counter("agent_handshakes_total", func(s *sample) uint64 { return s.channel.Handshakes }),
		counter("agent_calls_total", func(s *sample) uint64 { return s.channel.Calls }),
		counter("agent_failures_total", func(s *sample) uint64 { return s.channel.Failures }))
}

// define tells the host of every metric, so that all are there from 0 on.
func (v *VM) define() {
	v.metrics = newMetrics()
	missing := 0
	for i := range v.metrics {
		m := &v.metrics[i]
		if m.id, m.ok = v.host.Define(m.kind, m.name); !m.ok {
			missing++
		}
	}
	if missing > 0 {
		v.log(plugin.LevelWarn, "the proxy does not take metrics (hint: proxy_define_metric must be allowed)", "missing", missing)
	}
}

// measure tells the host what changed.
func (v *VM) measure() {
	p := v.plane
	v.tell(&sample{filter: p.filter.Counters(), stats: p.worker.Stats(), channel: p.channel.Stats(), vm: v.stats, open: uint64(len(v.connections))})
}

func (v *VM) tell(s *sample) {
	for i := range v.metrics {
		m := &v.metrics[i]
		if now := m.value(s); m.ok && now != m.told {
			v.host.Add(m.id, int64(now-m.told))
			m.told = now
		}
	}
}
