package metrics

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/channel"
	"github.com/wasm-e2ee/wasm-e2ee/host/agent"
	"github.com/wasm-e2ee/wasm-e2ee/host/lease"
	"github.com/wasm-e2ee/wasm-e2ee/host/proxy"
)

// prefix begins every name of ours.
const prefix = "wasm_e2ee_"

// Directions of a batch, as values of the label direction.
const (
	directionSeal = "seal" // Produce, on its way to the broker
	directionOpen = "open" // Fetch and ShareFetch, on its way back
)

// firstRefusal is the lowest status that refuses a batch, and maxStatus is above every number
// of abi's taxonomy (SPEC.md §5).
const (
	firstRefusal = abi.StatusMalformed
	maxStatus    = 64
)

// A sample is what one scrape sees. What the process does not have is zero, and has no metric.
type sample struct {
	agent   agent.Snapshot
	module  [abi.NumCounters]uint64
	proxy   proxy.Stats
	channel lease.Stats
	ready   bool // /readyz answers 200
	at      time.Time
}

// A family is one metric: its description, and how its values come out of a sample. Labels
// have few values, all known beforehand: no topic, partition, group or kid is one.
type family struct {
	name   string
	kind   prometheus.ValueType
	labels []string
	desc   *prometheus.Desc
	values func(s *sample, emit func(value float64, labels ...string))
}

func newFamily(kind prometheus.ValueType, name, help string, labels []string, values func(*sample, func(float64, ...string))) family {
	return family{prefix + name, kind, labels, prometheus.NewDesc(prefix+name, help, labels, nil), values}
}

func counter(name, help string, value func(s *sample) uint64) family {
	return newFamily(prometheus.CounterValue, name, help, nil, func(s *sample, emit func(float64, ...string)) { emit(float64(value(s))) })
}

func gauge(name, help string, value func(s *sample) float64) family {
	return newFamily(prometheus.GaugeValue, name, help, nil, func(s *sample, emit func(float64, ...string)) { emit(value(s)) })
}

// module is a counter that the module keeps (SPEC.md §4.5).
func module(name, help string, which abi.Counter) family {
	return counter(name, help, func(s *sample) uint64 { return s.module[which] })
}

// families are all of ours but build_info, by the part that a process has or has not. Their
// names are a contract: examples/sidecar/OPERATING.md lists them, and a data plane elsewhere
// gives the same ones the same meaning.
func families() []family {
	return slices.Concat(planeFamilies(), agentFamilies(), channelFamilies())
}

// planeFamilies are those of module and proxy.
func planeFamilies() []family {
	return []family{
		module("sealed_batches_total", "Record batches sealed.", abi.CounterSealedBatches),
		module("sealed_records_total", "Records in the batches sealed.", abi.CounterSealedRecords),
		module("sealed_bytes_total", "Bytes of the batches sealed, as clients sent them.", abi.CounterSealedBytes),
		module("opened_batches_total", "Record batches opened.", abi.CounterOpenedBatches),
		module("opened_records_total", "Records in the batches opened.", abi.CounterOpenedRecords),
		module("opened_bytes_total", "Bytes of the batches opened, as clients receive them.", abi.CounterOpenedBytes),
		module("passed_batches_total", "Record batches of plain topics, passed through.", abi.CounterPassedBatches),
		module("refused_batches_total", "Record batches that the module refused.", abi.CounterRefusedBatches),
		module("erased_keys_total", "Leases and roots erased from instances of the module.", abi.CounterErased),
		gauge("installed_leases", "Leases installed in instances of the module.", func(s *sample) float64 { return float64(s.module[abi.CounterLeases]) }),
		gauge("installed_roots", "Roots installed in instances of the module.", func(s *sample) float64 { return float64(s.module[abi.CounterRoots]) }),

		newFamily(prometheus.CounterValue, "refusals_total", "Partitions of requests and responses refused, by reason.", []string{"direction", "status"}, refusals),
		newFamily(prometheus.CounterValue, "partitions_total", "Partitions of requests and responses served whole.", []string{"direction"}, func(s *sample, emit func(float64, ...string)) {
			emit(float64(s.proxy.Sealed), directionSeal)
			emit(float64(s.proxy.Opened), directionOpen)
		}),
		newFamily(prometheus.CounterValue, "skipped_batches_total", "Record batches passed over because they cannot be opened, by reason.", []string{"status"}, func(s *sample, emit func(float64, ...string)) {
			statuses(func(status abi.Status, name string) { emit(float64(s.proxy.Skipped[status]), name) })
		}),
		counter("held_fetches_total", "Fetch responses that waited for a grant in vain and went out without the partition.", func(s *sample) uint64 { return s.proxy.Held }),
		counter("refused_groups_total", "Requests for a consumer group that the credential does not list.", func(s *sample) uint64 { return s.proxy.GroupsRefused }),
		counter("connections_total", "Client connections accepted.", func(s *sample) uint64 { return s.proxy.Connections }),
		gauge("open_connections", "Client connections open.", func(s *sample) float64 { return float64(s.proxy.Open) }),
	}
}

// agentFamilies are those of the agent, which every process has.
func agentFamilies() []family {
	return []family{
		counter("epochs_begun_total", "Epochs begun by this node, one for each topic.", func(s *sample) uint64 { return s.agent.EpochsBegun }),
		gauge("epochs", "Epochs in which this node seals or may.", func(s *sample) float64 { return float64(len(s.agent.Epochs)) }),
		counter("roots_received_total", "Topic secrets received.", func(s *sample) uint64 { return s.agent.RootsReceived }),
		counter("roots_erased_total", "Topic secrets erased.", func(s *sample) uint64 { return s.agent.RootsErased }),
		gauge("roots", "Topic secrets held.", func(s *sample) float64 { return float64(len(s.agent.Held)) }),
		gauge("oldest_root_age_seconds", "Time since the start of the oldest epoch whose topic secret is held; 0 with none.", oldestRoot),
		counter("prekeys_made_total", "Prekeys made.", func(s *sample) uint64 { return s.agent.PrekeysMade }),
		gauge("prekeys", "Prekeys held.", func(s *sample) float64 { return float64(len(s.agent.Prekeys)) }),
		newFamily(prometheus.CounterValue, "alarms_total", "Events that an honest cluster does not cause, by kind.", []string{"kind"}, alarms),

		gauge("ready", "1 where /readyz answers 200.", func(s *sample) float64 {
			if s.ready {
				return 1
			}
			return 0
		}),
		gauge("contact_timestamp_seconds", "When the control topics were last known to be read to their ends; 0 before.", func(s *sample) float64 { return unix(s.agent.Contact) }),
		gauge("credential_not_after_timestamp_seconds", "When the node's credential ends.", func(s *sample) float64 { return unix(s.agent.NotAfter) }),
		gauge("exposure_window_seconds", "What the leak of a node that keeps up exposes at most, by the timing: P.", func(s *sample) float64 { return s.agent.Period.Seconds() }),
	}
}

// channelFamilies are those of the lease channel, for data planes elsewhere.
func channelFamilies() []family {
	return []family{
		gauge("channels", "Key channels of data planes open.", func(s *sample) float64 { return float64(s.channel.Open) }),
		counter("channels_begun_total", "Key channels opened by data planes.", func(s *sample) uint64 { return s.channel.Begun }),
		counter("channel_handshakes_refused_total", "Handshakes of data planes that are not paired with this agent.", func(s *sample) uint64 { return s.channel.HandshakesRefused }),
		counter("channel_calls_refused_total", "Calls on key channels that are not open, or that broke one.", func(s *sample) uint64 { return s.channel.CallsRefused }),
		newFamily(prometheus.CounterValue, "channel_requests_total", "Requests of data planes served.", []string{"op"}, func(s *sample, emit func(float64, ...string)) {
			for _, op := range operations {
				emit(float64(s.channel.Served[op]), op.String())
			}
		}),
		newFamily(prometheus.CounterValue, "channel_refusals_total", "Requests of data planes not served, by reason; unavailable and pending are asked again.", []string{"op", "status"}, func(s *sample, emit func(float64, ...string)) {
			for _, op := range operations {
				statuses(func(status abi.Status, name string) { emit(float64(s.channel.Refused[op][status]), op.String(), name) })
			}
		}),
	}
}

// operations are the values of the label op.
var operations = []channel.Op{channel.OpLease, channel.OpRoot, channel.OpRenew, channel.OpOpened, channel.OpGroups}

// statuses goes through each that can refuse a batch, so that all are there from 0 on, and the
// first one shows in a rate.
func statuses(f func(status abi.Status, name string)) {
	for status := firstRefusal; status < maxStatus; status++ {
		if name := status.Name(); name != "" {
			f(status, name)
		}
	}
}

func refusals(s *sample, emit func(float64, ...string)) {
	statuses(func(status abi.Status, name string) {
		emit(float64(s.proxy.SealRefused[status]), directionSeal, name)
		emit(float64(s.proxy.OpenRefused[status]), directionOpen, name)
	})
}

func alarms(s *sample, emit func(float64, ...string)) {
	for _, kind := range agent.Alarms() {
		emit(float64(s.agent.Alarms[kind]), string(kind))
	}
}

func oldestRoot(s *sample) float64 {
	age := time.Duration(0)
	for i := range s.agent.Held {
		age = max(age, s.at.Sub(s.agent.Held[i].Start))
	}
	return age.Seconds()
}

// unix is a time in seconds, 0 for none.
func unix(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}
