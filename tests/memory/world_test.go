//go:build linux

package memory

import (
	"bufio"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/agent"
	"github.com/wasm-e2ee/wasm-e2ee/host/config"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// timing is short, so that a run sees epochs and prekeys come and go.
var timing = config.Timing{
	Epoch: 3 * time.Second, Lead: 500 * time.Millisecond,
	PrekeyRotation: 2 * time.Second, PrekeyGrace: time.Second,
	Skew: 500 * time.Millisecond, Settle: 500 * time.Millisecond, Window: time.Second,
	HardCap: time.Hour, Offline: time.Hour,
}

const (
	topic = "orders"
	group = "readers"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A world is a cluster and a realm.
type world struct {
	t      *testing.T
	addr   string
	dir    string
	module string
	issuer *keyring.Issuer
}

func newWorld(t *testing.T, module []byte) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), module: t.TempDir()}
	must(t, os.WriteFile(filepath.Join(w.module, "e2ee.wasm"), module, 0o600))
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, topic))
	must(t, err)
	t.Cleanup(cluster.Close)
	w.addr = cluster.ListenAddrs()[0]
	root, err := keyring.NewRealm(rand.Reader)
	must(t, err)
	w.issuer, err = root.CertifyIssuer(rand.Reader, time.Now(), time.Now().Add(3*time.Hour))
	must(t, err)
	return w
}

// enrol makes a node's state file in a directory of its own, and returns the file's path and
// the identity's seed.
func (w *world) enrol(name string, want keyring.Attributes) (path string, seed []byte) {
	w.t.Helper()
	state, err := keyring.NewState(rand.Reader)
	must(w.t, err)
	defer state.Wipe()
	want.Topics, want.OfflineAllow = []wire.Pattern{{Name: topic}}, time.Hour
	file, err := w.issuer.Issue(rand.Reader, state.Node().CSR(want), nil, keyring.Validity{NotBefore: time.Now(), NotAfter: time.Now().Add(2 * time.Hour)})
	must(w.t, err)
	must(w.t, state.Node().Install(file, time.Now()))
	path = filepath.Join(w.dir, name, "state")
	must(w.t, os.Mkdir(filepath.Dir(path), 0o700))
	store, err := agent.OpenStore(path)
	must(w.t, err)
	must(w.t, errors.Join(store.SaveState(state), store.Close()))
	b, err := os.ReadFile(path)
	must(w.t, err)
	return path, b[len(keyring.StateMagic):][:32]
}

// A node is a sidecar in a process of its own.
type node struct {
	t     *testing.T
	name  string
	state string
	addr  string
	cmd   *exec.Cmd
	stdin io.WriteCloser
	out   *bufio.Scanner
	log   logBook
}

// A logBook keeps what a process logs.
type logBook struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logBook) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logBook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// start runs a sidecar from a build of this test, with more of an environment.
func (w *world) start(binary, name, state string, env ...string) *node {
	w.t.Helper()
	n := &node{t: w.t, name: name, state: state, cmd: exec.Command(binary)}
	n.cmd.Env = append(os.Environ(), envBootstrap+"="+w.addr, envState+"="+state, envModule+"="+w.module)
	n.cmd.Env = append(n.cmd.Env, env...)
	n.cmd.Stderr = &n.log
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var err error
	n.stdin, err = n.cmd.StdinPipe()
	must(w.t, err)
	stdout, err := n.cmd.StdoutPipe()
	must(w.t, err)
	n.out = bufio.NewScanner(stdout)
	must(w.t, n.cmd.Start())
	w.t.Cleanup(func() {
		_ = n.cmd.Process.Kill()
		_ = n.cmd.Wait()
		if w.t.Failed() {
			w.t.Logf("%s:\n%s", name, n.log.String())
		}
	})
	if !n.out.Scan() {
		w.t.Fatalf("%s does not start:\n%s", name, n.log.String())
	}
	n.addr = n.out.Text()
	return n
}

// tell gives the child a command and waits until it has done it.
func (n *node) tell(command string) {
	n.t.Helper()
	if _, err := fmt.Fprintln(n.stdin, command); err != nil || !n.out.Scan() {
		n.t.Fatalf("%s ended: %v\n%s", n.name, err, n.log.String())
	}
}

// scan searches the process and its state's directory while the process stands still.
func (n *node) scan(s *search) []hit {
	n.t.Helper()
	must(n.t, n.cmd.Process.Signal(syscall.SIGSTOP))
	defer n.cmd.Process.Signal(syscall.SIGCONT)
	hits, sizes, err := s.inMemory(n.cmd.Process.Pid)
	if errors.Is(err, os.ErrPermission) {
		if os.Getenv("CI") == "true" {
			n.t.Fatalf("the memory of a child cannot be read here: %v", err)
		}
		n.t.Skipf("the memory of a child cannot be read here: %v; allow ptrace (kernel.yama.ptrace_scope=1, or the capability SYS_PTRACE in a container)", err)
	}
	must(n.t, err)
	if sizes[inLinear] == 0 || sizes[inProcess] == 0 {
		n.t.Errorf("%s: searched %v bytes: something was not looked at", n.name, sizes)
	}
	return append(hits, s.inDirectory(n.t, filepath.Dir(n.state))...)
}

// file is the present state file.
func (n *node) file() []byte {
	n.t.Helper()
	b, err := os.ReadFile(n.state)
	must(n.t, err)
	return b
}
