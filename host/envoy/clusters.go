package envoy

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
)

const (
	// agentCluster is Envoy's name for `wasm-e2ee agent`.
	agentCluster = "wasm_e2ee_agent"

	// connectTimeout to a broker is half of what clients give a connection to begin (10 s).
	connectTimeout = "5s"

	// agentIdle closes idle connections to the agent before the agent does (2 min), so that no
	// call meets a connection that is just closing.
	agentIdle = "60s"
)

// clusters are the brokers to begin with, each broker, and the agent.
func (s *Spec) clusters() ([]any, error) {
	ca, err := s.roots()
	if err != nil {
		return nil, err
	}
	bootstrap, err := s.kafka(bootstrapName, s.File.Bootstrap, ca)
	if err != nil {
		return nil, fmt.Errorf("bootstrap: %w", err)
	}
	out := []any{bootstrap}
	for _, b := range s.Cluster.Brokers {
		broker, err := s.kafka(brokerName(b.NodeID), []string{net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port)))}, ca)
		if err != nil {
			return nil, fmt.Errorf("broker %d: %w", b.NodeID, err)
		}
		out = append(out, broker)
	}
	agent, err := s.agent()
	return append(out, agent), err
}

// kafka is a cluster of brokers at HOST:PORT. With TLS each host has its own socket, since each
// proves its own name: Envoy checks no name unless it is told which.
func (s *Spec) kafka(name string, hosts []string, ca string) (object, error) {
	kind, family := "STATIC", any(nil)
	var endpoints, matches []any
	for i, text := range hosts {
		at, err := address(text, false)
		if err != nil {
			return nil, err
		}
		host, _, _ := net.SplitHostPort(text)
		if _, err := netip.ParseAddr(host); err != nil {
			// A name that leads to both kinds of address may be served on one of them.
			kind, family = "STRICT_DNS", "V4_PREFERRED"
		}
		endpoint := obj("endpoint", obj("address", at))
		if s.File.TLS.Enabled && len(hosts) > 1 {
			which := obj("host", strconv.Itoa(i))
			endpoint = append(endpoint, obj("metadata", obj("filter_metadata", obj("envoy.transport_socket_match", which)))...)
			matches = append(matches, obj("name", text, "match", which, "transport_socket", s.upstreamTLS(host, ca)))
		}
		endpoints = append(endpoints, endpoint)
	}
	var first, each any
	if s.File.TLS.Enabled { // without a first one, a host that matches nothing would be spoken to in plain
		host, _, _ := net.SplitHostPort(hosts[0])
		first = s.upstreamTLS(host, ca)
	}
	if matches != nil {
		each = matches
	}
	return obj(
		"name", name,
		"type", kind,
		"dns_lookup_family", family,
		"connect_timeout", connectTimeout,
		"per_connection_buffer_limit_bytes", bufferLimit,
		"upstream_connection_options", obj("tcp_keepalive", keepalive()),
		"load_assignment", obj("cluster_name", name, "endpoints", []any{obj("lb_endpoints", endpoints)}),
		"transport_socket", first,
		"transport_socket_matches", each,
	), nil
}

// upstreamTLS is a connection to the broker host, which has to prove that name.
func (s *Spec) upstreamTLS(host, ca string) object {
	kind, sni := "DNS", any(host)
	if _, err := netip.ParseAddr(host); err == nil {
		kind, sni = "IP_ADDRESS", nil
	}
	return tlsSocket("UpstreamTlsContext",
		"sni", sni,
		"common_tls_context", obj(
			"tls_params", obj("tls_minimum_protocol_version", "TLSv1_2", "tls_maximum_protocol_version", "TLSv1_3"),
			"tls_certificates", certificate(s.File.TLS.Cert, s.File.TLS.Key),
			"validation_context", obj(
				"trusted_ca", obj("filename", ca),
				"match_typed_subject_alt_names", []any{obj("san_type", kind, "matcher", obj("exact", host))}),
		))
}

// systemRoots are where Linux systems and macOS keep what they trust: Envoy trusts nobody by itself, and
// with no roots it would believe every broker.
var systemRoots = []string{
	"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem",
	"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "/etc/ssl/cert.pem",
}

// roots is the PEM file of who is trusted to name brokers, "" without TLS.
func (s *Spec) roots() (string, error) {
	if !s.File.TLS.Enabled || s.File.TLS.CA != "" {
		return s.File.TLS.CA, nil
	}
	for _, path := range systemRoots {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", errors.New("tls.ca is not set, and this system's roots were not found\nhint: tls: {enabled: true, ca: FILE} in the configuration")
}

// agent is the way to `wasm-e2ee agent`. Whether it is there is checked, so that its absence
// shows in a metric (membership_healthy) and not only when a key is asked for.
func (s *Spec) agent() (object, error) {
	at, err := address(s.File.Agent.Listen, true)
	if err != nil {
		return nil, fmt.Errorf("agent.listen: %w", err)
	}
	return obj(
		"name", agentCluster,
		"type", "STATIC",
		"connect_timeout", "1s",
		"load_assignment", obj("cluster_name", agentCluster, "endpoints", []any{obj("lb_endpoints", []any{obj("endpoint", obj("address", at))})}),
		"health_checks", []any{obj("timeout", "1s", "interval", "10s", "unhealthy_threshold", 1, "healthy_threshold", 1, "tcp_health_check", object{})},
		"typed_extension_protocol_options", obj("envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
			typed("envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
				"common_http_protocol_options", obj("idle_timeout", agentIdle),
				"explicit_http_config", obj("http_protocol_options", object{}))),
	), nil
}
