package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/agent"
	hostissuer "github.com/wasm-e2ee/wasm-e2ee/host/issuer"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

type realmRevoke struct {
	connect

	Dir    string        `required:"" type:"path" placeholder:"DIR" help:"The realm's directory."`
	Node   string        `xor:"what" placeholder:"NODE_ID" help:"Revoke every credential of this node, or every certificate of this issuer."`
	Serial string        `xor:"what" placeholder:"SERIAL" help:"Revoke one credential instead."`
	Ago    time.Duration `placeholder:"DURATION" help:"Revoked from this long ago on: since when the key may be in other hands. Default: from now on."`
	Valid  time.Duration `default:"1h" help:"How long the list of the revoked is good; a running issuer renews it."`
}

// Validate has something to revoke.
func (c *realmRevoke) Validate() error {
	if c.Node == "" && c.Serial == "" {
		return errors.New("one of: --node NODE_ID, --serial SERIAL")
	}
	return nil
}

func (c *realmRevoke) Run(ctx context.Context) error {
	node, serial, err := c.named()
	if err != nil {
		return err
	}
	kafka, err := c.kafka()
	if err != nil {
		return err
	}
	issuer, err := readIssuer(c.Dir)
	if err != nil {
		return err
	}
	defer issuer.Wipe()
	log, err := agent.OpenRosterLog(ctx, kafka, slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
	if err != nil {
		return err
	}
	defer log.Close()

	roster := issuer.Roster(keyring.DefaultTiming())
	var revoked []*wire.Credential
	// The book remembers the newest state: what the roster serves may be older.
	next := func() (state *wire.AuthorityState, err error) {
		if revoked = match(roster, node, serial); len(revoked) == 0 && serial == nil {
			return nil, errors.New("no credential of this node on the roster\nhint: the sidecar logs its node id at start; name a credential that is not there yet with --serial")
		}
		saved := hostissuer.Update(ctx, filepath.Join(c.Dir, hostissuer.BookFile), func(b *keyring.Book) {
			prev := roster.Authority()
			if held := b.Authority(); held != nil && (prev == nil || held.Seq > prev.Seq) {
				prev = held
			}
			if state, err = c.sign(issuer, prev, revoked, serial); err == nil {
				b.NoteAuthority(state)
			}
		})
		return state, errors.Join(err, saved)
	}
	state, err := agent.WriteAuthority(ctx, log, roster, next, func(key, value []byte) error { return roster.Apply(key, value, time.Now()) })
	if err != nil {
		return err
	}
	for _, cred := range revoked {
		fmt.Printf("revoked: node %s, credential %s (%s), which ends at %s\n", cred.Node, cred.Serial, cred.Roles, time.UnixMilli(int64(cred.NotAfter)).Format(time.RFC3339))
	}
	if len(revoked) == 0 {
		fmt.Printf("revoked: credential %s, which is not on the roster yet\n", c.Serial)
	}
	fmt.Printf("authority state %d: %d revoked in all, good until %s\n", state.Seq, len(state.Revoked), time.UnixMilli(int64(state.NextUpdate)).Format(time.RFC3339))
	return nil
}

// named parses what to revoke.
func (c *realmRevoke) named() (node, serial []byte, err error) {
	if c.Ago < 0 {
		return nil, nil, errors.New("--ago must not be negative")
	}
	for _, f := range []struct {
		name, text string
		to         *[]byte
	}{{"node", c.Node, &node}, {"serial", c.Serial, &serial}} {
		if f.text == "" {
			continue
		}
		if *f.to, err = hex.DecodeString(f.text); err != nil || len(*f.to) != 16 {
			return nil, nil, fmt.Errorf("--%s %q is not 32 hexadecimal digits", f.name, f.text)
		}
	}
	return node, serial, nil
}

// match returns the credentials that are named.
func match(roster *keyring.Roster, node, serial []byte) []*wire.Credential {
	var out []*wire.Credential
	for _, cred := range roster.Credentials() {
		if bytes.Equal(cred.Node[:], node) || bytes.Equal(cred.Serial[:], serial) {
			out = append(out, cred)
		}
	}
	return out
}

// sign makes the state after prev. An issuer's certificate is revoked by the root.
func (c *realmRevoke) sign(issuer *keyring.Issuer, prev *wire.AuthorityState, revoked []*wire.Credential, serial []byte) (*wire.AuthorityState, error) {
	now := time.Now()
	at := uint64(now.Add(-c.Ago).UnixMilli())
	var list []wire.Revocation
	byRoot := false
	if serial != nil {
		list = append(list, wire.Revocation{Serial: wire.Serial(serial), At: at})
	}
	for _, cred := range revoked {
		list = append(list, wire.Revocation{Serial: cred.Serial, At: at})
		byRoot = byRoot || cred.Roles.Has(wire.RoleIssuer)
	}
	if !byRoot {
		return issuer.NextState(prev, list, now, c.Valid)
	}
	raw, err := os.ReadFile(filepath.Join(c.Dir, rootFile))
	if err != nil {
		return nil, fmt.Errorf("an issuer is revoked with the root key: %w\nhint: bring %s back to %s for this", err, rootFile, c.Dir)
	}
	root, err := keyring.ParseRoot(raw)
	clear(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", rootFile, err)
	}
	defer root.Wipe()
	return root.NextState(prev, list, now, c.Valid)
}
