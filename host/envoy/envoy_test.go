package envoy

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/wasm-e2ee/wasm-e2ee/abi/plugin"
	"github.com/wasm-e2ee/wasm-e2ee/host/config"
)

var write = flag.Bool("write", false, "write testdata/*.yaml anew, for somebody to read the difference")

func TestConfigurationIsTheOneThatWasRead(t *testing.T) {
	for name, s := range map[string]Spec{
		"plain.yaml": spec(t, "bootstrap: [127.0.0.1:9092]\nagent: {listen: 127.0.0.1:9465, pairing_key_file: pairing.key}\n", 1),
		"tls.yaml": spec(t, "bootstrap: [broker-1.example.com:9092, 192.0.2.7:9092]\nlisten: 0.0.0.0:29092\nadvertised_host: envoy.example.com\nproduce_wait: 5s\n"+unixAgent+
			"tls: {enabled: true, ca: /etc/kafka/ca.pem, cert: /etc/kafka/client.pem, key: /etc/kafka/client.key}\nclient_tls: {cert: /etc/envoy/cert.pem, key: /etc/envoy/key.pem}\n"+
			"policy: {plain: ['metrics.*', audit], on_unreadable: skip}\n", 3),
	} {
		if name == "plain.yaml" {
			s.Envoy = "1.40.0"
		}
		got, err := Write(s)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		path := filepath.Join("testdata", name)
		if *write {
			if err := os.WriteFile(path, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is now\n%s\n(go test ./host/envoy -write, and read the difference)", name, got)
		}
	}
}

func TestBrokersAreAskedFor(t *testing.T) {
	for _, n := range []int{1, 3} {
		cluster, err := kfake.NewCluster(kfake.NumBrokers(n), kfake.ClusterID("c1"))
		if err != nil {
			t.Fatal(err)
		}
		defer cluster.Close()
		s := spec(t, "bootstrap: ["+cluster.ListenAddrs()[0]+"]\n"+unixAgent, 0)
		if s.Cluster, err = Discover(t.Context(), &s.File.Cluster); err != nil {
			t.Fatal(err)
		}
		text, err := Write(s)
		if err != nil {
			t.Fatal(err)
		}
		if s.Cluster.Cluster != "c1" || bytes.Count(text, []byte("tcp_proxy.v3")) != n+1 {
			t.Errorf("%d brokers of %s have\n%s", n, s.Cluster.Cluster, text)
		}
	}
}

func TestEveryBrokerHasItsOwnPort(t *testing.T) {
	for _, c := range []struct {
		ids  []int32
		want map[int32]int
	}{
		{[]int32{0, 1, 7}, map[int32]int{0: 19093, 1: 19094, 7: 19100}},
		{[]int32{1001, 1002}, map[int32]int{1001: 20094, 1002: 20095}},
		{[]int32{100001, 2}, map[int32]int{100001: 19094, 2: 19093}}, // no port is that large
	} {
		s := spec(t, "bootstrap: [b:9092]\n"+unixAgent, 0)
		for _, id := range c.ids {
			s.Cluster.Brokers = append(s.Cluster.Brokers, kadm.BrokerDetail{NodeID: id, Host: "b", Port: 1})
		}
		p, err := s.places()
		if err != nil {
			t.Error(err)
			continue
		}
		for id, port := range c.want {
			if p.brokers[id] != port {
				t.Errorf("of %v broker %d is at port %d, want %d", c.ids, id, p.brokers[id], port)
			}
		}
		if rule := p.addresses(); rule.BasePort != 0 || len(rule.ByID) != len(c.ids) {
			t.Errorf("brokers without a listener are given an address: %+v", rule)
		}
	}
}

// TestMistakesAreNamed shows what each mistake says.
func TestMistakesAreNamed(t *testing.T) {
	for text, want := range map[string]string{
		"listen: 0.0.0.0:19092\n":                                 "advertised_host",
		"listen: ':19092'\n":                                      "advertised_host",
		"listen: kafka.example.com:19092\n":                       "no IP address",
		"listen: 127.0.0.1:0\n":                                   "no port",
		"listen: 127.0.0.1:65535\n":                               "no port is left",
		"listen: 127.0.0.1:9901\n":                                "also a port for clients",
		"listen: 127.0.0.1:9899\n":                                "also a port for clients",
		"metrics: {listen: 127.0.0.1:19094}\n":                    "also a port for clients",
		"bootstrap: ['b:kafka']\n":                                "no port",
		"bootstrap: ['b:0']\n":                                    "no port",
		"listen: '[::1]:19092'\n":                                 "",
		"listen: localhost:19092\n":                               "",
		"bootstrap: ['[2001:db8::1]:9092', 'b.example.com:9092']": "",
	} {
		if !strings.HasPrefix(text, "bootstrap") {
			text = "bootstrap: [b:9092]\n" + text
		}
		_, err := Write(spec(t, text+"\n"+unixAgent, 1))
		if want == "" && err != nil {
			t.Errorf("%s: %v", text, err)
		} else if want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	s := spec(t, "bootstrap: [b:9092]\n"+unixAgent, 1)
	for _, admin := range []string{"0.0.0.0:9901", "9901", "envoy.example.com:9901", "unix:admin.sock", ""} {
		s.Admin = admin
		if _, err := Write(s); err == nil || !strings.Contains(err.Error(), "--admin") {
			t.Errorf("admin at %q: %v", admin, err)
		}
	}
	s.Admin, s.Cluster.Brokers = "unix:/run/envoy.sock", nil
	if _, err := Write(s); err == nil || !strings.Contains(err.Error(), "no broker") {
		t.Error(err)
	}
	if _, err := Discover(t.Context(), &config.Cluster{Bootstrap: []string{"127.0.0.1:1"}}); err == nil || !strings.Contains(err.Error(), "hint: ") {
		t.Errorf("nobody there: %v", err)
	}
	if _, err := ReadModule(t.Context(), "x", []byte("no module")); err == nil || !strings.Contains(err.Error(), "hint: ") {
		t.Error(err)
	}
}

// TestEveryHoleIsRefused edits a good configuration as somebody in a hurry might.
func TestEveryHoleIsRefused(t *testing.T) {
	good, err := Write(spec(t, "bootstrap: [broker:9092]\ntls: {enabled: true, ca: /ca.pem}\n"+unixAgent, 2))
	if err != nil {
		t.Fatal(err)
	}
	if err := Check(good); err != nil {
		t.Fatal(err)
	}
	for _, edit := range []struct{ from, to, want string }{
		{"FAIL_RELOAD", "FAIL_OPEN", "plaintext is forwarded"},
		{"failure_policy: FAIL_RELOAD", "fail_open: true", "plaintext is forwarded"},
		{wasmFilter, "envoy.filters.network.rbac", "unencrypted"},
		{plugin.KeyVariable + "\n", "HOME\n", "pairing key"},
		{"host_env_keys:", "key_values: {WASM_E2EE_PAIRING_KEY: abc}\n                  host_env_keys:", "pairing key"},
		{"allowed_capabilities:", "other_capabilities:", "not restricted"},
		{"address: 127.0.0.1\n      port_value: 9901", "address: 0.0.0.0\n      port_value: 9901", "admin"},
		{"path: /run/wasm-e2ee/agent.sock", "path: ''", "not on this machine"},
		{"trusted_ca:", "trusted_ca_of_nobody:", "every certificate"},
		{"match_typed_subject_alt_names:", "other_names:", "every name"},
		{`\"agent_cluster\":`, `\"agent_clusters\":`, "agent_clusters"},
		{"cluster: " + brokerName(1) + "\n", "cluster: nowhere\n", "nowhere"},
	} {
		bad := bytes.Replace(good, []byte(edit.from), []byte(edit.to), 1)
		if bytes.Equal(bad, good) {
			bad = bytes.Replace(good, []byte(strings.ReplaceAll(edit.from, `\"`, `"`)), []byte(strings.ReplaceAll(edit.to, `\"`, `"`)), 1)
		}
		if bytes.Equal(bad, good) {
			t.Errorf("%q is not in\n%s", edit.from, good)
		} else if err := Check(bad); err == nil || !strings.Contains(err.Error(), edit.want) {
			t.Errorf("%q instead of %q: %v", edit.to, edit.from, err)
		}
	}
}
