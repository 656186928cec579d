package nodes

import (
	"context"
	"maps"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/host/process"
)

// An Agent is a `wasm-e2ee agent`, which may be restarted on its state.
type Agent struct {
	*process.Process
	KeyFile string // the pairing key
	Listen  string // unix:/path or HOST:PORT
	Config  string // the configuration file

	killed bool
	log    string // of those before this one
}

// NewAgent makes the pairing key and the configuration of an agent that listens at listen, and
// starts it. It is stopped when the test ends, and its log is shown if the test failed.
func NewAgent(t testing.TB, bootstrap, state, listen string, more Settings) *Agent {
	t.Helper()
	a := &Agent{Listen: listen, KeyFile: filepath.Join(t.TempDir(), "pairing.key")}
	MustRun(t, "agent", "pair", "--out", a.KeyFile)
	all := Settings{"agent": map[string]string{"listen": listen, "pairing_key_file": a.KeyFile}}
	maps.Copy(all, more)
	a.Config = writeConfiguration(t, bootstrap, state, all)
	a.Start(t)
	t.Cleanup(func() {
		if code := a.Stop(15 * time.Second); code != 0 && !a.killed {
			t.Errorf("agent %s ended with exit code %d, want a clean end", a.Listen, code)
		}
		showLog(t, "agent "+a.Listen, a.Process)
	})
	return a
}

// Start starts the agent, which is not running, and waits until it serves keys.
func (a *Agent) Start(t testing.TB) {
	t.Helper()
	if a.Process != nil {
		a.log += a.Output()
	}
	p, err := process.Start(process.Spec{Name: "agent", Args: []string{Program(t), "agent", "--config", a.Config}})
	if err != nil {
		t.Fatal(err)
	}
	a.Process, a.killed = p, false
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 30*time.Second)
	defer cancel()
	if err := p.WaitFor(ctx, `msg="serving keys to data planes"`); err != nil {
		t.Fatal(err)
	}
}

// Crash ends the agent as a power cut does.
func (a *Agent) Crash() {
	a.killed = true
	a.Kill()
}

// Log is what the agent has logged, over all its starts.
func (a *Agent) Log() string { return a.log + a.Output() }

// Realm is the realm id that the agent's log names, 32 hexadecimal digits.
func (a *Agent) Realm(t testing.TB) string {
	t.Helper()
	_, rest, ok := strings.Cut(a.Output(), " realm=")
	if id, _, _ := strings.Cut(rest, " "); ok {
		return id
	}
	t.Fatalf("agent %s: no realm in its log", a.Listen)
	return ""
}
