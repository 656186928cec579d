package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func readCluster(t *testing.T, text string) (*Cluster, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "cluster.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return ReadCluster(path)
}

func TestASidecarsFileSaysWhereTheClusterIs(t *testing.T) {
	const connection = "bootstrap: [broker:9092]\ntls: {enabled: true, ca: ca.pem}\nsasl: {mechanism: PLAIN, username: u, password_file: secret}\n"
	for _, text := range []string{connection, connection + "state: node.state\nwhatever: [1, 2]\n"} {
		c, err := readCluster(t, text)
		if err != nil {
			t.Fatal(err)
		}
		if len(c.Bootstrap) != 1 || c.Bootstrap[0] != "broker:9092" || !c.TLS.Enabled || c.SASL.Username != "u" {
			t.Errorf("read %+v", c)
		}
		if !filepath.IsAbs(c.TLS.CA) || !filepath.IsAbs(c.SASL.PasswordFile) {
			t.Errorf("%s and %s are not beside the file", c.TLS.CA, c.SASL.PasswordFile)
		}
	}
}

func TestMistakesAboutTheClusterAreNamed(t *testing.T) {
	for text, want := range map[string]string{
		"":                      "bootstrap is empty",
		"state: node.state\n":   "bootstrap is empty",
		"bootstrap: [broker]\n": "not HOST:PORT",
		"bootstrap: [b:1]\ntls: {enabled: true, cerf: x}": "cerf",
		"bootstrap: [b:1]\ntls: {ca: ca.pem}":             "tls has settings but is not enabled",
		"bootstrap: [b:1]\nsasl: {username: u}":           "sasl needs",
	} {
		if _, err := readCluster(t, text); err == nil {
			t.Errorf("accepted:\n%s", text)
		} else if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not name %q", err, want)
		}
	}
	if _, err := ReadCluster(filepath.Join(t.TempDir(), "missing.yaml")); err == nil {
		t.Error("a missing file was read")
	}
}
