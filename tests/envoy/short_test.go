package envoy

import (
	"encoding/hex"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/clients"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/nodes"
)

// current is the Envoy that is part of every test run.
const current = "1.40.0"

// shown are metrics that are above 0 wherever records were sealed and opened.
var shown = []string{"sealed_batches_total", "sealed_records_total", "opened_batches_total", "opened_records_total", "connections_total",
	"partitions_total.direction.seal", "partitions_total.direction.open"}

// What applications hand to their clients behind Envoy comes back equal behind another Envoy
// and behind a sidecar, and the other way around; the broker sees none of it; and what goes
// wrong ends with an error instead of plaintext or a hang.
func TestEnvoySealsAndOpens(t *testing.T) {
	w := newWorld(t, 1, nil)
	var a, b *envoyFace
	var side *sidecarFace
	var wg sync.WaitGroup // an Envoy takes seconds to compile the module
	wg.Go(func() { a = w.startEnvoy(t, faceSpec{version: current, workers: 2, unix: true}) })
	wg.Go(func() { b = w.startEnvoy(t, faceSpec{version: current, workers: 2}) })
	wg.Go(func() { side = w.startSidecar(t) })
	wg.Wait()
	if a == nil || b == nil || side == nil {
		t.FailNow()
	}
	t.Logf("ready after %v and %v", a.Start.Round(time.Millisecond), b.Start.Round(time.Millisecond))

	where := a.String()
	scenario(t, "four clients", where, func(t *testing.T, r *row) { w.roundTrip(t, r, a, b, 2000, four...) })
	scenario(t, "Envoy to sidecar", where, func(t *testing.T, r *row) { w.roundTrip(t, r, a, side, 1000, clients.FranzGo, clients.Confluent) })
	scenario(t, "sidecar to Envoy", where, func(t *testing.T, r *row) { w.roundTrip(t, r, side, b, 1000, clients.FranzGo, clients.Confluent) })
	scenario(t, "transactions", where, func(t *testing.T, r *row) { w.transactions(t, r, a, b, 600, clients.Java, clients.FranzGo) })
	scenario(t, "groups", where, func(t *testing.T, r *row) { w.groups(t, r, a, b, 8*time.Second) })
	scenario(t, "injected plaintext", where, func(t *testing.T, r *row) { w.injected(t, r, a, b) })
	scenario(t, "garbage", where, func(t *testing.T, r *row) { w.garbage(t, r, a, b, 200, 1) })
	scenario(t, "agent killed", where, func(t *testing.T, r *row) { w.agentKilled(t, r, a, b) })
	scenario(t, "no plaintext", where, func(t *testing.T, r *row) { w.noPlaintext(t, r) })
	scenario(t, "metrics", where, func(t *testing.T, r *row) {
		counted(t, shown[:2], a, side)
		counted(t, shown[2:4], b, side)
	})
	scenario(t, "one artifact", where, func(t *testing.T, r *row) { w.oneArtifact(t, r, a) })
}

// oneArtifact checks that Envoy loads the very file that the sidecar runs.
func (w *world) oneArtifact(t *testing.T, r *row, f *envoyFace) {
	config, err := os.ReadFile(f.Spec.Config)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(config), "local:")
	_, rest, _ = strings.Cut(rest, "filename: ")
	path, _, _ := strings.Cut(rest, "\n")
	if path = strings.Trim(path, `"' `); !ok || path == "" {
		t.Fatal("the configuration names no module")
	}
	loaded := hex.EncodeToString(hash(t, path))
	if out := nodes.MustRun(t, "version"); !strings.Contains(out, loaded) {
		t.Errorf("Envoy loads %s; the sidecar runs:\n%s", loaded, out)
	}
	r.note("SHA-256 %s…", loaded[:16])
}
