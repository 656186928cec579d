package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

func TestRevokedNodeIsGrantedNothingMore(t *testing.T) {
	dir, address := pair(t)
	kafka := []kgo.Opt{kgo.SeedBrokers(address)}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cons := startAgent(ctx, t, kafka, filepath.Join(dir, "cons.state"))
	prod := startAgent(ctx, t, kafka, filepath.Join(dir, "prod.state"))
	if _, err := prod.Lease(ctx, "orders"); err != nil {
		t.Fatal(err)
	}

	revoke := "realm revoke --dir realm --bootstrap " + address
	out := must(t, dir, revoke+" --node "+cons.Snapshot().Node.String())
	if !strings.Contains(out, "revoked: node "+cons.Snapshot().Node.String()) || !strings.Contains(out, "authority state 1: 1 revoked in all") {
		t.Errorf("it says:\n%s", out)
	}
	for err := error(nil); !errors.Is(err, abi.StatusNoRecipient); _, err = prod.Lease(ctx, "orders") {
		if ctx.Err() != nil {
			t.Fatalf("the producer goes on: %v", err)
		}
		time.Sleep(10 * time.Millisecond)
	}

	serial := strings.Repeat("0a", 16)
	if out := must(t, dir, revoke+" --ago 1h --serial "+serial); !strings.Contains(out, serial) || !strings.Contains(out, "authority state 2: 2 revoked in all") {
		t.Errorf("a credential that is not there yet:\n%s", out)
	}
	// A cluster that lost the roster takes nothing back: the realm's directory remembers.
	emptied, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	defer emptied.Close()
	if out := must(t, dir, "realm revoke --dir realm --bootstrap "+emptied.ListenAddrs()[0]+" --serial "+strings.Repeat("0b", 16)); !strings.Contains(out, "authority state 3: 3 revoked in all") {
		t.Errorf("on an empty roster:\n%s", out)
	}
	for args, want := range map[string]string{
		" --node " + serial: "no credential of this node",
		" --node x":         "32 hexadecimal digits",
		"":                  "--node",
	} {
		if code, _, errs := invoke(t, dir, strings.Fields(revoke+args)...); code == 0 || !strings.Contains(errs, want) {
			t.Errorf("%q: exit %d, %s", args, code, errs)
		}
	}
	// The issuer itself, which only the root ends.
	issuer := issuerOf(t, dir)
	root := filepath.Join(dir, "realm", rootFile)
	if err := os.Rename(root, root+".safe"); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := invoke(t, dir, strings.Fields(revoke+" --node "+issuer)...); code == 0 || !strings.Contains(errs, "root key") {
		t.Errorf("an issuer revoked without the root: exit %d, %s", code, errs)
	}
	if err := os.Rename(root+".safe", root); err != nil {
		t.Fatal(err)
	}
	if out := must(t, dir, revoke+" --node "+issuer); !strings.Contains(out, "authority state 4: 4 revoked in all") {
		t.Errorf("an issuer:\n%s", out)
	}
	if code, _, errs := invoke(t, dir, strings.Fields(revoke+" --serial "+serial)...); code == 0 || !strings.Contains(errs, "root key") {
		t.Errorf("a revoked issuer goes on: exit %d, %s", code, errs)
	}
}

// issuerOf is the node id of a realm's issuer.
func issuerOf(t *testing.T, dir string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(dir, "cons.cred"))
	if err != nil {
		t.Fatal(err)
	}
	_, chain, err := keyring.ParseCredentialFile(raw)
	if err != nil {
		t.Fatal(err)
	}
	return chain[1].Node.String()
}
