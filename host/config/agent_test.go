package config

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestAnAgentServesItsOwnMachineAlone(t *testing.T) {
	for _, listen := range []string{"127.0.0.1:9465", "'[::1]:9465'", "unix:/run/agent.sock"} {
		f, err := read(t, least+"agent: {listen: "+listen+", pairing_key_file: pairing.key}\n")
		if err != nil || f.CheckAgent() != nil {
			t.Errorf("%s: %v", listen, err)
		} else if !filepath.IsAbs(f.Agent.PairingKeyFile) {
			t.Errorf("%s is not beside the file", f.Agent.PairingKeyFile)
		}
	}
	for _, listen := range []string{"0.0.0.0:9465", "192.0.2.1:9465", ":9465", "'9465'", "localhost:9465", "unix:agent.sock", "'unix:'"} {
		if _, err := read(t, least+"agent: {listen: "+listen+", pairing_key_file: pairing.key}\n"); err == nil || !strings.Contains(err.Error(), "agent.listen") {
			t.Errorf("%s: %v", listen, err)
		}
	}
}

func TestAnAgentNeedsAPlaceAndAKey(t *testing.T) {
	for _, text := range []string{"", "agent: {listen: 127.0.0.1:1}\n", "agent: {pairing_key_file: pairing.key}\n"} {
		f, err := read(t, least+text)
		if err != nil {
			t.Fatal(err) // a sidecar does not look at it
		}
		if err := f.CheckAgent(); err == nil || !strings.Contains(err.Error(), "\nhint: ") {
			t.Errorf("%q: %v", text, err)
		}
	}
}
