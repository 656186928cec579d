package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/agent"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

type enroll struct {
	State      string        `required:"" type:"path" placeholder:"FILE" help:"The node's state file; made if missing."`
	CSR        string        `name:"csr" type:"path" xor:"step" required:"" placeholder:"FILE" help:"First step: write a request here."`
	Credential string        `type:"path" xor:"step" required:"" placeholder:"FILE" help:"Second step: take this credential."`
	Produce    []string      `placeholder:"TOPIC" help:"Topics to produce: a name, or a prefix that ends in *. May be repeated."`
	Consume    []string      `placeholder:"TOPIC" help:"Topics to consume."`
	Group      []string      `help:"Consumer groups of the applications behind this node; keys are erased as these groups commit."`
	Offline    time.Duration `default:"72h" help:"How long this node may be offline and still read what was sealed meanwhile."`
}

// Run reads what it was given before it opens the state file: a mistake leaves nothing behind.
func (c *enroll) Run() error {
	if c.Credential != "" {
		file, err := os.ReadFile(c.Credential)
		if err != nil {
			return err
		}
		if _, err := os.Stat(c.State); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w\nhint: first make a request: wasm-e2ee enroll --state %s --csr node.csr …", err, c.State)
		}
		return withStore(c.State, func(store *agent.Store) error { return c.install(store, file) })
	}
	want, err := c.attributes()
	if err != nil {
		return err
	}
	return withStore(c.State, func(store *agent.Store) error { return c.request(store, want) })
}

func withStore(path string, f func(*agent.Store) error) error {
	store, err := agent.OpenStore(path)
	if err != nil {
		return err
	}
	return errors.Join(f(store), store.Close())
}

// attributes is what the request asks for.
func (c *enroll) attributes() (keyring.Attributes, error) {
	want := keyring.Attributes{OfflineAllow: c.Offline}
	for _, list := range []struct {
		texts []string
		role  wire.Roles
	}{{c.Produce, wire.RoleProduce}, {c.Consume, wire.RoleConsume}} {
		for _, text := range list.texts {
			p, err := wire.ParsePattern(text)
			if err != nil {
				return want, err
			}
			want.Roles |= list.role
			if !slices.Contains(want.Topics, p) {
				want.Topics = append(want.Topics, p)
			}
		}
	}
	for _, text := range c.Group {
		p, err := wire.ParsePattern(text)
		if err != nil {
			return want, err
		}
		want.Groups = append(want.Groups, p)
	}
	if want.Roles == 0 {
		return want, errors.New("nothing asked for\nhint: --produce TOPIC, or --consume TOPIC --group GROUP, or both")
	}
	// A credential has one list of topics for all its roles.
	if want.Roles.Has(wire.RoleProduce|wire.RoleConsume) && !sameTopics(c.Produce, c.Consume) {
		return want, errors.New("one credential covers the same topics for both roles\nhint: name the same topics with --produce and --consume, or run one sidecar for each role")
	}
	if want.Roles.Has(wire.RoleConsume) && len(want.Groups) == 0 {
		fmt.Fprintln(os.Stderr, "warning: no --group: keys are then erased by the hard cap alone (7 days), not as they are consumed")
	}
	return want, nil
}

// request writes a CSR, for a new identity or the one that the state already has.
func (c *enroll) request(store *agent.Store, want keyring.Attributes) error {
	state, err := store.LoadState()
	if errors.Is(err, fs.ErrNotExist) {
		state, err = keyring.NewState(rand.Reader)
	}
	if err != nil {
		return err
	}
	defer state.Wipe()
	if err := store.SaveState(state); err != nil {
		return err
	}
	if err := writePublic(c.CSR, state.Node().CSR(want)); err != nil {
		return err
	}
	fmt.Printf("node %s: request in %s\nnext: where the realm is  wasm-e2ee realm issue --dir REALM --csr %s --out node.cred\n"+
		"then: here              wasm-e2ee enroll --state %s --credential node.cred\n", state.Node().ID(), c.CSR, c.CSR, c.State)
	return nil
}

// install adopts the credential.
func (c *enroll) install(store *agent.Store, file []byte) error {
	state, err := store.LoadState()
	if err != nil {
		return err
	}
	defer state.Wipe()
	if err := state.Node().Install(file, time.Now()); err != nil {
		return fmt.Errorf("%s: %w\nhint: have the newest request of this node signed where its realm is: wasm-e2ee realm issue --csr FILE", c.Credential, err)
	}
	if err := store.SaveState(state); err != nil {
		return err
	}
	credential := state.Node().Credential()
	fmt.Printf("node %s of realm %s: %s\n  topics %s\n  groups %s\n  valid until %s\nnext: wasm-e2ee proxy --config FILE\n",
		state.Node().ID(), state.Node().Realm(), credential.Roles, patterns(credential.Topics), patterns(credential.Groups),
		time.UnixMilli(int64(credential.NotAfter)).Format(time.RFC3339))
	return nil
}

func sameTopics(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}
