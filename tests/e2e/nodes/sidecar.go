package nodes

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/wasm-e2ee/wasm-e2ee/host/process"
)

// A Sidecar is a running `wasm-e2ee proxy`.
type Sidecar struct {
	*process.Process
	Addr  string        // the bootstrap address for clients
	Start time.Duration // from the start of the process until it served

	crashed bool // by the test
}

// Crash ends the sidecar as a power cut does.
func (s *Sidecar) Crash() {
	s.crashed = true
	s.Kill()
}

// Settings are keys of the configuration file over those that every process here has.
type Settings map[string]any

// Configuration writes a sidecar's configuration file and returns its path.
func Configuration(t testing.TB, bootstrap, state string, more Settings) string {
	t.Helper()
	all := Settings{"listen": "127.0.0.1:0", "cache_dir": Scratch("cache")}
	maps.Copy(all, more)
	return writeConfiguration(t, bootstrap, state, all)
}

func writeConfiguration(t testing.TB, bootstrap, state string, more Settings) string {
	t.Helper()
	all := Settings{"bootstrap": strings.Split(bootstrap, ","), "state": state}
	maps.Copy(all, more)
	b, err := yaml.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "node.yaml")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

var listening = regexp.MustCompile(`msg=serving.* listen=(\S+)`)

// StartSidecar starts a sidecar and waits until it serves. It is stopped when the test ends,
// and its log is shown if the test failed.
func StartSidecar(t testing.TB, bootstrap, state string, more Settings) *Sidecar {
	t.Helper()
	config := Configuration(t, bootstrap, state, more)
	bin := Program(t)
	begin := time.Now()
	p, err := process.Start(process.Spec{Name: "sidecar", Args: []string{bin, "proxy", "--config", config}})
	if err != nil {
		t.Fatal(err)
	}
	s := &Sidecar{Process: p}
	t.Cleanup(func() {
		code := s.Stop(15 * time.Second)
		if code != 0 && !s.crashed {
			t.Errorf("sidecar %s ended with exit code %d, want a clean end", s.Addr, code)
		}
		showLog(t, "sidecar "+s.Addr, p)
	})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := p.WaitFor(ctx, "msg=serving"); err != nil {
		t.Fatal(err)
	}
	s.Start = time.Since(begin)
	Poll(t, 5*time.Second, "the sidecar's address", func() bool {
		found := listening.FindStringSubmatch(p.Output())
		if found != nil {
			s.Addr = found[1]
		}
		return found != nil
	})
	return s
}

// showLog shows the end of a process's log if the test failed.
func showLog(t testing.TB, name string, p *process.Process) {
	if !t.Failed() {
		return
	}
	out := p.Output()
	t.Logf("%s (exit code %d) logged:\n%s", name, p.ExitCode(), out[max(0, len(out)-6000):])
}
