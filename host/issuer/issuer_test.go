package issuer

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

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/agent"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// patience is the deadline of what must happen soon.
const patience = 30 * time.Second

// A realm is an issuer's key and book, and a cluster.
type realm struct {
	t      *testing.T
	kafka  []kgo.Opt
	root   *keyring.Root
	issuer *keyring.Issuer
	book   string
	log    logBook
}

func newRealm(t *testing.T) *realm {
	t.Helper()
	t.Parallel()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, "orders"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	r := &realm{t: t, kafka: []kgo.Opt{kgo.SeedBrokers(c.ListenAddrs()...)}, book: filepath.Join(t.TempDir(), BookFile)}
	r.root, err = keyring.NewRealm(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	if r.issuer, err = r.root.CertifyIssuer(rand.Reader, now.Add(-time.Minute), now.Add(24*time.Hour)); err != nil {
		t.Fatal(err)
	}
	return r
}

// ticket makes one for a credential of the given validity.
func (r *realm) ticket(roles wire.Roles, validity time.Duration) *wire.Ticket {
	r.t.Helper()
	want := keyring.Attributes{Roles: roles, Topics: []wire.Pattern{{Name: "orders"}}, OfflineAllow: time.Hour}
	if roles.Has(wire.RoleConsume) {
		want.Groups = []wire.Pattern{{Name: "billing"}}
	}
	var ticket *wire.Ticket
	now := time.Now()
	err := Update(r.t.Context(), r.book, func(b *keyring.Book) {
		var err error
		if ticket, err = b.NewTicket(rand.Reader, r.issuer, want, now.Add(time.Hour), validity, now); err != nil {
			r.t.Error(err)
		}
	})
	if err != nil || ticket == nil {
		r.t.Fatal(err)
	}
	return ticket
}

// serve runs the issuer until stop or the test's end.
func (r *realm) serve(fresh time.Duration) (stop func()) {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	log := slog.New(slog.NewTextHandler(&r.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	go func() {
		done <- Run(ctx, Config{Issuer: r.issuer, Book: r.book, Kafka: r.kafka, Fresh: fresh, Log: log})
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				r.t.Errorf("issuer: %v", err)
			}
		case <-time.After(patience):
			r.t.Error("the issuer does not end")
		}
		if r.t.Failed() {
			r.t.Log(r.log.String())
		}
	})
	r.t.Cleanup(stop)
	return stop
}

// enrol gets a state file for a ticket.
func (r *realm) enrol(ticket *wire.Ticket) string {
	r.t.Helper()
	path := filepath.Join(r.t.TempDir(), "state")
	if err := r.enrolAt(r.t.Context(), path, ticket); err != nil {
		r.t.Fatal(err)
	}
	return path
}

func (r *realm) enrolAt(ctx context.Context, path string, ticket *wire.Ticket) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	store, err := agent.OpenStore(path)
	if err != nil {
		return err
	}
	return errors.Join(agent.Enrol(ctx, r.kafka, store, ticket, slog.New(slog.NewTextHandler(&r.log, nil))), store.Close())
}

// state reads a state file that no process uses.
func (r *realm) state(path string) *keyring.State {
	r.t.Helper()
	store, err := agent.OpenStore(path)
	if err != nil {
		r.t.Fatal(err)
	}
	defer store.Close()
	s, err := store.LoadState()
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

// watch follows the roster and keeps what the last records of each type were.
func (r *realm) watch() *watcher {
	r.t.Helper()
	log, err := agent.OpenRosterLog(r.t.Context(), r.kafka, slog.New(slog.DiscardHandler))
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	w := &watcher{RosterLog: log, lineages: map[wire.NodeID]uint32{}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		log.Run(ctx, w.apply)
	}()
	r.t.Cleanup(func() { cancel(); <-done; log.Close() })
	return w
}

type watcher struct {
	*agent.RosterLog
	mu        sync.Mutex
	lineages  map[wire.NodeID]uint32
	authority *wire.AuthorityState
}

func (w *watcher) apply(_, value []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if c, err := wire.ParseCredential(value); err == nil {
		w.lineages[c.Node] = max(w.lineages[c.Node], c.Lineage)
	}
	if a, err := wire.ParseAuthorityState(value); err == nil {
		w.authority = a
	}
}

func (w *watcher) lineage(id wire.NodeID) uint32 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lineages[id]
}

func (w *watcher) state() *wire.AuthorityState {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.authority
}

// A logBook is a log that a test reads.
type logBook struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logBook) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logBook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !f() {
		if time.Now().After(deadline) {
			t.Fatalf("still not: %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// quick is a timing under which everything happens within a test.
var quick = keyring.Timing{
	Epoch: 800 * time.Millisecond, Lead: 200 * time.Millisecond,
	PrekeyRotation: 500 * time.Millisecond, PrekeyGrace: 500 * time.Millisecond,
	Skew: 200 * time.Millisecond, Settle: 200 * time.Millisecond, Window: 600 * time.Millisecond,
	HardCap: time.Minute, Offline: time.Hour, MaxEpoch: time.Minute,
}

// run has an agent at work on a state file.
func (r *realm) run(path string) *agent.Agent {
	r.t.Helper()
	a, err := agent.Open(r.t.Context(), agent.Config{Kafka: r.kafka, StateFile: path, Timing: quick, Log: slog.New(slog.NewTextHandler(&r.log, nil))})
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	r.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Errorf("agent: %v", err)
		}
	})
	return a
}

// TestNodesEnrolAndRenewWhileKeysFlow has a producer and a consumer of two tickets renew
// their keys twice, and every lease open all the while.
func TestNodesEnrolAndRenewWhileKeysFlow(t *testing.T) {
	r := newRealm(t)
	r.serve(0)
	const validity = 8 * time.Second
	produce, consume := r.enrol(r.ticket(wire.RoleProduce, validity)), r.enrol(r.ticket(wire.RoleConsume|wire.RoleShare, validity))
	nodes := []wire.NodeID{r.state(produce).Node().ID(), r.state(consume).Node().ID()}
	w := r.watch()
	cons, prod := r.run(consume), r.run(produce)
	for _, a := range []*agent.Agent{cons, prod} {
		select {
		case <-a.Ready():
		case <-time.After(patience):
			t.Fatalf("not ready\n%s", r.log.String())
		}
	}
	opened := 0
	eventually(t, "renewed twice", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		l, err := prod.Lease(ctx, "orders")
		if err != nil {
			t.Fatalf("after %d leases: %v\n%s", opened, err, r.log.String())
		}
		if _, err := cons.Root(ctx, "orders", 0, l.Kid); err != nil {
			t.Fatalf("after %d leases: root: %v\n%s", opened, err, r.log.String())
		}
		opened++
		return w.lineage(nodes[0]) >= 2 && w.lineage(nodes[1]) >= 2
	})
	if s := r.log.String(); strings.Contains(s, "alarm=") || strings.Contains(s, "has ended") {
		t.Error(s)
	}
}

// TestTheIssuerMayComeAndGo ends it after each of its steps.
func TestTheIssuerMayComeAndGo(t *testing.T) {
	r := newRealm(t)
	ticket := r.ticket(wire.RoleProduce, time.Hour)
	path := filepath.Join(t.TempDir(), "state")
	done := make(chan error, 1)
	go func() { done <- r.enrolAt(t.Context(), path, ticket) }()
	w := r.watch()
	stop := r.serve(0)
	eventually(t, "answered", func() bool { return strings.Contains(r.log.String(), "the issuer answered") })
	stop()
	r.serve(0)
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(patience):
		t.Fatal("not enrolled")
	}
	id := r.state(path).Node().ID()
	eventually(t, "on the roster", func() bool { w.mu.Lock(); defer w.mu.Unlock(); _, ok := w.lineages[id]; return ok })
}

func TestOneIssuerServesABook(t *testing.T) {
	r := newRealm(t)
	r.serve(0)
	eventually(t, "issuing", func() bool { return strings.Contains(r.log.String(), "issuing") })
	err := Run(t.Context(), Config{Issuer: r.issuer, Book: r.book, Kafka: r.kafka, Log: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), "another process serves") {
		t.Errorf("a second one: %v", err)
	}
}

// TestAForkIsRevokedOnTheRoster has two copies of one state ask for two keys.
func TestAForkIsRevokedOnTheRoster(t *testing.T) {
	r := newRealm(t)
	r.serve(0)
	path := r.enrol(r.ticket(wire.RoleProduce, time.Hour))
	w := r.watch()
	id := r.state(path).Node().ID()
	for i := range 2 {
		rec, err := r.state(path).Renew(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Write(t.Context(), []keyring.Record{rec}); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			eventually(t, "the first is renewed", func() bool { return w.lineage(id) == 1 })
		}
	}
	eventually(t, "both are revoked", func() bool { a := w.state(); return a != nil && len(a.Revoked) == 2 })
	if s := r.log.String(); strings.Count(s, "alarm=fork") != 1 || !strings.Contains(s, "level=ERROR") {
		t.Errorf("no alarm, or more than one:\n%s", s)
	}
}

// TestAuthorityStateStaysFresh and goes on from what the book has when the issuer was away.
func TestAuthorityStateStaysFresh(t *testing.T) {
	r := newRealm(t)
	w := r.watch()
	stop := r.serve(time.Hour)
	eventually(t, "the first state", func() bool { return w.state() != nil })
	stop()
	r.serve(time.Millisecond)
	eventually(t, "the next ones", func() bool { return w.state().Seq >= 2 })
	first := w.state()
	if first.Realm != r.root.Realm() {
		t.Errorf("realm %v", first.Realm)
	}
}

func TestAnEnrolmentThatIsCutShortSaysWhatItWaitedFor(t *testing.T) {
	r := newRealm(t)
	ctx, cancel := context.WithTimeoutCause(t.Context(), 500*time.Millisecond, errors.New("gave up"))
	defer cancel()
	err := r.enrolAt(ctx, filepath.Join(t.TempDir(), "state"), r.ticket(wire.RoleProduce, time.Hour))
	if err == nil || !strings.Contains(err.Error(), "gave up") || !strings.Contains(err.Error(), "wasm-e2ee issuer") {
		t.Errorf("error %v", err)
	}
}

// TestBookIsSharedByProcesses makes tickets from several at once, as `realm ticket` does
// beside a running issuer.
func TestBookIsSharedByProcesses(t *testing.T) {
	r := newRealm(t)
	var wg sync.WaitGroup
	ids := make(chan wire.TicketID, 16)
	for range cap(ids) {
		wg.Go(func() { ids <- r.ticket(wire.RoleProduce, time.Hour).ID })
	}
	wg.Wait()
	close(ids)
	var size int
	if err := Update(t.Context(), r.book, func(b *keyring.Book) { size = len(b.Tickets()) }); err != nil {
		t.Fatal(err)
	}
	if size != cap(ids) {
		t.Errorf("%d tickets in the book, want %d", size, cap(ids))
	}
}

// TestANodeWhoseCredentialEndedComesBack starts a node after its credential's end, while no
// issuer runs: it waits, and works once one does.
func TestANodeWhoseCredentialEndedComesBack(t *testing.T) {
	r := newRealm(t)
	stop := r.serve(0)
	path := r.enrol(r.ticket(wire.RoleConsume, 2*time.Second))
	stop()
	eventually(t, "ended", func() bool { return r.state(path).Node().Check(time.Now()) != nil })
	a := r.run(path)
	eventually(t, "says so", func() bool { return strings.Contains(r.log.String(), "the credential has ended") })
	select {
	case <-a.Ready():
		t.Fatal("a node whose credential has ended is ready")
	default:
	}
	r.serve(0)
	select {
	case <-a.Ready():
	case <-time.After(patience):
		t.Fatalf("not ready\n%s", r.log.String())
	}
}
