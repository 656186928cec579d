package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/wasm-e2ee/wasm-e2ee/tests/artifact"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/process"
)

// Everything that these tests know about the program's command line, configuration and log
// is in this file.

// program builds wasm-e2ee and e2ee.wasm beside it, once, and returns the program's path.
func program(t *testing.T) string {
	t.Helper()
	path, err := buildProgram()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var buildProgram = sync.OnceValues(func() (string, error) {
	dir := scratch("bin")
	path := filepath.Join(dir, "wasm-e2ee")
	if _, err := artifact.Build(filepath.Join(dir, "e2ee.wasm")); err != nil {
		return "", err
	}
	build := exec.Command("go", "build", "-o", path, "./host/cmd/wasm-e2ee")
	build.Dir = artifact.Root()
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build ./host/cmd/wasm-e2ee: %w\n%s", err, out)
	}
	return path, nil
})

// run runs the program to its end, within a minute, and returns what it printed and its exit
// code.
func run(t *testing.T, args ...string) (string, int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := process.Run(ctx, process.Spec{Name: "wasm-e2ee " + args[0], Args: append([]string{program(t)}, args...)})
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return out, exit.ExitCode()
	case err != nil:
		t.Fatal(err)
	}
	return out, 0
}

// mustRun is run for what has to succeed.
func mustRun(t *testing.T, args ...string) {
	t.Helper()
	if out, code := run(t, args...); code != 0 {
		t.Fatalf("wasm-e2ee %s: exit code %d\n%s", strings.Join(args, " "), code, out)
	}
}

// A realm is a directory that `realm init` made.
type realm string

func newRealm(t *testing.T) realm {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "realm")
	mustRun(t, "realm", "init", "--dir", dir)
	return realm(dir)
}

// A role is what a node asks its realm for; topics and groups are names, or prefixes that
// end in "*".
type role struct {
	produce, consume string
	groups           []string
	share            bool   // hands its groups' keys to other members
	days             string // validity; empty: the default
}

// request makes a node's state and its signing request.
func request(t *testing.T, r role) (state, csr string) {
	t.Helper()
	dir := t.TempDir()
	state, csr = filepath.Join(dir, "node.state"), filepath.Join(dir, "node.csr")
	args := []string{"enroll", "--state", state, "--csr", csr}
	if r.produce != "" {
		args = append(args, "--produce", r.produce)
	}
	if r.consume != "" {
		args = append(args, "--consume", r.consume)
	}
	for _, g := range r.groups {
		args = append(args, "--group", g)
	}
	if r.share {
		args = append(args, "--share")
	}
	mustRun(t, args...)
	return state, csr
}

// issue has the realm answer a request and returns the credential's path.
func (r realm) issue(t *testing.T, csr, days string) string {
	t.Helper()
	credential := filepath.Join(t.TempDir(), "node.cred")
	args := []string{"realm", "issue", "--dir", string(r), "--csr", csr, "--out", credential}
	if days != "" {
		args = append(args, "--days", days)
	}
	mustRun(t, args...)
	return credential
}

// enroll makes a node with a credential of the realm and returns its state file.
func (r realm) enroll(t *testing.T, want role) (state string) {
	t.Helper()
	state, csr := request(t, want)
	mustRun(t, "enroll", "--state", state, "--credential", r.issue(t, csr, want.days))
	return state
}

// A sidecar is a running `wasm-e2ee proxy`.
type sidecar struct {
	*process.Process
	addr  string        // the bootstrap address for clients
	start time.Duration // from the start of the process until it served

	crashed bool // by the test
}

// crash ends the sidecar as a power cut does.
func (s *sidecar) crash() {
	s.crashed = true
	s.Kill()
}

// settings are keys of the configuration file over those that every sidecar here has.
type settings map[string]any

// configuration writes a sidecar's configuration file and returns its path.
func configuration(t *testing.T, bootstrap, state string, more settings) string {
	t.Helper()
	all := settings{
		"bootstrap": strings.Split(bootstrap, ","),
		"listen":    "127.0.0.1:0",
		"state":     state,
		"cache_dir": scratch("cache"),
	}
	for k, v := range more {
		all[k] = v
	}
	b, err := yaml.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "proxy.yaml")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

var listening = regexp.MustCompile(`msg=serving.* listen=(\S+)`)

// startSidecar starts a sidecar and waits until it serves. It is stopped when the test ends,
// and its log is shown if the test failed.
func startSidecar(t *testing.T, bootstrap, state string, more settings) *sidecar {
	t.Helper()
	config := configuration(t, bootstrap, state, more)
	bin := program(t)
	begin := time.Now()
	p, err := process.Start(process.Spec{Name: "sidecar", Args: []string{bin, "proxy", "--config", config}})
	if err != nil {
		t.Fatal(err)
	}
	s := &sidecar{Process: p}
	t.Cleanup(func() {
		code := s.Stop(15 * time.Second)
		if code != 0 && !s.crashed {
			t.Errorf("sidecar %s ended with exit code %d, want a clean end", s.addr, code)
		}
		if !t.Failed() {
			return
		}
		out := s.Output()
		t.Logf("sidecar %s (exit code %d) logged:\n%s", s.addr, code, out[max(0, len(out)-6000):])
	})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := p.WaitFor(ctx, "msg=serving"); err != nil {
		t.Fatal(err)
	}
	s.start = time.Since(begin)
	poll(t, 5*time.Second, "the sidecar's address", func() bool {
		found := listening.FindStringSubmatch(p.Output())
		if found != nil {
			s.addr = found[1]
		}
		return found != nil
	})
	return s
}

// A link is where a producer and a consumer of one test connect.
type link struct {
	produce, consume string
	sidecars         []*sidecar
}

// direct is the control: both talk to the broker itself.
func direct(bootstrap string) link { return link{produce: bootstrap, consume: bootstrap} }

// sealed starts a producer's and a consumer's sidecar in a realm of their own, for the given
// topics and groups.
func sealed(t *testing.T, bootstrap, topics string, groups []string, more settings) link {
	t.Helper()
	r := newRealm(t)
	// The consumer first: what is produced before it is known is not for it.
	in := startSidecar(t, bootstrap, r.enroll(t, role{consume: topics, groups: groups}), more)
	out := startSidecar(t, bootstrap, r.enroll(t, role{produce: topics}), more)
	return link{produce: out.addr, consume: in.addr, sidecars: []*sidecar{out, in}}
}

// bothLinks runs a test over the control link and over sidecars. Topics that the test makes
// must begin with the prefix it is given; groups too.
func bothLinks(t *testing.T, bootstrap, prefix string, f func(t *testing.T, l link, prefix string)) {
	t.Run("direct", func(t *testing.T) { f(t, direct(bootstrap), prefix+"-direct") })
	t.Run("sealed", func(t *testing.T) {
		own := prefix + "-sealed"
		f(t, sealed(t, bootstrap, own+"*", []string{own + "*"}, nil), own)
	})
}

// pids are the process ids of the link's sidecars.
func (l link) pids() []int {
	var all []int
	for _, s := range l.sidecars {
		all = append(all, s.Pid())
	}
	slices.Sort(all)
	return all
}

// poll waits until a condition holds, and fails the test when it does not in time.
func poll(t *testing.T, limit time.Duration, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("after %v: not yet: %s", limit, what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
