package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// A RosterLog is the roster topic for whoever is no node at work: an issuer, an operator, a
// node that enrols.
type RosterLog struct {
	// OnSetBack, where it is not nil, is called by Run before the roster is read again that lost
	// what was read of it. It is to be set before Run.
	OnSetBack func()

	cl   *kgo.Client
	log  *reader
	need aclList
}

// rosterWatch is how often it is looked whether the roster is still the same log.
const rosterWatch = 5 * time.Second

// rosterACLs is what a RosterLog needs.
var rosterACLs = aclList{{controlOperations, "Topic", rosterTopic, false}}

// OpenRosterLog reaches the brokers and sees to the topic, within about 20 s.
func OpenRosterLog(ctx context.Context, kafka []kgo.Opt, log *slog.Logger) (*RosterLog, error) {
	cl, err := newClient(kafka)
	if err != nil {
		return nil, err
	}
	l := &RosterLog{cl: cl, need: rosterACLs}
	if err := l.open(ctx, kafka, log); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

func (l *RosterLog) open(ctx context.Context, kafka []kgo.Opt, log *slog.Logger) (err error) {
	if err := ping(ctx, l.cl); err != nil {
		return err
	}
	if err := ensureTopics(ctx, l.cl, controlTopics(0)[:1], l.need, log); err != nil {
		return err
	}
	if l.log, err = newReader(kafka, l.cl, rosterTopic, 0, 0, true, l.need, log); err != nil {
		return err
	}
	l.log.onSetBack = func(read, next int64) {
		log.Error("a control topic is shorter than what was read of it, or another: reading it again", "alarm", string(AlarmRollback),
			"topic", rosterTopic, "read", read, "again_from", next, "hint", hintRollback)
		if l.OnSetBack != nil {
			l.OnSetBack()
		}
	}
	return nil
}

// Run gives the records of the roster, from its start, to apply, until ctx ends. A value that
// is nil is a tombstone. A roster that is made anew meanwhile is read again.
func (l *RosterLog) Run(ctx context.Context, apply func(key, value []byte)) {
	var watching sync.WaitGroup
	defer watching.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watching.Go(func() { l.watch(ctx) })
	l.log.run(ctx, func(rec *kgo.Record, _ time.Time) { apply(rec.Key, rec.Value) })
}

// watch finds out what the reader does not see: of another topic under the same name no
// record comes.
func (l *RosterLog) watch(ctx context.Context) {
	var quiet limiter
	adm := kadm.NewClient(l.cl)
	for ctx.Err() == nil {
		recreated, err := l.log.watch(ctx, adm)
		if recreated {
			l.cl.PurgeTopicsFromProducing(rosterTopic)
		}
		if err != nil && ctx.Err() == nil && quiet.allow(err.Error(), 1) {
			l.log.log.Warn("whether a control topic lost records is not known", "err", err)
		}
		select {
		case <-time.After(rosterWatch):
		case <-ctx.Done():
		}
	}
}

// CatchUp returns once Run has applied everything that stood on the roster when it was called.
func (l *RosterLog) CatchUp(ctx context.Context) error {
	err := l.log.catchUp(ctx)
	if unauthorized(err) {
		err = l.need.refused(err)
	}
	return err
}

// Write writes records to the roster and waits for their acknowledgements, for at most 30 s.
func (l *RosterLog) Write(ctx context.Context, records []keyring.Record) error {
	_, err := writeRecords(ctx, l.cl, rosterTopic, records)
	if unauthorized(err) {
		err = l.need.refused(err)
	}
	return err
}

// Close ends what Run and Write need.
func (l *RosterLog) Close() {
	if l.log != nil {
		l.log.cl.Close()
	}
	l.cl.Close()
}

// writeRecords writes records to a control topic and waits for all acknowledgements, for at
// most ackTimeout.
func writeRecords(ctx context.Context, cl *kgo.Client, topic string, records []keyring.Record) ([]*kgo.Record, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, ackTimeout, errors.New("no acknowledgement within 30s"))
	defer cancel()
	out := make([]*kgo.Record, len(records))
	for i, r := range records {
		out[i] = &kgo.Record{Topic: topic, Partition: r.Partition, Key: r.Key, Value: r.Value}
	}
	if err := cl.ProduceSync(ctx, out...).FirstErr(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, fmt.Errorf("topic %s: write: %w", topic, err)
	}
	return out, nil
}
