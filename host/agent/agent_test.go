package agent

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
	"github.com/wasm-e2ee/wasm-e2ee/module/ratchet"
)

// quick is a timing under which everything happens within a test.
var quick = keyring.Timing{
	Epoch: 800 * time.Millisecond, Lead: 200 * time.Millisecond,
	PrekeyRotation: 500 * time.Millisecond, PrekeyGrace: 500 * time.Millisecond,
	Skew: 200 * time.Millisecond, Settle: 200 * time.Millisecond, Window: 600 * time.Millisecond,
	HardCap: time.Minute, Offline: time.Hour, MaxEpoch: time.Minute,
}

// patience is the deadline of what must happen soon.
const patience = 20 * time.Second

// A world is a realm on an embedded Kafka. Tests with worlds of their own run at once: most
// of their time is waiting for epochs to end.
type world struct {
	t      *testing.T
	c      *kfake.Cluster
	issuer *keyring.Issuer
	kafka  []kgo.Opt
	clock  func() time.Time // of agents that are started from now on; nil: the real one
}

func newWorld(t *testing.T, opts ...kfake.Opt) *world {
	t.Helper()
	t.Parallel()
	c := cluster(t, opts...)
	w := &world{t: t, c: c, issuer: newIssuer(t), kafka: []kgo.Opt{kgo.SeedBrokers(c.ListenAddrs()...)}}
	w.topic("orders", nil)
	return w
}

// newIssuer makes a realm.
func newIssuer(t *testing.T) *keyring.Issuer {
	t.Helper()
	root, err := keyring.NewRealm(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Now()
	issuer, err := root.CertifyIssuer(rand.Reader, at, at.Add(24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return issuer
}

func (w *world) topic(name string, configs map[string]string) {
	w.t.Helper()
	if err := w.c.CreateTopic(name, 2, configs); err != nil {
		w.t.Fatal(err)
	}
}

// enrol makes a node's state file.
func (w *world) enrol(roles wire.Roles, topics, groups []string) string {
	w.t.Helper()
	patterns := func(names []string) (out []wire.Pattern) {
		for _, n := range names {
			p, err := wire.ParsePattern(n)
			if err != nil {
				w.t.Fatal(err)
			}
			out = append(out, p)
		}
		return out
	}
	state, err := keyring.NewState(rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	csr := state.Node().CSR(keyring.Attributes{Roles: roles, Topics: patterns(topics), Groups: patterns(groups), OfflineAllow: time.Hour})
	at := time.Now()
	file, err := w.issuer.Issue(rand.Reader, csr, nil, keyring.Validity{NotBefore: at, NotAfter: at.Add(12 * time.Hour)})
	if err != nil {
		w.t.Fatal(err)
	}
	if err := state.Node().Install(file, at); err != nil {
		w.t.Fatal(err)
	}
	path := filepath.Join(w.t.TempDir(), "state")
	store := openStore(w.t, path)
	if err := store.Save(state.Marshal()); err != nil {
		w.t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		w.t.Fatal(err)
	}
	return path
}

// A running is an agent under way and what it erased.
type running struct {
	*Agent
	t    *testing.T
	stop func() // ends it; may be called again

	mu     sync.Mutex
	erased map[abi.Kid]bool
}

func (w *world) start(state string, timing keyring.Timing, change ...func(*Config)) *running {
	w.t.Helper()
	cfg := Config{Kafka: w.kafka, StateFile: state, Timing: timing, Log: slog.New(slog.NewTextHandler(testWriter{w.t}, nil))}
	for _, f := range change {
		f(&cfg)
	}
	a, err := Open(w.t.Context(), cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	if w.clock != nil {
		a.clock = w.clock
	}
	r := &running{Agent: a, t: w.t, erased: make(map[abi.Kid]bool)}
	a.OnErase(func(kids []abi.Kid) {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, k := range kids {
			r.erased[k] = true
		}
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				w.t.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			w.t.Error("Run does not return")
		}
	})
	w.t.Cleanup(r.stop)
	return r
}

func (r *running) ready() *running {
	r.t.Helper()
	select {
	case <-r.Ready():
	case <-time.After(patience):
		r.t.Fatal("not ready")
	}
	return r
}

func (r *running) lease(topic string) abi.Lease {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	l, err := r.Lease(ctx, topic)
	if err != nil {
		r.t.Fatalf("lease: %v", err)
	}
	if l.Topic != topic {
		r.t.Fatalf("lease for topic %q, want %q", l.Topic, topic)
	}
	return l
}

func (r *running) root(topic string, kid abi.Kid) (abi.Root, error) {
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	return r.Root(ctx, topic, 0, kid)
}

// opens fails unless the root gives the same leaf keys as the lease.
func (r *running) opens(l abi.Lease) {
	r.t.Helper()
	root, err := r.root(l.Topic, l.Kid)
	if err != nil {
		r.t.Fatalf("root of kid %x: %v", l.Kid, err)
	}
	if root.Kid != l.Kid || root.Topic != l.Topic {
		r.t.Fatalf("root %x of %q for lease %x of %q", root.Kid, root.Topic, l.Kid, l.Topic)
	}
	if !sameLeaf(l, root) {
		r.t.Fatalf("lease and root of kid %x have different leaf keys", l.Kid)
	}
}

func (r *running) refuses(topic string, kid abi.Kid, want abi.Status) {
	r.t.Helper()
	if _, err := r.root(topic, kid); !errors.Is(err, want) {
		r.t.Fatalf("root of kid %x: %v, want %q", kid, err, want)
	}
}

func (r *running) hasErased(kid abi.Kid) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.erased[kid]
}

// eventually polls until f holds.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !f() {
		if time.Now().After(deadline) {
			t.Fatalf("still not: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// testWriter logs through the test.
type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	defer func() { recover() }() // a line that comes after the test is nobody's
	w.t.Log(strings.TrimSuffix(string(b), "\n"))
	return len(b), nil
}

func sameLeaf(l abi.Lease, r abi.Root) bool {
	var stack ratchet.Stack
	var root ratchet.Root
	var sealing, opening ratchet.Node
	if !stack.Reset(l.Start, l.Level, (*ratchet.Node)(&l.Node)) {
		return false
	}
	i, ok := stack.Take(&sealing)
	root.Reset((*ratchet.Node)(&r.Root))
	return ok && root.Seek(i, &opening) && sealing == opening && sealing != ratchet.Node{}
}
