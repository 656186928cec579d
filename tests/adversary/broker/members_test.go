package broker

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/agent"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// A newcomer is a member of the consumer's group that comes late. It has an agent alone: what
// counts is which keys it gets.
type newcomer struct {
	*agent.Agent
	cred *wire.Credential
}

// join starts a newcomer, without waiting until it is ready.
func (w *world) join(name string) *newcomer {
	w.t.Helper()
	state := w.enrol(name, readers(wire.RoleConsume))
	file := w.file(state, "")
	// A share is for a prekey, which lives longer than what is kept back here.
	file.Timing.PrekeyRotation, file.Timing.PrekeyGrace, file.Timing.Window = 5*time.Minute, 5*time.Minute, 15*time.Minute
	a, err := agent.Open(w.t.Context(), agent.Config{Kafka: []kgo.Opt{kgo.SeedBrokers(w.addr)}, StateFile: state, Timing: file.KX1(),
		Log: slog.New(slog.NewTextHandler(w.log, nil)).With("sidecar", name)})
	must(w.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	w.runs(a, true)
	go func() { defer close(done); _ = a.Run(ctx) }()
	w.t.Cleanup(func() { w.runs(a, false); cancel(); <-done })
	n := &newcomer{Agent: a}
	n.cred = w.credentialOf(a.Snapshot().Node)
	return n
}

// credentialOf finds a node's credential among those that agents wrote.
func (w *world) credentialOf(node wire.NodeID) (found *wire.Credential) {
	w.t.Helper()
	if !eventually(10*time.Second, func() bool {
		for _, r := range w.seen.of(wire.TypeCredential) {
			if c, err := wire.ParseCredential(r.value); err == nil && c.Node == node {
				found = c
			}
		}
		return found != nil
	}) {
		w.t.Fatalf("node %v has not published its credential", node)
	}
	return found
}

func (n *newcomer) holds(kid abi.Kid) bool {
	return slices.ContainsFunc(n.Snapshot().Held, func(k keyring.KidView) bool { return k.Kid == kid })
}

// lacking makes two newcomers that lack the keys of n topics: the broker keeps back all that
// their peer shares with them, but for what the test itself writes, until lateReads.
func (tr *traffic) lacking(n int) {
	w := tr.w
	w.t.Helper()
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("late-%d", i)
	}
	var records []*kgo.Record
	for _, topic := range w.makeTopics(1, names...) {
		records = append(records, tr.records(place{topic, 0}, 1)...)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	must(w.t, tr.producer.ProduceSync(ctx, records...).FirstErr())

	var mu sync.Mutex
	hidden := map[string]bool{}
	tr.showShares = w.edit.keepBack(func(r *kafka.Record) bool {
		share := wire.Type(r.Key[0]) == wire.TypeKeyShare && !w.wrote(r.Value)
		if share {
			mu.Lock()
			defer mu.Unlock()
			hidden[string(r.Key)] = true
		}
		return share
	})
	w.late, w.leaver = w.join("late"), w.join("leaver")
	if !eventually(20*time.Second, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(hidden) >= 2*n
	}) {
		w.t.Fatalf("%d keys were shared, want %d:\n%s", len(hidden), 2*n, w.log.from(0))
	}
	for _, m := range []*newcomer{w.late, w.leaver} {
		select {
		case <-m.Ready():
		case <-time.After(20 * time.Second):
			w.t.Fatal("a newcomer is not ready")
		}
	}
	w.edit.did(keptBack)
	for _, r := range w.shares() {
		if w.late.holds(r.kid) || w.leaver.holds(r.kid) {
			w.t.Fatal("a newcomer has a key that was kept back")
		}
	}
}

// A share is a KeyShare that the consumer made for a newcomer.
type share struct {
	controlRecord
	*wire.KeyShare
	kid abi.Kid
}

func (w *world) shares() (out []share) {
	for _, r := range w.seen.of(wire.TypeKeyShare) {
		if k, err := wire.ParseKeyShare(r.value); err == nil {
			out = append(out, share{r, k, keyring.KidOf(k.Commit())})
		}
	}
	return out
}

// lacked returns a share that n has not got.
func (w *world) lacked(n *newcomer) *share {
	for _, s := range w.shares() {
		if s.Recipient == n.cred.Node && !n.holds(s.kid) {
			return &s
		}
	}
	return nil
}

// lateReads demands that a newcomer gets all that was shared with it once it is shown.
func (tr *traffic) lateReads() {
	w := tr.w
	tr.showShares()
	for s := w.lacked(w.late); s != nil; s = w.lacked(w.late) {
		if !w.again(&s.controlRecord) || !eventually(10*time.Second, func() bool { return w.late.holds(s.kid) }) {
			w.t.Errorf("kid %x did not arrive once the broker was honest:\n%s", s.kid, w.log.from(max(0, w.log.size()-10)))
			return
		}
	}
}

// revoke takes a node's credential back. From a second later on it is to get nothing.
func (w *world) revoke(n *newcomer) {
	w.edit.arm(nil)
	a := w.nextState(time.Hour, wire.Revocation{Serial: n.cred.Serial, At: uint64(time.Now().UnixMilli())})
	w.seen.mu.Lock()
	defer w.seen.mu.Unlock()
	w.seen.gone[n.cred.Node] = revoked{a.Seq, uint64(time.Now().Add(time.Second).UnixMilli())}
}

// leaverHasNothing checks that who was revoked holds no key of an epoch that began later.
func (w *world) leaverHasNothing() {
	w.seen.mu.Lock()
	at := w.seen.gone[w.leaver.cred.Node].at
	w.seen.mu.Unlock()
	held := w.leaver.Snapshot().Held
	for _, k := range held {
		if k.Start.UnixMilli() >= int64(at) {
			w.t.Errorf("who was revoked holds kid %x of an epoch that began %v later", k.Kid, k.Start.Sub(time.UnixMilli(int64(at))))
		}
	}
	later := 0 // epochs that others got
	for _, k := range w.consumer.Agent.Snapshot().Held {
		if k.Start.UnixMilli() >= int64(at) {
			later++
		}
	}
	if at == 0 || later == 0 {
		w.t.Errorf("nothing to judge by: revoked at %d, %d epochs since", at, later)
	}
}
