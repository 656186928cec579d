package config

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
)

// Agent is where `wasm-e2ee agent` gives keys to data planes, and to which. A sidecar does not
// look at it.
type Agent struct {
	Listen         string `yaml:"listen"`           // unix:/path, or IP:PORT on loopback
	PairingKeyFile string `yaml:"pairing_key_file"` // from `wasm-e2ee agent pair`
}

// CheckAgent says what an agent misses in the file.
func (f *File) CheckAgent() error {
	if f.Agent.Listen == "" || f.Agent.PairingKeyFile == "" {
		return errors.New("agent.listen and agent.pairing_key_file are needed\nhint: agent: {listen: unix:/run/wasm-e2ee/agent.sock, pairing_key_file: pairing.key}, and `wasm-e2ee agent pair --out pairing.key` makes the key")
	}
	return nil
}

// check refuses what other machines could reach: who is not paired gets nothing, but can ask.
func (a *Agent) check() error {
	if a.Listen == "" {
		return nil
	}
	if path, unix := strings.CutPrefix(a.Listen, "unix:"); unix {
		if !filepath.IsAbs(path) {
			return fmt.Errorf("agent.listen: %q is not an absolute path behind unix:", path)
		}
		return nil
	}
	if addr, err := netip.ParseAddrPort(a.Listen); err != nil || !addr.Addr().IsLoopback() {
		return fmt.Errorf("agent.listen: %q is neither unix:/path nor a port of loopback\nhint: unix:/run/wasm-e2ee/agent.sock or 127.0.0.1:9465; an agent serves its own machine", a.Listen)
	}
	return nil
}
