package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	hostissuer "github.com/wasm-e2ee/wasm-e2ee/host/issuer"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

type realmTicket struct {
	wants

	Dir      string        `required:"" type:"path" placeholder:"DIR" help:"The realm's directory. Its issuer may be running."`
	Out      string        `type:"path" placeholder:"FILE" help:"Write the ticket to this new file, for this user alone, instead of standard output."`
	Lifetime time.Duration `default:"24h" help:"How long the ticket may wait to be used: at most 24h."`
	Days     float64       `default:"9" help:"Validity of the credential in days. The node renews it by itself."`
}

// Run writes the ticket alone to its file or to standard output, so that a script can take it.
func (c *realmTicket) Run(ctx context.Context) error {
	grant, err := c.attributes()
	if err != nil {
		return err
	}
	if c.Days <= 0 {
		return errors.New("--days must be positive")
	}
	issuer, err := readIssuer(c.Dir)
	if err != nil {
		return err
	}
	defer issuer.Wipe()
	now := time.Now()
	var ticket *wire.Ticket
	saved := hostissuer.Update(ctx, filepath.Join(c.Dir, hostissuer.BookFile), func(b *keyring.Book) {
		ticket, err = b.NewTicket(rand.Reader, issuer, grant, now.Add(c.Lifetime), time.Duration(c.Days*float64(24*time.Hour)), now)
	})
	if err := errors.Join(err, saved); err != nil {
		return err
	}
	defer ticket.Wipe()
	line := append(keyring.MarshalTicket(ticket), '\n')
	defer clear(line)
	out := "node.ticket"
	if c.Out == "" {
		_, err = os.Stdout.Write(line)
	} else {
		out = filepath.Base(c.Out)
		err = writeNew(c.Out, line, 0o600)
	}
	if err != nil {
		return fmt.Errorf("ticket: %w", err)
	}
	fmt.Fprintf(os.Stderr, "ticket %s: %s on %s, groups %s, once, until %s\nPRIVATE until it is used: whoever has it first becomes the node\n"+
		"next: on the node  wasm-e2ee enroll --state node.state --bootstrap HOST:PORT %s\n",
		ticket.ID, ticket.Roles, patterns(ticket.Topics), patterns(ticket.Groups), now.Add(c.Lifetime).Format(time.RFC3339), out)
	return nil
}
