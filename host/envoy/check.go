package envoy

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/goccy/go-yaml"

	"github.com/wasm-e2ee/wasm-e2ee/abi/plugin"
)

// What Check looks at. Envoy itself looks at the rest.
type (
	document struct {
		Admin struct {
			Address place `yaml:"address"`
		} `yaml:"admin"`
		Resources struct {
			Listeners []struct {
				Name   string `yaml:"name"`
				Chains []struct {
					Filters []struct {
						Name   string     `yaml:"name"`
						Config filterType `yaml:"typed_config"`
					} `yaml:"filters"`
				} `yaml:"filter_chains"`
			} `yaml:"listeners"`
			Clusters []cluster `yaml:"clusters"`
		} `yaml:"static_resources"`
	}
	filterType struct {
		Cluster string  `yaml:"cluster"` // of tcp_proxy
		Wasm    *plugIn `yaml:"config"`  // of wasm
	}
	plugIn struct {
		FailurePolicy string `yaml:"failure_policy"`
		FailOpen      bool   `yaml:"fail_open"`
		Configuration struct {
			Value string `yaml:"value"`
		} `yaml:"configuration"`
		Restriction restriction `yaml:"capability_restriction_config"` // before Envoy 1.40
		VM          struct {
			Restriction restriction `yaml:"capability_restriction_config"`
			Environment struct {
				Keys   []string          `yaml:"host_env_keys"`
				Values map[string]string `yaml:"key_values"`
			} `yaml:"environment_variables"`
		} `yaml:"vm_config"`
	}
	restriction struct {
		Allowed map[string]any `yaml:"allowed_capabilities"`
	}
	cluster struct {
		Name   string    `yaml:"name"`
		Socket tlsClient `yaml:"transport_socket"`
		Match  []struct {
			Socket tlsClient `yaml:"transport_socket"`
		} `yaml:"transport_socket_matches"`
		Load struct {
			Endpoints []struct {
				Hosts []struct {
					Endpoint struct {
						Address place `yaml:"address"`
					} `yaml:"endpoint"`
				} `yaml:"lb_endpoints"`
			} `yaml:"endpoints"`
		} `yaml:"load_assignment"`
	}
	tlsClient struct {
		Name   string `yaml:"name"`
		Config struct {
			Common struct {
				Validation struct {
					CA    map[string]any `yaml:"trusted_ca"`
					Names []any          `yaml:"match_typed_subject_alt_names"`
				} `yaml:"validation_context"`
			} `yaml:"common_tls_context"`
		} `yaml:"typed_config"`
	}
	place struct {
		Socket struct {
			Address string `yaml:"address"`
		} `yaml:"socket_address"`
		Pipe struct {
			Path string `yaml:"path"`
		} `yaml:"pipe"`
	}
)

// local reports whether nobody else's machine reaches the place.
func (p place) local() bool {
	ip, err := netip.ParseAddr(p.Socket.Address)
	return p.Pipe.Path != "" || err == nil && ip.IsLoopback()
}

// Check refuses a configuration in which plaintext could leave, or a key could be had: what
// Envoy itself would accept. Each rule is an error of its own.
func Check(text []byte) error {
	var d document
	if err := yaml.Unmarshal(text, &d); err != nil {
		return fmt.Errorf("envoy configuration: %w", err)
	}
	clusters := map[string]cluster{}
	for _, c := range d.Resources.Clusters {
		clusters[c.Name] = c
	}
	var errs []error
	refuse := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("envoy configuration: "+format, args...))
	}
	if len(d.Resources.Listeners) == 0 {
		refuse("it has no listener")
	}
	if !d.Admin.Address.local() {
		refuse("admin is not on loopback: whoever reaches it can stop and drain this Envoy")
	}
	conf := ""
	for _, l := range d.Resources.Listeners {
		for _, chain := range l.Chains {
			if len(chain.Filters) != 2 || chain.Filters[0].Name != wasmFilter || chain.Filters[0].Config.Wasm == nil || chain.Filters[1].Name != tcpProxy {
				refuse("%s: its filters are not the module and then tcp_proxy: clients would reach a broker unencrypted", l.Name)
				continue
			}
			w := chain.Filters[0].Config.Wasm
			if w.FailOpen || w.FailurePolicy != "FAIL_RELOAD" && w.FailurePolicy != "FAIL_CLOSED" {
				refuse("%s: failure_policy is %q: with FAIL_OPEN a module that cannot run is left out, and plaintext is forwarded", l.Name, w.FailurePolicy)
			}
			if !slices.Equal(w.VM.Environment.Keys, []string{plugin.KeyVariable}) || len(w.VM.Environment.Values) > 0 {
				refuse("%s: the pairing key must come from Envoy's environment, and nothing else may", l.Name)
			}
			if len(w.Restriction.Allowed)+len(w.VM.Restriction.Allowed) == 0 {
				refuse("%s: the module's capabilities are not restricted", l.Name)
			}
			if conf == "" {
				conf = w.Configuration.Value
			}
			if w.Configuration.Value != conf {
				refuse("%s: its module is configured unlike the others", l.Name)
			}
			broker, ok := clusters[chain.Filters[1].Config.Cluster]
			if !ok {
				refuse("%s: there is no cluster %q", l.Name, chain.Filters[1].Config.Cluster)
			}
			if !broker.verified() {
				refuse("cluster %s: TLS to it believes every certificate, or every name", broker.Name)
			}
		}
	}
	if p, err := plugin.Parse([]byte(conf)); err != nil {
		errs = append(errs, err)
	} else if agent, ok := clusters[p.AgentCluster]; !ok || !agent.local() {
		refuse("the agent's cluster %q is not on this machine", p.AgentCluster)
	}
	return errors.Join(errs...)
}

// verified reports whether each TLS connection to the cluster proves whose it is.
func (c *cluster) verified() bool {
	sockets := []tlsClient{c.Socket}
	for _, m := range c.Match {
		sockets = append(sockets, m.Socket)
	}
	for _, s := range sockets {
		v := s.Config.Common.Validation
		if s.Name != "" && (len(v.CA) == 0 || len(v.Names) == 0) {
			return false
		}
	}
	return true
}

func (c *cluster) local() bool {
	for _, e := range c.Load.Endpoints {
		for _, h := range e.Hosts {
			if !h.Endpoint.Address.local() {
				return false
			}
		}
	}
	return len(c.Load.Endpoints) > 0
}
