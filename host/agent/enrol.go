package agent

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

const (
	// enrolRetry is how often an enrolment's record is written again.
	enrolRetry = 5 * time.Second
	// enrolQuiet is how long a node waits for its issuer before it says so.
	enrolQuiet = 3 * time.Second
)

// Enrol turns a ticket into a credential (PROTOCOL.md §2.12): it makes the state in store if
// there is none, asks the issuer through the roster, and returns when the credential is on
// disk. It waits until ctx or the ticket ends. What an earlier run left unfinished is finished.
func Enrol(ctx context.Context, kafka []kgo.Opt, store *Store, ticket *wire.Ticket, log *slog.Logger) error {
	state, err := store.LoadState()
	if errors.Is(err, fs.ErrNotExist) {
		state, err = keyring.NewState(rand.Reader)
	}
	if err != nil {
		return err
	}
	defer state.Wipe()
	e, err := keyring.NewEnrolment(ticket, state, rand.Reader, time.Now().Round(0))
	if err != nil {
		return err
	}
	defer e.Wipe()
	// The credential will be for this key: it must not be lost with this process.
	if err := store.SaveState(state); err != nil {
		return err
	}
	roster, err := OpenRosterLog(ctx, kafka, log)
	if err != nil {
		return err
	}
	defer roster.Close()
	if err := enrol(ctx, roster, e, ticket, log); err != nil {
		return err
	}
	return store.SaveState(state)
}

// enrol takes the records of the roster and writes what e wants there.
func enrol(ctx context.Context, roster *RosterLog, e *keyring.Enrolment, ticket *wire.Ticket, log *slog.Logger) error {
	end := time.UnixMilli(int64(ticket.NotAfter))
	ctx, cancel := context.WithDeadlineCause(ctx, end.Add(keyring.DefaultTiming().Skew), fmt.Errorf("the ticket ended at %s", end.UTC().Format(time.RFC3339)))
	reading := make(chan struct{})
	records := make(chan keyring.Record)
	go func() {
		defer close(reading)
		roster.Run(ctx, func(key, value []byte) {
			select {
			case records <- keyring.Record{Key: key, Value: value}:
			case <-ctx.Done():
			}
		})
	}()
	defer func() { <-reading }()
	defer cancel()
	// First what is there already: an earlier run's credential.
	read := make(chan error, 1)
	go func() { read <- roster.CatchUp(ctx) }()
	quiet := time.After(enrolQuiet)
	var retry <-chan time.Time
	write := func() error {
		retry = time.After(enrolRetry)
		return roster.Write(ctx, []keyring.Record{e.Record()})
	}
	for {
		answered := e.Answered()
		var err error
		select {
		case rec := <-records:
			done, fault := e.Receive(rec.Key, rec.Value, time.Now().Round(0))
			if done {
				return fault
			}
			if fault != nil {
				log.Debug("roster record passed over", "err", fault)
			}
			if e.Answered() && !answered {
				log.Info("the issuer answered")
				err = write()
			}
		case err = <-read:
			read = nil
			if err == nil {
				err = write()
			}
		case <-retry:
			err = write()
		case <-quiet:
			if !answered {
				log.Info("waiting for the issuer", "until", end.UTC().Format(time.RFC3339),
					"hint", "where the realm is, `wasm-e2ee issuer` must run on the same cluster; it may be started now")
			}
		case <-ctx.Done():
			return fmt.Errorf("no credential: %w\nhint: see that `wasm-e2ee issuer` runs for this realm and on this cluster; until it ends, the same ticket with the same state file goes on; if the issuer says that the ticket was used before, make another one", context.Cause(ctx))
		}
		if err != nil && ctx.Err() == nil {
			return err
		}
	}
}
