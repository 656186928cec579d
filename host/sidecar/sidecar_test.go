package sidecar

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/agent"
	"github.com/wasm-e2ee/wasm-e2ee/host/config"
	"github.com/wasm-e2ee/wasm-e2ee/host/exposure"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
	"github.com/wasm-e2ee/wasm-e2ee/tests/artifact"
)

// A fixture is a realm, a cluster with the topic orders, and the module.
type fixture struct {
	t       *testing.T
	cluster *kfake.Cluster
	issuer  *keyring.Issuer
	module  string
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "orders"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	root, err := keyring.NewRealm(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	issuer, err := root.CertifyIssuer(rand.Reader, now, now.Add(24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	module := filepath.Join(t.TempDir(), "e2ee.wasm")
	if err := os.WriteFile(module, artifact.Module(t), 0o600); err != nil {
		t.Fatal(err)
	}
	return &fixture{t, cluster, issuer, module}
}

// file is the configuration of a newly enrolled node.
func (f *fixture) file(want keyring.Attributes) *config.File {
	f.t.Helper()
	want.Topics = []wire.Pattern{{Name: "orders"}}
	want.OfflineAllow = time.Hour
	state, err := keyring.NewState(rand.Reader)
	if err != nil {
		f.t.Fatal(err)
	}
	now := time.Now()
	credential, err := f.issuer.Issue(rand.Reader, state.Node().CSR(want), nil, keyring.Validity{NotBefore: now, NotAfter: now.Add(12 * time.Hour)})
	if err != nil {
		f.t.Fatal(err)
	}
	if err := state.Node().Install(credential, now); err != nil {
		f.t.Fatal(err)
	}
	path := filepath.Join(f.t.TempDir(), "node.state")
	store, err := agent.OpenStore(path)
	if err != nil {
		f.t.Fatal(err)
	}
	if err := store.SaveState(state); err != nil {
		f.t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		f.t.Fatal(err)
	}
	file := &config.File{Listen: "127.0.0.1:0", State: path, Module: f.module, Metrics: config.Metrics{Listen: "127.0.0.1:0"}}
	file.Bootstrap = f.cluster.ListenAddrs()
	return file
}

// start runs a sidecar; stop ends it and may be called again.
func (f *fixture) start(file *config.File) (s *Sidecar, stop func()) {
	f.t.Helper()
	ctx, cancel := context.WithCancel(f.t.Context())
	s, err := Start(ctx, file, slog.New(slog.DiscardHandler))
	if err != nil {
		cancel()
		f.t.Fatal(err)
	}
	stop = func() {
		cancel()
		if err := s.Wait(); err != nil {
			f.t.Error(err)
		}
	}
	f.t.Cleanup(stop)
	return s, stop
}

// get asks a sidecar or a key server.
func get(t *testing.T, s interface{ MetricsAddr() net.Addr }, path string) string {
	t.Helper()
	client := http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + s.MetricsAddr().String() + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// has waits until a scrape has a line.
func has(t *testing.T, s *Sidecar, line string) {
	t.Helper()
	var text string
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if text = get(t, s, "/metrics"); strings.Contains(text, "\n"+line+"\n") {
			return
		}
	}
	t.Errorf("no line %s in\n%s", line, text)
}

func TestMetricsAndReportFollowARecordThroughTwoSidecars(t *testing.T) {
	f := newFixture(t)
	consumer, _ := f.start(f.file(keyring.Attributes{Roles: wire.RoleConsume, Groups: []wire.Pattern{{Name: "billing"}}}))
	producer, _ := f.start(f.file(keyring.Attributes{Roles: wire.RoleProduce}))
	client, err := kgo.NewClient(kgo.SeedBrokers(producer.Addr().String()), kgo.DefaultProduceTopic("orders"))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.ProduceSync(t.Context(), &kgo.Record{Value: []byte("order 1")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	reader, err := kgo.NewClient(kgo.SeedBrokers(consumer.Addr().String()), kgo.ConsumeTopics("orders"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if got := reader.PollFetches(t.Context()); got.NumRecords() != 1 {
		t.Fatalf("%d records: %v", got.NumRecords(), got.Err())
	}
	for _, line := range []string{"wasm_e2ee_sealed_batches_total 1", "wasm_e2ee_sealed_records_total 1", "wasm_e2ee_epochs_begun_total 1", "wasm_e2ee_epochs 1",
		`wasm_e2ee_partitions_total{direction="seal"} 1`, "wasm_e2ee_installed_leases 1", "wasm_e2ee_roots 0", "wasm_e2ee_ready 1"} {
		has(t, producer, line)
	}
	for _, line := range []string{"wasm_e2ee_opened_batches_total 1", "wasm_e2ee_opened_records_total 1", "wasm_e2ee_roots 1", "wasm_e2ee_roots_received_total 1",
		"wasm_e2ee_prekeys 1", "wasm_e2ee_installed_roots 1", "wasm_e2ee_ready 1", "wasm_e2ee_exposure_window_seconds 570"} {
		has(t, consumer, line)
	}
	if got := get(t, consumer, "/readyz"); got != "ready\n" {
		t.Errorf("/readyz: %s", got)
	}

	// What is served is what the file and, for the producer, the memory hold.
	report := func(s *Sidecar) (r exposure.Report) {
		t.Helper()
		if err := json.Unmarshal([]byte(get(t, s, "/exposure?as_of=2026-01-02T03:04:05Z")), &r); err != nil {
			t.Fatal(err)
		}
		return r
	}
	live, view := report(consumer), consumer.Agent.View()
	asOf, _ := time.Parse(time.RFC3339, "2026-01-02T03:04:05Z")
	of, err := exposure.Of(view, keyring.DefaultTiming(), nil, asOf)
	if err != nil {
		t.Fatal(err)
	}
	of.Running = true
	if len(live.Epochs) != 1 || live.Epochs[0].Topic != "orders" || !reflect.DeepEqual(&live, of) {
		t.Errorf("the report served is\n%+v\nof the state it is\n%+v", live, of)
	}
	sending := report(producer)
	if len(sending.Sending) != 1 || sending.Sending[0].Kid != live.Epochs[0].Kid || len(sending.Epochs) != 0 {
		t.Errorf("the producer reports %+v", sending)
	}
}

// TestNothingOfASidecarIsLeft wants every goroutine gone, also of a start that fails.
func TestNothingOfASidecarIsLeft(t *testing.T) {
	f := newFixture(t)
	file := f.file(keyring.Attributes{Roles: wire.RoleProduce})
	before := runtime.NumGoroutine()
	s, stop := f.start(file)
	has(t, s, "wasm_e2ee_ready 1")
	taken := f.file(keyring.Attributes{Roles: wire.RoleProduce})
	taken.Metrics.Listen = s.MetricsAddr().String()
	if _, err := Start(t.Context(), taken, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "\nhint: ") {
		t.Errorf("on a port that is taken: %v", err)
	}
	stop()
	for deadline := time.Now().Add(20 * time.Second); runtime.NumGoroutine() > before; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines before, %d after\n%s", before, runtime.NumGoroutine(), stacks[:runtime.Stack(stacks, true)])
		}
	}
	if _, err := http.Get(fmt.Sprintf("http://%s/healthz", s.MetricsAddr())); err == nil {
		t.Error("a sidecar that ended still answers")
	}
}
