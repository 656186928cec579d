package envoy

import (
	"encoding/json"
	"fmt"
	"net"
	"strconv"

	"github.com/wasm-e2ee/wasm-e2ee/abi/plugin"
)

// A way is a listener of the one Envoy, with a module or without.
type way struct {
	name   string
	module string // path; "": none
	sealed bool   // the module is an e2ee.wasm and is configured as one
	port   int
}

// object is one of Envoy's messages.
type object = map[string]any

const agentCluster = "agent"

// configuration is Envoy's: each way on a port of its own, all of them to the one sink. All
// have the same limits, those that `wasm-e2ee envoy config` writes.
func configuration(ways []way, sink, admin, agentSocket, realm string) ([]byte, error) {
	var listeners []object
	for _, w := range ways {
		tcpProxy := object{"name": "envoy.filters.network.tcp_proxy", "typed_config": object{
			"@type":       "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
			"stat_prefix": "sink", "cluster": "sink",
		}}
		filters := []object{tcpProxy}
		if w.module != "" {
			module, err := w.filter(realm)
			if err != nil {
				return nil, err
			}
			filters = []object{module, tcpProxy}
		}
		listeners = append(listeners, object{
			"name": w.name, "address": socketAddress("127.0.0.1", w.port),
			"per_connection_buffer_limit_bytes": 1 << 20,
			"filter_chains":                     []object{{"filters": filters}},
		})
	}
	sinkAddress, err := split(sink)
	if err != nil {
		return nil, err
	}
	adminAddress, err := split(admin)
	if err != nil {
		return nil, err
	}
	agent := cluster(agentCluster, object{"pipe": object{"path": agentSocket}})
	agent["typed_extension_protocol_options"] = object{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": object{
		"@type":                "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
		"explicit_http_config": object{"http_protocol_options": object{}},
	}}
	return json.MarshalIndent(object{
		"admin": object{"address": adminAddress},
		"static_resources": object{
			"listeners": listeners,
			"clusters":  []object{cluster("sink", sinkAddress), agent},
		},
	}, "", "  ")
}

// filter is a way's module.
func (w way) filter(realm string) (object, error) {
	conf := object{
		"name": w.name, "root_id": w.name, "failure_policy": "FAIL_CLOSED",
		"vm_config": object{"vm_id": w.name, "runtime": "envoy.wasm.runtime.v8",
			"code":                  object{"local": object{"filename": w.module}},
			"environment_variables": object{"host_env_keys": []string{plugin.KeyVariable}}},
	}
	if w.sealed {
		own := plugin.Config{Realm: realm, AgentCluster: agentCluster, Brokers: plugin.Brokers{Host: "127.0.0.1", BasePort: 1}}
		text, err := own.Append(nil)
		if err != nil {
			return nil, err
		}
		conf["configuration"] = object{"@type": "type.googleapis.com/google.protobuf.StringValue", "value": string(text)}
	}
	return object{"name": "envoy.filters.network.wasm", "typed_config": object{
		"@type": "type.googleapis.com/envoy.extensions.filters.network.wasm.v3.Wasm", "config": conf,
	}}, nil
}

func cluster(name string, address object) object {
	return object{"name": name, "type": "STATIC", "connect_timeout": "5s", "per_connection_buffer_limit_bytes": 1 << 20,
		"load_assignment": object{"cluster_name": name,
			"endpoints": []object{{"lb_endpoints": []object{{"endpoint": object{"address": address}}}}}}}
}

func socketAddress(host string, port int) object {
	return object{"socket_address": object{"address": host, "port_value": port}}
}

func split(address string) (object, error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", address, err)
	}
	return socketAddress(host, port), nil
}
