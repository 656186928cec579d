// Package envoy runs a real, unmodified Envoy with e2ee.wasm as its network filter, as
// `wasm-e2ee envoy config` configures it, beside a real agent and a real Kafka with real
// clients. The Envoys come from tests/e2e/deps.mk.
package envoy

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi/plugin"
	"github.com/wasm-e2ee/wasm-e2ee/host/process"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/deps"
)

// startTimeout bounds the start of an Envoy: V8 compiles the module before it is ready, once
// for each virtual machine, and other Envoys may be doing the same.
const startTimeout = 2 * time.Minute

// A Spec says what to run.
type Spec struct {
	Version string // of deps.mk
	Config  string // the file's path
	Admin   string // IP:PORT of the configuration
	KeyFile string // the pairing key
	Workers int
	Base    int // base id, unique on the machine: a hot restart is possible; 0: it is not
}

// An Envoy is a running Envoy. Its log is the module's too.
type Envoy struct {
	*process.Process
	Spec  Spec
	Start time.Duration // from the start of the process until it was ready

	epoch  int
	before string // what those before it logged
	killed bool
}

// Start starts an Envoy and waits until it is ready. It is stopped when the test ends, and the
// end of its log is shown if the test failed.
func Start(t testing.TB, s Spec) *Envoy {
	t.Helper()
	deps.Need(t, deps.Envoy(s.Version))
	e := &Envoy{Spec: s}
	e.launch(t)
	t.Cleanup(func() {
		e.Stop(5 * time.Second)
		if t.Failed() {
			out := e.Log()
			t.Logf("Envoy %s at %s (exit code %d) logged:\n%s\nand at last:\n%s", s.Version, s.Admin, e.ExitCode(), telling(out), out[max(0, len(out)-4000):])
		}
	})
	return e
}

// telling returns the first lines of a log that tell of something amiss.
func telling(log string) string {
	var lines []string
	for line := range strings.Lines(log) {
		if len(lines) < 100 && (strings.Contains(line, "connection closed") || strings.Contains(line, "fatal error") || strings.Contains(line, "errno") || strings.Contains(line, " failed: ")) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

func (e *Envoy) launch(t testing.TB) {
	t.Helper()
	key, err := os.ReadFile(e.Spec.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	args := []string{filepath.Join(deps.Dir(deps.Envoy(e.Spec.Version)), "envoy"), "-c", e.Spec.Config,
		"--concurrency", strconv.Itoa(e.Spec.Workers), "--log-level", "warning", "--component-log-level", "wasm:info",
		"--drain-time-s", "5", "--parent-shutdown-time-s", "8", "--drain-strategy", "immediate"}
	if e.Spec.Base == 0 {
		args = append(args, "--disable-hot-restart")
	} else {
		args = append(args, "--base-id", strconv.Itoa(e.Spec.Base), "--restart-epoch", strconv.Itoa(e.epoch))
	}
	begin := time.Now()
	p, err := process.Start(process.Spec{Name: "envoy " + e.Spec.Version, Args: args,
		Env: []string{plugin.KeyVariable + "=" + strings.TrimSpace(string(key))}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), startTimeout)
	defer cancel()
	if err := ready(ctx, p, e.Spec.Admin); err != nil {
		p.Kill()
		t.Fatalf("envoy %s: %v; it logged:\n%s", e.Spec.Version, err, p.Output())
	}
	e.Process, e.killed, e.Start = p, false, time.Since(begin)
}

// ready waits until the Envoy that p is answers on its administration port that it is live. One
// that it replaces may still be answering there, so its process is asked for.
func ready(ctx context.Context, p *process.Process, admin string) error {
	for ctx.Err() == nil {
		select {
		case <-p.Done():
			return fmt.Errorf("it ended with exit code %d", p.ExitCode())
		case <-time.After(50 * time.Millisecond):
		}
		if body, err := get(admin, "/ready"); err != nil || strings.TrimSpace(body) != "LIVE" {
			continue
		}
		if listens(p.Pid(), admin) {
			return nil
		}
	}
	return fmt.Errorf("not ready: %w", ctx.Err())
}

// Restart starts another Envoy in the place of one that has ended.
func (e *Envoy) Restart(t testing.TB) {
	t.Helper()
	e.before += e.Output()
	e.epoch = 0 // there is none to take over from
	e.launch(t)
}

// HotRestart starts an Envoy beside the running one, which hands its listeners over, drains,
// and ends; it waits for both.
func (e *Envoy) HotRestart(t testing.TB) {
	t.Helper()
	old := e.Process
	e.epoch++
	e.launch(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := old.Wait(ctx); err != nil {
		t.Errorf("the Envoy that was replaced: %v", err)
	}
	e.before += old.Output()
}

// Crash ends the Envoy as a power cut does.
func (e *Envoy) Crash() {
	e.killed = true
	e.Kill()
}

// Log is what this Envoy and those before it logged.
func (e *Envoy) Log() string { return e.before + e.Output() }

// Post asks the administration port for something that changes its state, such as
// "/drain_listeners?graceful".
func (e *Envoy) Post(path string) error {
	r, err := http.Post("http://"+e.Spec.Admin+path, "", nil)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		return fmt.Errorf("POST %s: %s", path, r.Status)
	}
	return nil
}

// Stats are the counters and gauges whose names begin with prefix, without it.
func (e *Envoy) Stats(prefix string) (map[string]int64, error) {
	text, err := get(e.Spec.Admin, "/stats")
	if err != nil {
		return nil, err
	}
	all := map[string]int64{}
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), ": ")
		name, ours := strings.CutPrefix(name, prefix)
		n, err := strconv.ParseInt(value, 10, 64)
		if ok && ours && err == nil {
			all[name] = n
		}
	}
	return all, nil
}

// get is the administration port's answer.
func get(admin, path string) (string, error) {
	client := http.Client{Timeout: 10 * time.Second}
	r, err := client.Get("http://" + admin + path)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	return string(b), err
}
