package e2e

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/host/process"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/nodes"
)

// expectRefusal runs the program, which must end by itself with exit code 1, and say each of
// the texts and a hint.
func expectRefusal(t *testing.T, texts []string, args ...string) {
	t.Helper()
	begin := time.Now()
	out, code := nodes.Run(t, args...)
	if code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	for _, text := range append(texts, "hint:") {
		if !strings.Contains(out, text) {
			t.Errorf("no %q in what it printed", text)
		}
	}
	if strings.Contains(out, "panic") || strings.Contains(out, "goroutine ") {
		t.Error("a stack instead of an error")
	}
	t.Logf("after %v: %s", time.Since(begin).Round(time.Millisecond), strings.TrimSpace(out))
}

// What an operator gets wrong ends in an error that names it and says what to do next.
func TestMistakesEndInAHint(t *testing.T) {
	b := sharedBroker(t)
	r := nodes.NewRealm(t)
	state := r.Enroll(t, nodes.Role{Produce: "op-*"})
	write := func(t *testing.T, text string) string {
		path := filepath.Join(t.TempDir(), "proxy.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := "bootstrap: [" + b.Bootstrap + "]\nlisten: 127.0.0.1:0\nstate: " + state + "\n"

	t.Run("a key of the configuration that does not exist", func(t *testing.T) {
		expectRefusal(t, []string{"polcy"}, "proxy", "--config", write(t, good+"polcy: {}\n"))
	})
	t.Run("a configuration that is not YAML", func(t *testing.T) {
		expectRefusal(t, []string{"proxy.yaml"}, "proxy", "--config", write(t, "bootstrap: [\n"))
	})
	t.Run("a configuration that is not there", func(t *testing.T) {
		expectRefusal(t, []string{"missing.yaml"}, "proxy", "--config", filepath.Join(t.TempDir(), "missing.yaml"))
	})
	t.Run("no bootstrap", func(t *testing.T) {
		expectRefusal(t, []string{"bootstrap"}, "proxy", "--config", write(t, "state: "+state+"\n"))
	})
	t.Run("a period that is no period", func(t *testing.T) {
		expectRefusal(t, []string{"soon"}, "proxy", "--config", write(t, good+"timing: {epoch: soon}\n"))
	})
	t.Run("a state that is not there", func(t *testing.T) {
		expectRefusal(t, []string{"nowhere.state"}, "proxy", "--config", nodes.Configuration(t, b.Bootstrap, filepath.Join(t.TempDir(), "nowhere.state"), nil))
	})
	t.Run("a state that cannot be written", func(t *testing.T) {
		// Not even root writes into a folder that is a file.
		expectRefusal(t, []string{"node.state"}, "proxy", "--config", nodes.Configuration(t, b.Bootstrap, filepath.Join(state, "node.state"), nil))
	})
	t.Run("a state that is damaged", func(t *testing.T) {
		raw, err := os.ReadFile(state)
		if err != nil {
			t.Fatal(err)
		}
		damaged := filepath.Join(t.TempDir(), "damaged.state")
		if err := os.WriteFile(damaged, raw[:len(raw)/2], 0o600); err != nil {
			t.Fatal(err)
		}
		expectRefusal(t, []string{"damaged.state"}, "proxy", "--config", nodes.Configuration(t, b.Bootstrap, damaged, nil))
	})
	t.Run("a state that a running sidecar has", func(t *testing.T) {
		busy := r.Enroll(t, nodes.Role{Produce: "op-*"})
		nodes.StartSidecar(t, b.Bootstrap, busy, nil)
		expectRefusal(t, []string{busy}, "proxy", "--config", nodes.Configuration(t, b.Bootstrap, busy, nil))
	})
	t.Run("a port that is taken", func(t *testing.T) {
		s := nodes.StartSidecar(t, b.Bootstrap, r.Enroll(t, nodes.Role{Produce: "op-*"}), nil)
		expectRefusal(t, []string{s.Addr}, "proxy", "--config", nodes.Configuration(t, b.Bootstrap, r.Enroll(t, nodes.Role{Produce: "op-*"}), nodes.Settings{"listen": s.Addr}))
	})
	t.Run("a node without a credential", func(t *testing.T) {
		waiting, _ := nodes.Request(t, nodes.Role{Produce: "op-*"})
		expectRefusal(t, []string{"credential"}, "proxy", "--config", nodes.Configuration(t, b.Bootstrap, waiting, nil))
	})
	t.Run("another node's credential", func(t *testing.T) {
		_, theirs := nodes.Request(t, nodes.Role{Produce: "op-*"})
		ours, _ := nodes.Request(t, nodes.Role{Produce: "op-*"})
		expectRefusal(t, []string{"node.cred"}, "enroll", "--state", ours, "--credential", r.Issue(t, theirs, ""))
	})
	t.Run("another realm's credential", func(t *testing.T) {
		// The node has one realm already; a renewal by another must not move it.
		ours, csr := nodes.Request(t, nodes.Role{Produce: "op-*"})
		nodes.MustRun(t, "enroll", "--state", ours, "--credential", r.Issue(t, csr, ""))
		foreign := nodes.NewRealm(t).Issue(t, csr, "")
		expectRefusal(t, []string{"node.cred"}, "enroll", "--state", ours, "--credential", foreign)
	})
	t.Run("a credential that is damaged", func(t *testing.T) {
		ours, csr := nodes.Request(t, nodes.Role{Produce: "op-*"})
		path := r.Issue(t, csr, "")
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		raw[len(raw)/2] ^= 1
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		expectRefusal(t, []string{"node.cred"}, "enroll", "--state", ours, "--credential", path)
	})
	t.Run("a credential that has ended", func(t *testing.T) {
		// It waits for an issuer, which is to give it the next one, and says so.
		ended := r.Enroll(t, nodes.Role{Produce: "op-*", Days: "0.00006"}) // 5.2 s
		time.Sleep(5500 * time.Millisecond)
		node := start(t, "an ended node", "proxy", "--config", nodes.Configuration(t, b.Bootstrap, ended, nil))
		expect(t, node, "the credential has ended")
		expect(t, node, "is `wasm-e2ee issuer` running")
		startIssuer(t, r, cluster(b.Bootstrap))
		expect(t, node, "msg=serving")
	})
	t.Run("a realm that exists", func(t *testing.T) {
		expectRefusal(t, []string{string(r)}, "realm", "init", "--dir", string(r))
	})
	t.Run("a request that is none", func(t *testing.T) {
		expectRefusal(t, []string{"proxy.yaml"}, "realm", "issue", "--dir", string(r), "--csr", write(t, "no request"), "--out", filepath.Join(t.TempDir(), "out"))
	})
	t.Run("a flag that does not exist", func(t *testing.T) {
		out, code := nodes.Run(t, "proxy", "--confg", "x")
		if code != 2 || !strings.Contains(out, "hint:") {
			t.Errorf("exit code %d, want 2 and a hint:\n%s", code, out)
		}
	})
}

// With no broker there, the sidecar says which address does not answer and what to check; it
// may end or keep trying.
func TestUnreachableBrokerIsNamed(t *testing.T) {
	r := nodes.NewRealm(t)
	const nobody = "127.0.0.1:1" // tcpmux, which nobody runs
	config := nodes.Configuration(t, nobody, r.Enroll(t, nodes.Role{Produce: "op-*"}), nil)
	p, err := process.Start(process.Spec{Name: "sidecar", Args: []string{nodes.Program(t), "proxy", "--config", config}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Kill()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for _, text := range []string{nobody, "hint"} {
		if err := p.WaitFor(ctx, text); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%s", strings.TrimSpace(p.Output()))
}
