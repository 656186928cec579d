package envoy

import (
	"context"
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/flow"
)

// while runs a flow of numbered records, from clients behind one face to two groups behind
// another, while something happens, and for a while afterwards: every record comes to both
// groups, none is stored twice or as plaintext, and no leaf seals two batches.
func (w *world) while(t *testing.T, r *row, name string, out, in face, perSecond int, happens func(ctx context.Context)) {
	t.Helper()
	const partitions = 6
	f := flow.New(w.topic(t, name, partitions, nil), partitions, 7)
	f.Producers = 4
	var members []*flow.Member
	var names []string
	for _, g := range flow.BothProtocols(t, w.bootstraps()[0], f.Topic) {
		names = append(names, g.Name)
		for range 2 {
			m := &flow.Member{Group: g, Flow: f, Bootstrap: in.bootstrap()}
			m.Join(t)
			t.Cleanup(m.Leave)
			members = append(members, m)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	produced := make(chan error, 1)
	go func() { produced <- f.Produce(ctx, out.bootstrap(), perSecond) }()
	happens(ctx)
	cancel()
	if err := <-produced; err != nil {
		t.Errorf("producing: %v", err)
	}
	for _, name := range names {
		f.Await(t, name)
	}
	flow.LeaveAll(members)
	repeated := f.Check(t, names...)
	batches, epochs := w.ledger(t, f.Topic)
	r.note("%d records in %d batches under %d epochs, %d repeated", f.Produced, batches, epochs, repeated)
}

// pause lets a flow go on for a while.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// brokerKilled kills the broker under a flow and starts it again.
func (w *world) brokerKilled(t *testing.T, r *row, out, in face) {
	w.while(t, r, "broker", out, in, 200, func(ctx context.Context) {
		pause(ctx, 3*time.Second)
		node := w.broker.Nodes[0]
		node.Process.Kill()
		pause(ctx, 2*time.Second)
		if err := w.broker.Restart(ctx, node); err != nil {
			t.Error(err)
		}
		pause(ctx, 5*time.Second)
	})
}

// agentsKilled kills both agents under a flow, one after the other, and starts them again.
func (w *world) agentsKilled(t *testing.T, r *row, out, in *envoyFace) {
	w.while(t, r, "agents", out, in, 200, func(ctx context.Context) {
		for _, f := range []*envoyFace{out, in} {
			pause(ctx, 2*time.Second)
			f.agent.Crash()
			pause(ctx, 4*time.Second)
			f.agent.Start(t)
		}
		pause(ctx, 5*time.Second)
	})
}

// envoysKilled kills both Envoys under a flow, and starts them again.
func (w *world) envoysKilled(t *testing.T, r *row, out, in *envoyFace) {
	w.while(t, r, "killed", out, in, 200, func(ctx context.Context) {
		for _, f := range []*envoyFace{out, in} {
			pause(ctx, 2*time.Second)
			f.Crash()
			f.Restart(t)
		}
		pause(ctx, 5*time.Second)
	})
}

// drained has both Envoys drain their listeners under a flow, stops them and starts them again.
func (w *world) drained(t *testing.T, r *row, out, in *envoyFace) {
	w.while(t, r, "drained", out, in, 200, func(ctx context.Context) {
		for _, f := range []*envoyFace{out, in} {
			pause(ctx, 2*time.Second)
			if err := f.Post("/drain_listeners?graceful"); err != nil {
				t.Error(err)
			}
			pause(ctx, 6*time.Second) // longer than they take
			if code := f.Stop(10 * time.Second); code != 0 {
				t.Errorf("%s ended with exit code %d", f, code)
			}
			f.Restart(t)
		}
		pause(ctx, 5*time.Second)
	})
}

// restartedHot replaces both Envoys under a flow.
func (w *world) restartedHot(t *testing.T, r *row, out, in *envoyFace) {
	w.while(t, r, "hot", out, in, 200, func(ctx context.Context) {
		for _, f := range []*envoyFace{out, in} {
			pause(ctx, 2*time.Second)
			f.HotRestart(t)
		}
		pause(ctx, 5*time.Second)
	})
}
