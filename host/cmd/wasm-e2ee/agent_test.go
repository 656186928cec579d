package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wasm-e2ee/wasm-e2ee/host/lease"
)

func TestPairMakesAKeyForOneUserOnce(t *testing.T) {
	dir := t.TempDir()
	out := must(t, dir, "agent pair --out pairing.key")
	path := filepath.Join(dir, "pairing.key")
	key, err := lease.ReadKey(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if digits := string(lease.MarshalKey(key)); strings.Contains(out, digits[:8]) || !strings.Contains(out, "PRIVATE") {
		t.Errorf("it prints\n%s", out)
	}
	if code, _, errs := invoke(t, dir, "agent", "pair", "--out", "pairing.key"); code != exitFailed || !strings.Contains(errs, "hint: it is never overwritten") {
		t.Errorf("again: exit %d\n%s", code, errs)
	}
}

func TestAnAgentThatCannotServeSaysWhy(t *testing.T) {
	dir := t.TempDir()
	must(t, dir, append([]string{"realm init --dir realm", "agent pair --out pairing.key"}, enrolled...)...)
	least := "bootstrap: [127.0.0.1:1]\nstate: node.state\n"
	for name, text := range map[string]string{
		"none.yaml": least,
		"open.yaml": least + "agent: {listen: 0.0.0.0:9465, pairing_key_file: pairing.key}\n",
		"key.yaml":  least + "agent: {listen: 127.0.0.1:0, pairing_key_file: missing.key}\n",
		"down.yaml": least + "agent: {listen: 127.0.0.1:0, pairing_key_file: pairing.key}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for line, want := range map[string]struct {
		code int
		text string
	}{
		"agent":                    {exitUsage, "--config"},
		"agent --config none.yaml": {exitFailed, "hint: agent: {listen:"},
		"agent --config open.yaml": {exitFailed, "an agent serves its own machine"},
		"agent --config key.yaml":  {exitFailed, "agent pair --out FILE"},
		"agent --config down.yaml": {exitFailed, "kafka brokers [127.0.0.1:1] cannot be reached"},
		"agent pair":               {exitUsage, "hint: wasm-e2ee agent pair --help"},
	} {
		if code, _, errs := invoke(t, dir, strings.Fields(line)...); code != want.code || !strings.Contains(errs, want.text) || !strings.Contains(errs, "hint: ") {
			t.Errorf("%s: exit %d\n%s", line, code, errs)
		}
	}
}
