package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wasm-e2ee/wasm-e2ee/host/agent"
)

func TestExposureIsToldWhileAnotherProcessHoldsTheState(t *testing.T) {
	dir := t.TempDir()
	must(t, dir, append([]string{"realm init --dir realm"}, enrolled...)...)
	if err := os.WriteFile(filepath.Join(dir, "replay.yaml"), []byte("bootstrap: [127.0.0.1:1]\nstate: node.state\ntiming: {window: 1h}\n"), 0o600); err != nil {
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
