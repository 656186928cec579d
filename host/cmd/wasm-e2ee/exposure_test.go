package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/agent"
	hostexposure "github.com/wasm-e2ee/wasm-e2ee/host/exposure"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
	"github.com/wasm-e2ee/wasm-e2ee/host/metrics"
)

func TestExposureIsToldWhileAnotherProcessHoldsTheState(t *testing.T) {
	dir := t.TempDir()
	must(t, dir, append([]string{"realm init --dir realm"}, enrolled...)...)
	if err := os.WriteFile(filepath.Join(dir, "replay.yaml"), []byte("bootstrap: [127.0.0.1:1]\nstate: node.state\npolicy: {replay: 1h}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	store, err := agent.OpenStore(filepath.Join(dir, "node.state"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	before, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	text := must(t, dir, "exposure --state node.state --as-of 2026-01-02T03:04:05Z")
	for _, want := range []string{"as of 2026-01-02T03:04:05Z", "P = 9m30s", "it holds for this state", "nothing would be readable"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	var report struct {
		AsOf       string  `json:"as_of"`
		P          float64 `json:"p_s"`
		Holds      bool
		Conditions []struct{ Name string }
	}
	out := must(t, dir, "exposure --config replay.yaml --as-of 2026-01-02T03:04:05Z --json")
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if report.AsOf != "2026-01-02T03:04:05Z" || report.P != 3600+6.5*60 || report.Holds || len(report.Conditions) != 1 || report.Conditions[0].Name != "replay" {
		t.Errorf("%+v", report)
	}
	if after, err := os.ReadDir(dir); err != nil || len(after) != len(before) {
		t.Errorf("files before %v, after %v: %v", before, after, err)
	}
}

func TestExposureWarnsOfAStateThatOthersCanRead(t *testing.T) {
	dir := t.TempDir()
	must(t, dir, append([]string{"realm init --dir realm"}, enrolled...)...)
	if err := os.Chmod(filepath.Join(dir, "node.state"), 0o644); err != nil {
		t.Fatal(err)
	}
	code, out, errs := invoke(t, dir, "exposure", "--state", "node.state")
	if code != 0 || !strings.Contains(out, "P = ") || !strings.Contains(errs, "mode 0644") {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
}

// pair is a broker with the topic orders, and a realm with a producer and a consumer of it,
// prod.state and cons.state in the directory.
func pair(t *testing.T) (dir, address string) {
	t.Helper()
	dir = t.TempDir()
	must(t, dir, "realm init --dir realm",
		"enroll --state cons.state --csr cons.csr --consume orders --group billing",
		"enroll --state prod.state --csr prod.csr --produce orders",
		"realm issue --dir realm --csr cons.csr --out cons.cred",
		"realm issue --dir realm --csr prod.csr --out prod.cred",
		"enroll --state cons.state --credential cons.cred",
		"enroll --state prod.state --credential prod.cred")
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "orders"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	return dir, cluster.ListenAddrs()[0]
}

// TestExposureOfARunningNodeIsWhatAThiefOpens runs the agents of a producer and a consumer on
// an embedded Kafka, and holds the report on the consumer's file, with the grants, against
// what a thief opens with the same.
func TestExposureOfARunningNodeIsWhatAThiefOpens(t *testing.T) {
	dir, address := pair(t)
	kafka := []kgo.Opt{kgo.SeedBrokers(address)}
	yaml := fmt.Sprintf("bootstrap: [%s]\nstate: cons.state\n", address)
	if err := os.WriteFile(filepath.Join(dir, "cons.yaml"), []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	startAgent(ctx, t, kafka, filepath.Join(dir, "cons.state"))
	prod := startAgent(ctx, t, kafka, filepath.Join(dir, "prod.state"))
	lease, err := prod.Lease(ctx, "orders")
	if err != nil {
		t.Fatal(err)
	}
	kid := hex.EncodeToString(lease.Kid[:])
	for {
		var report hostexposure.Report
		out := must(t, dir, "exposure --config cons.yaml --grants --json")
		if err := json.Unmarshal([]byte(out), &report); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if len(report.Epochs) == 0 && ctx.Err() == nil {
			continue // the grant is not in the file yet
		}
		if len(report.Epochs) != 1 || report.Epochs[0].Kid != kid || !report.Holds || len(report.Prekeys) != 1 ||
			len(report.Prekeys[0].Epochs) != 1 || report.Prekeys[0].Epochs[0].Kid != kid {
			t.Fatalf("kid %s is not reported by both ways:\n%s", kid, out)
		}
		break
	}
	// One batch of three records, as the broker has it: the sealed value, and two stubs.
	header := wire.PackedHeader{Kid: lease.Kid, NumRecords: 3}
	client, err := kgo.NewClient(append(kafka, kgo.DefaultProduceTopic("orders"))...)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	value := append(header.Append(nil), make([]byte, 64)...)
	if err := client.ProduceSync(ctx, &kgo.Record{Value: []byte("plain")}, &kgo.Record{Value: value}, &kgo.Record{Value: []byte{}}, &kgo.Record{Value: []byte{}}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if text := must(t, dir, "exposure --config cons.yaml --grants --offsets"); strings.Count(text, "partition 0 from 1 to 3 (3 records)") != 2 {
		t.Errorf("the records of kid %s are not at offsets 1 to 3, by both ways, in\n%s", kid, text)
	}
	state, err := os.ReadFile(filepath.Join(dir, "cons.state"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := keyring.ParseState(state)
	if err != nil {
		t.Fatal(err)
	}
	grants, _, err := agent.ReadGrants(ctx, kafka, s.Node().ID(), time.Now().Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	roots, err := keyring.UnsafeRoots(state, grants)
	if err != nil || len(roots) != 2 || roots[0].Kid != lease.Kid || roots[1].Kid != lease.Kid || roots[0].Via == roots[1].Via {
		t.Errorf("a thief opens %d roots: %v", len(roots), err)
	}
}

func TestExposureAsksARunningSidecar(t *testing.T) {
	dir := t.TempDir()
	server, err := metrics.Listen("127.0.0.1:0", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	url := "http://" + server.Addr().String()
	refused := func(want string, args ...string) {
		t.Helper()
		if code, out, errs := invoke(t, dir, append([]string{"exposure"}, args...)...); code != 1 || !strings.Contains(errs, want) || !strings.Contains(errs, "\nhint: ") {
			t.Errorf("%v: exit %d\n%s%s", args, code, out, errs)
		}
	}
	refused("the process starts", "--agent", url)
	server.Serve(metrics.Source{Exposure: func(asOf time.Time) (*hostexposure.Report, error) {
		return hostexposure.Of(keyring.View{Kids: []keyring.KidView{{Topic: "orders", Ends: map[int32]int64{1: 42}}}}, keyring.DefaultTiming(), nil, asOf)
	}})
	text := must(t, dir, "exposure --agent "+url+" --as-of 2026-01-02T03:04:05Z")
	for _, want := range []string{"as of 2026-01-02T03:04:05Z", "P = 9m30s", "topic orders, epochs by topic secrets: 1", "1 below 42"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	var report hostexposure.Report
	if err := json.Unmarshal([]byte(must(t, dir, "exposure --json --agent "+url+"/")), &report); err != nil || len(report.Epochs) != 1 {
		t.Errorf("%+v: %v", report, err)
	}
	refused("not an address", "--agent", "127.0.0.1:9464")
	refused("404", "--agent", url+"/metrics")
	refused("either the one or the others", "--agent", url, "--grants")
	refused("is a directory", "--state", ".")
	refused("ask Kafka", "--state", "node.state", "--offsets")
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	refused("sidecar: ", "--agent", url)
}

// startAgent starts an agent that is ready, with the default timing, and ends it with the test.
func startAgent(ctx context.Context, t *testing.T, kafka []kgo.Opt, state string) *agent.Agent {
	t.Helper()
	a, err := agent.Open(ctx, agent.Config{Kafka: kafka, StateFile: state, Timing: keyring.DefaultTiming(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	live, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(live) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-a.Ready():
	case <-ctx.Done():
		t.Fatal("not ready")
	}
	return a
}
