package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
)

func read(t *testing.T, text string) (*File, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "proxy.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return Read(path)
}

const least = "bootstrap: [broker:9092]\nstate: node.state\n"

func TestLeastFileGetsTheDefaults(t *testing.T) {
	f, err := read(t, least)
	if err != nil {
		t.Fatal(err)
	}
	if f.Listen != "127.0.0.1:19092" {
		t.Errorf("listen %q", f.Listen)
	}
	if !filepath.IsAbs(f.State) || filepath.Base(f.State) != "node.state" {
		t.Errorf("state %q is not beside the file", f.State)
	}
	if got := f.KX1().P(); got != 9*time.Minute+30*time.Second {
		t.Errorf("P is %s, want 9m30s (PROTOCOL.md §2.17)", got)
	}
	c, err := f.Policy.Config()
	if err != nil || c.Mode("anything") != abi.ModeEncrypted {
		t.Errorf("a topic without a rule is %s: %v", c.Mode("anything"), err)
	}
}

func TestMetricsAreServedOnlyWhereTheFileSays(t *testing.T) {
	if f, err := read(t, least); err != nil || f.Metrics.Listen != "" {
		t.Errorf("without the key they are served at %q: %v", f.Metrics.Listen, err)
	}
	if f, err := read(t, least+"metrics: {listen: 127.0.0.1:9464}\n"); err != nil || f.Metrics.Listen != "127.0.0.1:9464" {
		t.Errorf("%q: %v", f.Metrics.Listen, err)
	}
	if _, err := read(t, least+"metrics: {listen: 9464}\n"); err == nil || !strings.Contains(err.Error(), "metrics.listen") {
		t.Errorf("a bare port: %v", err)
	}
}

func TestPolicyNamesWhatIsPlainAndWhoMustRead(t *testing.T) {
	f, err := read(t, least+"policy:\n  plain: [metrics.*, audit]\n  require_groups:\n    orders: [billing]\n    \"o*\": [search, billing]\n")
	if err != nil {
		t.Fatal(err)
	}
	c, err := f.Policy.Config()
	if err != nil {
		t.Fatal(err)
	}
	for topic, want := range map[string]abi.Mode{"metrics.cpu": abi.ModePlain, "audit": abi.ModePlain, "audit2": abi.ModeEncrypted, "orders": abi.ModeEncrypted} {
		if got := c.Mode(topic); got != want {
			t.Errorf("%s is %s, want %s", topic, got, want)
		}
	}
	if got := f.Policy.Groups("orders"); !reflect.DeepEqual(got, []string{"billing", "search"}) {
		t.Errorf("orders requires %v", got)
	}
	if got := f.Policy.Groups("payments"); len(got) != 0 {
		t.Errorf("payments requires %v", got)
	}
}

// TestMistakesAreNamed shows what each mistake says: the key, and what to do.
func TestMistakesAreNamed(t *testing.T) {
	for text, want := range map[string]string{
		"":                                                 "bootstrap is empty",
		"bootstrap: [broker]\nstate: x\n":                  "not HOST:PORT",
		"bootstrap: [broker:9092]\n":                       "state is empty",
		least + "polices: {}\n":                            "polices",
		least + "policy: {plain: [a*b]}\n":                 "a*b",
		least + "tls: {ca: ca.pem}\n":                      "tls has settings but is not enabled",
		least + "tls: {enabled: true, cert: c}":            "cert and key go together",
		least + "sasl: {mechanism: PLAIN}\n":               "sasl needs",
		least + "timing: {epoch: 10s}\n":                   "lead",
		least + "timing: {epoch: soon}\n":                  `"soon" is not a duration`,
		least + "produce_wait: 8\n":                        `"8" is not a duration`,
		least + "produce_wait: -1s\n":                      "produce_wait",
		least + "log: {format: xml}\n":                     "xml",
		least + "log: {level: loud}\n":                     "loud",
		least + "policy: {require_groups: {orders: []}}\n": "names no group",
	} {
		_, err := read(t, text)
		if err == nil {
			t.Errorf("accepted:\n%s", text)
		} else if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not name %q", err, want)
		}
	}
	if _, err := Read(filepath.Join(t.TempDir(), "missing.yaml")); err == nil {
		t.Error("a missing file was read")
	}
}

func TestPasswordIsTheFirstLineOfItsFile(t *testing.T) {
	f, err := read(t, least+"sasl: {mechanism: SCRAM-SHA-512, username: u, password_file: secret}\n")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Kafka(); err == nil {
		t.Error("a missing password file was accepted")
	}
	if err := os.WriteFile(f.SASL.PasswordFile, []byte("s3cret\nnote\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Kafka(); err != nil {
		t.Error(err)
	}
	f.SASL.Mechanism = "GSSAPI"
	if _, err := f.Kafka(); err == nil || !strings.Contains(err.Error(), "GSSAPI") {
		t.Errorf("error %v", err)
	}
}
