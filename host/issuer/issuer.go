// Package issuer runs a realm's issuer (abi/PROTOCOL.md §2.12): it answers, on the roster
// topic, nodes that enrol with a ticket and nodes that renew, and keeps the AuthorityState
// fresh. It may come and go: whoever asked is answered when it is back. host/keyring decides;
// this package reads, remembers in a file, and writes.
package issuer

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/agent"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
	"github.com/wasm-e2ee/wasm-e2ee/host/private"
)

// What anybody who may write to the roster can make an issuer do: roundSize messages each
// roundPeriod, and a few milliseconds for each.
const (
	roundSize   = 32
	roundPeriod = 100 * time.Millisecond
	maxQueue    = 1 << 14
	maxMessage  = wire.MaxCredentialSize + 64 // the largest that a node sends, in bytes
)

// tidyPeriod is how often the issuer looks at what is due without being asked.
const tidyPeriod = 10 * time.Second

// Config is what an issuer needs to know.
type Config struct {
	Issuer *keyring.Issuer
	Book   string        // path of its book
	Kafka  []kgo.Opt     // how to reach the brokers
	Fresh  time.Duration // S: for how long an AuthorityState is good; zero means the default
	Log    *slog.Logger
}

// A desk is an issuer at work.
type desk struct {
	cfg    Config
	log    *slog.Logger
	roster *agent.RosterLog
	wake   chan struct{}

	mu      sync.Mutex
	view    *keyring.Roster
	queue   []message
	waiting map[string]message // renewals of credentials that are not on the roster yet
	outbox  outbox
	lost    bool      // the roster is another one: what the issuer wrote is to be written again
	refused time.Time // when a record of the roster was last called refused
}

type message struct {
	key, value []byte
	read       uint64 // outbox.read then
}

// Run serves until ctx ends. Two processes do not serve for the same book.
func Run(ctx context.Context, cfg Config) error {
	if cfg.Fresh == 0 {
		cfg.Fresh = keyring.StateValidity
	}
	if err := cfg.Issuer.Check(time.Now()); err != nil {
		return err
	}
	path, err := private.Resolve(cfg.Book)
	if err != nil {
		return fmt.Errorf("issuer's book: %w", err)
	}
	lock, err := private.Lock(path + ".serving")
	if errors.Is(err, private.ErrBusy) {
		return fmt.Errorf("another process serves for %s\nhint: one issuer at a time; it may run anywhere that reaches the brokers", path)
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	roster, err := agent.OpenRosterLog(ctx, cfg.Kafka, cfg.Log)
	if err != nil {
		return err
	}
	defer roster.Close()
	d := &desk{cfg: cfg, log: cfg.Log, roster: roster, wake: make(chan struct{}, 1),
		view: cfg.Issuer.Roster(keyring.DefaultTiming()), waiting: map[string]message{}}
	roster.OnSetBack = d.setBack
	return d.run(ctx)
}

func (d *desk) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var reading sync.WaitGroup
	defer reading.Wait()
	defer cancel()
	reading.Go(func() { d.roster.Run(ctx, d.read) })
	// Nothing is decided on half a roster: who is revoked, which lineage is the newest.
	for {
		err := d.roster.CatchUp(ctx)
		if err == nil {
			break
		}
		d.log.Warn("the roster is not read yet", "err", err)
		if !pause(ctx, time.Second) {
			return nil
		}
	}
	c := d.cfg.Issuer.Certificate()
	d.log.Info("issuing", "realm", c.Realm, "issuer", c.Node, "certificate_ends", time.UnixMilli(int64(c.NotAfter)).UTC())
	d.add([]keyring.Record{d.cfg.Issuer.Record()}, 0)
	for {
		if err := d.round(ctx); err != nil && ctx.Err() == nil {
			return err
		}
		if !pause(ctx, roundPeriod) {
			return nil
		}
		select {
		case <-d.wake:
		case <-time.After(tidyPeriod):
		case <-ctx.Done():
			return nil
		}
	}
}

// pause reports false when ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// read takes one record of the roster.
func (d *desk) read(key, value []byte) {
	if len(key) == 0 {
		return
	}
	now := time.Now().Round(0)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.outbox.note(key, value)
	if err := d.view.Apply(key, value, now); err != nil {
		level := slog.LevelDebug
		if !errors.Is(err, keyring.ErrOtherRealm) && !errors.Is(err, keyring.ErrRollback) && now.Sub(d.refused).Abs() > time.Minute {
			level, d.refused = slog.LevelWarn, now
		}
		d.log.Log(context.Background(), level, "roster record refused", "err", err)
	}
	switch t := wire.Type(key[0]); {
	case t == wire.TypeCredential:
		d.requeue()
	case t != wire.TypeEnrolment && t != wire.TypeRenewal || value == nil:
		return
	case len(value) > maxMessage || len(d.queue) >= maxQueue:
		d.log.Debug("message passed over", "type", t, "bytes", len(value), "queued", len(d.queue))
		return
	default:
		d.queue = append(d.queue, message{key, value, d.outbox.read})
	}
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// setBack is what follows when the roster lost records: who reads it from now on is to find
// who is revoked all the same.
func (d *desk) setBack() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lost, d.outbox.present = true, nil
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// requeue looks again at renewals that came before what they renew: compaction moves a
// credential behind its node's request. The caller holds mu.
func (d *desk) requeue() {
	for k, m := range d.waiting {
		delete(d.waiting, k)
		if len(d.queue) < maxQueue {
			d.queue = append(d.queue, m)
		}
	}
}

// round answers some of what was asked, sees to what is due, and writes. The book is on disk
// before anything of it is written.
func (d *desk) round(ctx context.Context) error {
	now := time.Now().Round(0)
	d.mu.Lock()
	n := min(len(d.queue), roundSize)
	asked := d.queue[:n]
	d.queue = d.queue[n:]
	more := len(d.queue) != 0
	d.mu.Unlock()

	type answer struct {
		records []keyring.Record
		asked   uint64
	}
	var answers []answer
	var out []keyring.Record
	err := Update(ctx, d.cfg.Book, func(b *keyring.Book) {
		d.mu.Lock()
		defer d.mu.Unlock()
		for _, m := range asked {
			answers = append(answers, answer{d.answer(b, m, now), m.read})
		}
		out = append(out, b.Expire(now)...)
		out = append(out, d.authority(b, now)...)
		if d.lost {
			out = append(out, d.cfg.Issuer.Record())
		}
		d.lost = false
	})
	if err != nil {
		return err
	}
	for _, a := range answers {
		d.add(a.records, a.asked)
	}
	d.add(out, 0)
	d.mu.Lock()
	due := d.outbox.due(now)
	d.mu.Unlock()
	if len(due) != 0 {
		if err := d.roster.Write(ctx, due); err != nil && ctx.Err() == nil {
			d.log.Warn("the roster is not written", "records", len(due), "err", err)
			d.mu.Lock()
			d.outbox.failed()
			d.mu.Unlock()
			more = true
		}
	}
	if more {
		select {
		case d.wake <- struct{}{}:
		default:
		}
	}
	return nil
}

// answer has the book decide. The caller holds mu.
func (d *desk) answer(b *keyring.Book, m message, now time.Time) []keyring.Record {
	var out []keyring.Record
	var err error
	if wire.Type(m.key[0]) == wire.TypeEnrolment {
		out, err = b.Enrol(rand.Reader, d.cfg.Issuer, m.key, m.value, now)
	} else {
		out, err = b.Renew(rand.Reader, d.cfg.Issuer, d.view, m.key, m.value, now)
	}
	for _, a := range []struct {
		is   error
		kind string
	}{{keyring.ErrSecondUse, "ticket_reuse"}, {keyring.ErrFork, "fork"}, {keyring.ErrOldLineage, "old_lineage"}} {
		if errors.Is(err, a.is) {
			d.log.Error("somebody else has what belongs to one node", "alarm", a.kind, "err", err)
			return out
		}
	}
	if errors.Is(err, keyring.ErrUnknownCredential) && len(d.waiting) < maxQueue {
		d.waiting[string(m.key)] = m
	}
	if err != nil {
		d.log.Debug("not answered", "type", wire.Type(m.key[0]), "err", err)
	}
	return out
}

// add puts records into the outbox, and says who was given a credential.
func (d *desk) add(records []keyring.Record, asked uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range records {
		if !d.outbox.add(r, asked) || wire.Type(r.Key[0]) != wire.TypeCredential {
			continue
		}
		if c, err := wire.ParseCredential(r.Value); err == nil && !c.Roles.Has(wire.RoleIssuer) {
			d.log.Info("credential given", "node", c.Node, "lineage", c.Lineage, "roles", c.Roles, "topics", c.Topics, "groups", c.Groups,
				"ends", time.UnixMilli(int64(c.NotAfter)).UTC())
		}
	}
}
