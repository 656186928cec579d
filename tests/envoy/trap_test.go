package envoy

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/tests/artifact"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/nodes"
)

// Topics at which the module of trapping gives up: as the runtime does on a fatal error, which
// nothing can catch, and as a bug of ours does.
const (
	trapTopic  = "e2ee-trap"
	panicTopic = "e2ee-panic"
)

// trapping builds a module that fails at the two topics, and returns its path.
func trapping(t *testing.T) string {
	t.Helper()
	const seal = "	sealed, status := s.w.seal(q.name, q.partition.Index, q.partition.Records, now)\n"
	dir := t.TempDir()
	overlay, err := artifact.Overlay(dir, artifact.Edit{File: "module/envoy/produce.go", Old: seal, New: `	if q.name == "` + trapTopic + `" {
		select {}
	}
	if q.name == "` + panicTopic + `" {
		panic("on purpose")
	}
` + seal})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "e2ee.wasm")
	if _, err := artifact.Build(path, "-overlay="+overlay); err != nil {
		t.Fatal(err)
	}
	return path
}

// trapped has the module panic and trap under a flow: the connection that did it closes, with a
// trap all of its worker's do, a fresh module takes over, and nothing is lost.
func (w *world) trapped(t *testing.T, r *row, version string, in face) {
	out := w.startEnvoy(t, faceSpec{version: version, workers: 2, more: nodes.Settings{"module": trapping(t)}})
	for _, topic := range []string{trapTopic, panicTopic} {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		if _, err := w.adm.CreateTopic(ctx, 1, -1, nil, topic); err != nil {
			t.Fatal(err)
		}
		cancel()
	}
	reloads := func() int64 {
		all, _ := out.Stats("wasm.wasm-e2ee.")
		return all["vm_reload_success"]
	}
	w.while(t, r, "trapped", out, in, 200, func(ctx context.Context) {
		pause(ctx, 3*time.Second)
		if err := produceOnce(out.bootstrap(), panicTopic, 10*time.Second); err == nil {
			t.Error("a Produce at which the module panics was acknowledged")
		}
		nodes.Poll(t, 5*time.Second, "a count of what the bug closed", func() bool { return out.metric("closed_connections_total.fault.module") == 1 })
		for range 3 {
			before := reloads()
			if err := produceOnce(out.bootstrap(), trapTopic, 10*time.Second); err == nil {
				t.Error("a Produce at which the module traps was acknowledged")
			}
			if !waits(30*time.Second, func() bool {
				_ = closes(out.bootstrap(), []byte{0, 0, 0, 0}) // it is made for the next connection
				return reloads() > before
			}) {
				all, _ := out.Stats("wasm.")
				t.Errorf("no fresh virtual machine after 30s: %v", all)
			}
			pause(ctx, 2*time.Second)
		}
	})
	for _, topic := range []string{trapTopic, panicTopic} {
		if n := w.stored(t, topic); n != 0 {
			t.Errorf("topic %s: %d records were forwarded", topic, n)
		}
	}
}
