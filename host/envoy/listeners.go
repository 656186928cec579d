package envoy

import (
	"fmt"
	"slices"
	"strconv"

	"maps"
)

const (
	// maxConnections of clients at a time, over all listeners.
	maxConnections = 20000

	// bufferLimit in bytes is what Envoy holds of one connection in each direction before it
	// reads no more. Frames are put together in the module, not there.
	bufferLimit = 1 << 20

	// idleTimeout is above the 9 minutes after which clients close an idle connection and the 10
	// after which brokers do, so that Envoy is not who cuts it.
	idleTimeout = "660s"

	// connectAttempts is how often a broker is tried while a client's connection waits: some 5 s
	// where it refuses, since one that restarts is soon back, and nothing like the 10 s after which
	// clients give a connection up. It also has what the client sends arrive before it is closed,
	// which the client then sees as a reset; a bare end some take for a wrong configuration
	// and try no more.
	connectAttempts = 12
)

// A networkFilter is the module's filter in a listener. There is one for all: a virtual machine
// has one configuration, and who changes it changes it everywhere.
type (
	networkFilter struct {
		Name   string  `yaml:"name"`
		Config *object `yaml:"typed_config,anchor=e2ee"`
	}
	sameFilter struct {
		Name   string  `yaml:"name"`
		Config *object `yaml:"typed_config,alias=e2ee"`
	}
)

const (
	wasmFilter = "envoy.filters.network.wasm"
	tcpProxy   = "envoy.filters.network.tcp_proxy"

	bootstrapName = "kafka_bootstrap" // of a listener and of its cluster
)

func brokerName(id int32) string { return "kafka_broker_" + strconv.Itoa(int(id)) }

// listeners are one to begin with and one for each broker.
func (s *Spec) listeners(p *places, filter object) []any {
	out := []any{s.listener(bootstrapName, p, p.bootstrap, networkFilter{wasmFilter, &filter})}
	for _, id := range slices.Sorted(maps.Keys(p.brokers)) {
		out = append(out, s.listener(brokerName(id), p, p.brokers[id], sameFilter{wasmFilter, &filter}))
	}
	return out
}

// listener passes what the module made of the clients' bytes to the cluster of the same name.
func (s *Spec) listener(name string, p *places, port int, filter any) object {
	return obj(
		"name", name,
		"address", socket(p.listen.String(), port),
		"per_connection_buffer_limit_bytes", bufferLimit,
		"tcp_keepalive", keepalive(),
		// A few connections that last for hours, each of which is work for one worker.
		"connection_balance_config", obj("exact_balance", object{}),
		"filter_chains", []any{obj(
			"filters", []any{filter, obj(
				"name", tcpProxy,
				"typed_config", typed("envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
					"stat_prefix", name, "cluster", name, "idle_timeout", idleTimeout,
					"max_connect_attempts", connectAttempts, "backoff_options", obj("base_interval", "0.25s", "max_interval", "1s")),
			)},
			"transport_socket", s.downstreamTLS(),
		)},
	)
}

// keepalive finds a peer that is gone without a word within 2 minutes.
func keepalive() object {
	return obj("keepalive_time", 60, "keepalive_interval", 10, "keepalive_probes", 6)
}

// downstreamTLS is what clients are served with, nil for plain connections.
func (s *Spec) downstreamTLS() any {
	if s.File.ClientTLS.Cert == "" {
		return nil
	}
	return tlsSocket("DownstreamTlsContext", "common_tls_context", obj(
		"tls_params", obj("tls_minimum_protocol_version", "TLSv1_2"),
		"tls_certificates", certificate(s.File.ClientTLS.Cert, s.File.ClientTLS.Key)))
}

func tlsSocket(context string, pairs ...any) object {
	return obj("name", "envoy.transport_sockets.tls",
		"typed_config", typed(fmt.Sprintf("envoy.extensions.transport_sockets.tls.v3.%s", context), pairs...))
}

// certificate is a list of one, nil for none.
func certificate(cert, key string) any {
	if cert == "" {
		return nil
	}
	return []any{obj("certificate_chain", obj("filename", cert), "private_key", obj("filename", key))}
}
