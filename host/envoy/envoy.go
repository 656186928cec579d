// Package envoy writes the configuration of an unmodified Envoy that runs e2ee.wasm as a
// network filter: one listener for each broker and one to begin with, the filter in each, and
// the way to `wasm-e2ee agent`. It is made of the agent's own configuration file, what the
// cluster says of its brokers, and the public part of the node's state.
//
// No secret stands in it: Envoy prints its configuration on request (/config_dump). The pairing
// key comes from Envoy's environment (PROTOCOL.md §2.12).
package envoy

import (
	"errors"
	"fmt"

	"github.com/goccy/go-yaml"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/wasm-e2ee/wasm-e2ee/host/config"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// DefaultAdmin is where Envoy serves its statistics unless told otherwise.
const DefaultAdmin = "127.0.0.1:9901"

// A Spec is all that a configuration is made of.
type Spec struct {
	File    *config.File  // the agent's; listen, advertised_host, client_tls, produce_wait and policy are the data plane's
	Node    keyring.View  // realm and node
	Cluster kadm.Metadata // from Discover
	Module  Module
	Admin   string // IP:PORT on loopback, or unix:/path
	Envoy   string // the version that is to run it, as from Version; "" suits 1.37 to 1.40
}

// An object is a YAML mapping in the order in which a person reads it.
type object = yaml.MapSlice

// obj is the object of keys and values, which alternate. A value that is nil is left out.
func obj(pairs ...any) object {
	var o object
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != nil {
			o = append(o, yaml.MapItem{Key: pairs[i], Value: pairs[i+1]})
		}
	}
	return o
}

// typed is an object of one of Envoy's extensions.
func typed(name string, pairs ...any) object {
	return append(object{{Key: "@type", Value: "type.googleapis.com/" + name}}, obj(pairs...)...)
}

// Write returns the configuration, checked.
func Write(s Spec) ([]byte, error) {
	places, err := s.places()
	if err != nil {
		return nil, err
	}
	admin, err := address(s.Admin, true)
	if err != nil {
		return nil, fmt.Errorf("--admin: %w\nhint: its statistics and switches are for this machine alone: %s, or unix:/path", err, DefaultAdmin)
	}
	if err := places.apart(s.Admin, s.File.Agent.Listen, s.File.Metrics.Listen); err != nil {
		return nil, err
	}
	filter, err := s.filter(places)
	if err != nil {
		return nil, err
	}
	clusters, err := s.clusters()
	if err != nil {
		return nil, err
	}
	text, err := yaml.MarshalWithOptions(obj(
		"node", obj("id", "wasm-e2ee-"+s.Node.Node.String(), "cluster", "kafka-"+s.Cluster.Cluster),
		"admin", obj("address", admin, "ignore_global_conn_limit", true),
		"overload_manager", overload(),
		"stats_config", obj("stats_tags", tags()),
		"static_resources", obj("listeners", s.listeners(places, filter), "clusters", clusters),
	), yaml.UseLiteralStyleIfMultiline(true), yaml.WithComment(comments()))
	if err != nil {
		return nil, fmt.Errorf("envoy configuration: %w", err)
	}
	out := append([]byte(s.head()), text...)
	if err := Check(out); err != nil {
		return nil, fmt.Errorf("%w (hint: that is a bug of `wasm-e2ee envoy config`)", err)
	}
	return out, nil
}

// head is what a person reads first.
func (s *Spec) head() string {
	return fmt.Sprintf(`# Envoy as the data plane of node %s
# in realm %s, for the Kafka cluster %s.
# Module: SHA-256 %x
#
# Write this file anew where a broker joins or moves: clients that are told of a broker without
# a listener here are disconnected, never sent around the encryption.
# Start:  WASM_E2EE_PAIRING_KEY="$(cat pairing.key)" envoy -c THIS-FILE
`, s.Node.Node, s.Node.Realm, s.Cluster.Cluster, s.Module.Sum)
}

// comments stand where somebody might change what must not change.
func comments() yaml.CommentMap {
	say := func(lines ...string) []*yaml.Comment { return []*yaml.Comment{yaml.HeadComment(lines...)} }
	return yaml.CommentMap{
		"$.static_resources.listeners[0].filter_chains[0].filters[0].typed_config": say(
			" The module, the same in every listener.",
			" failure_policy: never FAIL_OPEN. Where the module cannot run, Envoy would leave the filter out,",
			" and send what clients produce to the brokers as plaintext.",
			" host_env_keys: the pairing key, which stands nowhere in this file. Envoy prints it on request."),
		"$.stats_config": say(" Labels for Prometheus: wasm_e2ee_refusals_total{direction=\"seal\",status=\"pending\"}."),
	}
}

// overload bounds the connections of clients, each of which takes memory of Envoy's and of the
// module's.
func overload() object {
	return obj(
		"refresh_interval", "0.25s",
		"resource_monitors", []any{obj(
			"name", "envoy.resource_monitors.global_downstream_max_connections",
			"typed_config", typed("envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
				"max_active_downstream_connections", maxConnections),
		)},
	)
}

// A label of one of the module's metrics becomes part of its name in Envoy, as
// .direction.seal.status.pending. Each tag takes its part out again: the first group of its
// expression is what leaves the name, the second is the value. Metrics of Prometheus lose the
// wasmcustom prefix by themselves.
func tags() []any {
	var out []any
	for _, label := range []string{"direction", "status", "fault"} {
		out = append(out, obj("tag_name", label, "regex", `^wasmcustom\.wasm_e2ee_[a-z_]+(?:\.[a-z]+\.[a-z0-9_]+)*?(\.`+label+`\.([a-z0-9_]+))`))
	}
	return out
}

var errNoBrokers = errors.New("the cluster lists no broker\nhint: is it still starting?")
