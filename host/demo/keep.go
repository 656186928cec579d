package demo

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/host/config"
	"github.com/wasm-e2ee/wasm-e2ee/host/exposure"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
	"github.com/wasm-e2ee/wasm-e2ee/tests/adversary"
)

// Names of what --keep leaves, beside a state file and a configuration for each node.
const copyFile = "copy-1.state"

// folder makes the place for state files: one that is removed at the end, or, to be kept, dir.
func (s *stage) folder(dir string) error {
	if dir == "" {
		var err error
		if s.dir, err = os.MkdirTemp("", "wasm-e2ee-demo-"); err == nil {
			s.onTeardown = append(s.onTeardown, func() { _ = os.RemoveAll(s.dir) })
		}
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("--keep: %w", err)
	}
	if held, err := os.ReadDir(dir); err != nil || len(held) > 0 {
		return errors.Join(fmt.Errorf("--keep %s: the directory is not empty\nhint: name a new one, so that no state file is written over", dir), err)
	}
	s.dir = dir
	return nil
}

// keepConfig writes a node's configuration, as its sidecar has it, for `wasm-e2ee exposure`,
// and on a cluster that is still there for `wasm-e2ee proxy`.
func (s *stage) keepConfig(name string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "bootstrap: [%s]\nstate: %s.state\ntiming:\n", s.bootstrap, name)
	for _, t := range []struct {
		key    string
		period time.Duration
	}{
		{"epoch", timing.Epoch}, {"lead", timing.Lead}, {"prekey_rotation", timing.PrekeyRotation}, {"prekey_grace", timing.PrekeyGrace},
		{"skew", timing.Skew}, {"settle", timing.Settle}, {"window", timing.Window}, {"hard_cap", timing.HardCap}, {"offline", timing.Offline},
	} {
		fmt.Fprintf(&b, "  %s: %s\n", t.key, t.period)
	}
	return os.WriteFile(filepath.Join(s.dir, name+".yaml"), []byte(b.String()), 0o600)
}

// keepAll leaves the copy that the attacker took, and configurations, and says what to do
// with them.
func (s *stage) keepAll(f *flow) error {
	if err := os.WriteFile(filepath.Join(s.dir, copyFile), f.middle, 0o600); err != nil {
		return err
	}
	for _, name := range []string{"producer", "consumer"} {
		if err := s.keepConfig(name); err != nil {
			return err
		}
	}
	at := func(name string) string { return filepath.Join(s.dir, name) }
	s.out.step("kept in %s: the state files of both nodes, their configurations, and copy 1. What copy 1 gives away:", s.dir)
	s.out.step("  wasm-e2ee exposure --config %s --state %s --as-of %s", at("consumer.yaml"), at(copyFile), f.copied.UTC().Format("2006-01-02T15:04:05.000Z"))
	s.out.step("and the consumer's state as it was left:")
	s.out.step("  wasm-e2ee exposure --config %s\n", at("consumer.yaml"))
	return nil
}

// exposureOf is what `wasm-e2ee exposure` says of a copied state, with the grants.
func exposureOf(state []byte, log *adversary.Log, copied time.Time) (*exposure.Report, error) {
	node, err := keyring.ParseState(state)
	if err != nil {
		return nil, err
	}
	defer node.Wipe()
	r, err := exposure.Of(node.View(), (&config.File{Timing: timing}).KX1(), log.Grants, copied)
	if err == nil {
		r.AddShares(log.Shares)
	}
	return r, err
}

// agrees reports whether an attack opened exactly the epochs that a report lists, of those
// with records.
func (s *stage) agrees(r *exposure.Report, attack *adversary.Report) bool {
	listed := map[string]bool{}
	for _, e := range r.Epochs {
		listed[e.Kid] = true
	}
	for _, p := range r.Prekeys {
		for _, e := range p.Epochs {
			listed[e.Kid] = true
		}
	}
	for _, e := range attack.Epochs {
		if e.Topic == s.topic && e.Records > 0 && listed[fmt.Sprintf("%x", e.Kid)] != (e.Opened > 0) {
			return false
		}
	}
	return true
}
