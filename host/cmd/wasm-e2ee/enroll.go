package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/agent"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

type enroll struct {
	wants
	connect

	Ticket     string        `arg:"" optional:"" help:"The ticket that realm ticket printed: a file that holds it; or -, from standard input; or the line itself, which the process list shows."`
	State      string        `required:"" type:"path" placeholder:"FILE" help:"The node's state file; made if missing."`
	CSR        string        `name:"csr" type:"path" placeholder:"FILE" help:"Without a ticket, first step: write a request here."`
	Credential string        `type:"path" placeholder:"FILE" help:"Without a ticket, second step: take this credential."`
	Timeout    time.Duration `help:"With a ticket: how long to wait for the issuer; default: until the ticket ends."`
}

// Validate has exactly one way to enrol.
func (c *enroll) Validate() error {
	ways := 0
	for _, way := range []string{c.Ticket, c.CSR, c.Credential} {
		if way != "" {
			ways++
		}
	}
	switch {
	case ways != 1:
		return errors.New("one of: a TICKET, --csr FILE, --credential FILE")
	case c.Ticket != "" && c.any():
		return errors.New("the ticket says what this node may do: --produce, --consume and --group belong to `realm ticket`")
	}
	return nil
}

// Run reads what it was given before it opens the state file: a mistake leaves nothing behind.
func (c *enroll) Run(ctx context.Context) error {
	switch {
	case c.Ticket != "":
		return c.ask(ctx)
	case c.Credential != "":
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

// ask enrols with the ticket.
func (c *enroll) ask(ctx context.Context) error {
	line, err := ticketLine(c.Ticket)
	if err != nil {
		return err
	}
	ticket, err := keyring.ParseTicket(line)
	clear(line)
	if err != nil {
		return err
	}
	defer ticket.Wipe()
	kafka, err := c.kafka()
	if err != nil {
		return err
	}
	if c.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, c.Timeout, fmt.Errorf("no issuer answered within %v", c.Timeout))
		defer cancel()
	}
	return withStore(c.State, func(store *agent.Store) error {
		log := slog.New(slog.NewTextHandler(os.Stderr, nil))
		if had, err := store.LoadState(); err == nil {
			if c := had.Node().Credential(); c != nil {
				log.Warn("this state has a credential already; the ticket is to give it another one", "node", c.Node,
					"ends", time.UnixMilli(int64(c.NotAfter)).UTC())
			}
			had.Wipe()
		}
		if err := agent.Enrol(ctx, kafka, store, ticket, log); err != nil {
			return err
		}
		state, err := store.LoadState()
		if err != nil {
			return err
		}
		defer state.Wipe()
		enrolledAs(state)
		return nil
	})
}

// ticketLine is the ticket that the argument is or names. The caller clears it.
func ticketLine(arg string) ([]byte, error) {
	from := os.Stdin
	if strings.HasPrefix(arg, keyring.TicketPrefix) {
		return []byte(arg), nil
	} else if arg != "-" {
		f, err := os.Open(arg)
		if err != nil {
			return nil, fmt.Errorf("ticket: %w\nhint: name the file that `wasm-e2ee realm ticket --out FILE` wrote, or -, or the whole line that it printed", err)
		}
		defer f.Close()
		from = f
	}
	line, err := bufio.NewReader(io.LimitReader(from, 3*wire.MaxTicketSize)).ReadBytes('\n')
	if err != nil && err != io.EOF {
		clear(line)
		return nil, fmt.Errorf("ticket: %w", err)
	}
	return line, nil
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
	enrolledAs(state)
	return nil
}

// enrolledAs prints what the node became.
func enrolledAs(state *keyring.State) {
	credential := state.Node().Credential()
	fmt.Printf("node %s of realm %s: %s\n  topics %s\n  groups %s\n  valid until %s\nnext: wasm-e2ee proxy --config FILE\n",
		state.Node().ID(), state.Node().Realm(), credential.Roles, patterns(credential.Topics), patterns(credential.Groups),
		time.UnixMilli(int64(credential.NotAfter)).Format(time.RFC3339))
}
