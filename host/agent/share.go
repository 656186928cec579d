package agent

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

const (
	// maxRequests is how many requests of peers wait to be looked at. One that finds no room is
	// made again within a minute.
	maxRequests = 1024
	// shareTimeout bounds the answer to one request.
	shareTimeout = 30 * time.Second
	// maxSkim is the longest stretch of the grants partition that is read for nothing on the
	// way from one grant to the next.
	maxSkim = 500
	// shareBatch is how many shares are written at once: they are up to 150 KB each.
	shareBatch = 32
)

// enqueue hands a peer's request to sharing, which may be slow: the roster's reader is not to
// wait for it.
func (a *Agent) enqueue(rec *kgo.Record) {
	select {
	case a.requests <- rec:
	default:
		a.warn("requests of peers are dropped", errors.New("too many at once"))
	}
}

// sharing answers the requests of peers (PROTOCOL.md §2.10).
func (a *Agent) sharing() {
	select {
	case <-a.joined: // the roster was read: who asks, and with which prekey, is known
	case <-a.ctx.Done():
		return
	}
	for {
		select {
		case rec := <-a.requests:
			at := a.now()
			a.mu.Lock()
			tasks, err := a.consumer.Share(rec.Key, rec.Value, a.roster, at)
			a.mu.Unlock()
			a.refuse(rec, err)
			if len(tasks) > 0 {
				a.warn("keys could not be shared with a peer", a.refusedOr(a.share(tasks)))
			}
		case <-a.ctx.Done():
			return
		}
	}
}

// share wraps what tasks name for the peer and writes it. What cannot be shared any more is
// left out: the peer asks somebody else.
func (a *Agent) share(tasks []keyring.ShareTask) error {
	ctx, cancel := context.WithTimeoutCause(a.ctx, shareTimeout, errors.New("not done within 30s"))
	defer cancel()
	var records []keyring.Record
	flush := func() error {
		if len(records) == 0 {
			return nil
		}
		_, err := a.write(ctx, grantsTopic, records)
		records = nil
		return err
	}
	var sources []int64
	for _, t := range tasks {
		sources = append(sources, t.Source)
	}
	shared := 0
	err := a.readGrantsAt(ctx, slices.Compact(sources), func(rec *kgo.Record) error {
		at := a.now()
		for _, t := range tasks {
			if t.Source != rec.Offset {
				continue
			}
			a.mu.Lock()
			share, err := a.consumer.MakeShare(t, rec.Value, at)
			a.mu.Unlock()
			if err != nil {
				a.warn("a key is not shared", err, "kid", hex.EncodeToString(t.Kid[:]))
				continue
			}
			records = append(records, share)
			shared++
		}
		if len(records) < shareBatch {
			return nil
		}
		return flush()
	})
	err = errors.Join(err, flush())
	if err == nil && shared > 0 {
		a.log.Info("keys shared with a peer", "peer", tasks[0].Recipient, "kids", shared)
	}
	return err
}

// readGrantsAt gives the records of the own grants partition at offsets, which ascend, to f.
func (a *Agent) readGrantsAt(ctx context.Context, offsets []int64, f func(*kgo.Record) error) error {
	var cl *kgo.Client
	defer func() {
		if cl != nil {
			cl.Close()
		}
	}()
	next := int64(-1)
	for len(offsets) > 0 {
		if want := offsets[0]; cl == nil || want < next || want-next > maxSkim {
			if cl != nil {
				cl.Close()
			}
			var err error
			if cl, err = a.grantsFromOffset(want); err != nil {
				return err
			}
			next = want
		}
		fetches := cl.PollFetches(ctx)
		for _, e := range fetches.Errors() {
			return fmt.Errorf("topic %s, partition %d: read offset %d: %w", grantsTopic, a.node.GrantPartition(), offsets[0], e.Err)
		}
		var err error
		fetches.EachRecord(func(rec *kgo.Record) {
			for len(offsets) > 0 && offsets[0] < rec.Offset {
				offsets = offsets[1:] // retention took it meanwhile
			}
			if len(offsets) > 0 && rec.Offset == offsets[0] && err == nil {
				offsets = offsets[1:]
				if !rec.Attrs.IsControl() {
					err = f(rec)
				}
			}
			next = rec.Offset + 1
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// grantsFromOffset makes a client that reads the own grants partition from offset on, or from
// its start where that is no longer in the log.
func (a *Agent) grantsFromOffset(offset int64) (*kgo.Client, error) {
	return newClient(a.cfg.Kafka,
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{grantsTopic: {a.node.GrantPartition(): kgo.NewOffset().At(offset)}}),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadUncommitted()),
		kgo.KeepControlRecords(), // only their offsets count
		kgo.FetchMaxWait(500*time.Millisecond),
	)
}
