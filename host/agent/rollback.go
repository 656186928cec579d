package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// What an honest cluster does not do by itself, and a person may have done.
const hintRollback = "if nobody deleted, recreated or restored the topic, treat the cluster as hostile until explained"

// watchLogs finds out whether a control topic was cut or made anew under its reader, who may
// see nothing of it: no record comes (PROTOCOL.md §2.14).
func (a *Agent) watchLogs() {
	ctx, cancel := context.WithTimeout(a.ctx, time.Minute)
	defer cancel()
	for _, r := range []*reader{a.rosterLog, a.grantsLog} {
		recreated, err := r.watch(ctx, a.adm)
		if recreated {
			a.cl.PurgeTopicsFromProducing(r.topic) // else the client goes on to write to the old one
		}
		a.warn("whether a control topic lost records is not known", a.refusedOr(err), "topic", r.topic)
	}
}

// watch compares the partition with what was read of it, and has it read again from its
// start where it is shorter, twice in a row, or another.
func (r *reader) watch(ctx context.Context, adm *kadm.Client) (recreated bool, err error) {
	if r.restarting() {
		return false, nil
	}
	read := r.position()
	topics, err := adm.ListTopics(ctx, r.topic)
	if err == nil {
		err = topics[r.topic].Err
	}
	var end, start int64
	if err == nil {
		end, err = listOffset(ctx, r.ask, r.topic, r.partition, listEnd)
	}
	if err == nil {
		start, err = listOffset(ctx, r.ask, r.topic, r.partition, listStart)
	}
	if err != nil {
		return false, fmt.Errorf("topic %s: %w", r.topic, err)
	}
	id, known, shorter := topics[r.topic].ID, r.id, end < read
	recreated = known != kadm.TopicID{} && id != known
	if recreated || shorter && r.shorter {
		r.restart(start)
		shorter = false
	}
	r.id, r.shorter = id, shorter
	return recreated, nil
}

// restart has the partition read again from start.
func (r *reader) restart(start int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.again = &start
}

func (r *reader) restarting() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.again != nil
}

// restartDue does what restart asked for. The reading goroutine calls it.
func (r *reader) restartDue() {
	r.mu.Lock()
	again := r.again
	r.mu.Unlock()
	if again == nil {
		return
	}
	if r.follows {
		r.cl.PurgeTopicsFromConsuming(r.topic)
		r.cl.AddConsumePartitions(map[string]map[int32]kgo.Offset{r.topic: {r.partition: kgo.NewOffset().At(*again)}})
	}
	r.setBack(*again)
	r.mu.Lock()
	r.again = nil
	r.mu.Unlock()
}

// setBack says that what comes next has a lower offset than what was read.
func (r *reader) setBack(next int64) {
	r.onSetBack(r.position(), next)
	r.advance(next)
}

// setBack is what follows when a control topic lost records that this node has read: the
// place in the log that the state remembers is in one that is gone, and what this node wrote
// may be gone too.
func (a *Agent) setBack(topic string, read, next int64) {
	a.alarm(AlarmRollback, "a control topic is shorter than what this node has read, or another: reading it again", topic,
		"topic", topic, "read", read, "again_from", next, "hint", hintRollback)
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case topic == rosterTopic:
		a.publish.chain = true
		a.publish.bundle = a.node.HasRole(wire.RoleConsume)
	case a.node.HasRole(wire.RoleConsume):
		a.consumer.RestartGrants(next)
		fallthrough
	default:
		a.grants.lost = true
	}
}

// checkRoster says what the roster, once it was read to its end, lacks of what was there
// before. The caller has written nothing to it yet.
func (a *Agent) checkRoster() {
	at := a.now()
	a.mu.Lock()
	lost := a.roster.Lost(at)
	a.mu.Unlock()
	if len(lost) > 0 {
		a.alarm(AlarmRollback, "the roster lacks, or has in older versions, what this node has read from it before", rosterTopic,
			"records", len(lost), "first", lost[0], "hint", hintRollback)
	}
}

// keptGrants are grants whose epochs are not over yet, for when the topic loses them. They
// are what everybody could read there. It is guarded by the agent's mu.
type keptGrants struct {
	kept []*keyring.Draft
	lost bool // they are to be written again
}

// keep remembers a draft that was written, and forgets those that are over.
func (k *keptGrants) keep(d *keyring.Draft, now time.Time) {
	k.kept = append(k.live(now), d)
}

// live returns the drafts whose epochs are not over.
func (k *keptGrants) live(now time.Time) []*keyring.Draft {
	var out []*keyring.Draft
	for _, d := range k.kept {
		if now.Before(d.UseBy) {
			out = append(out, d)
		}
	}
	return out
}

// regrant writes the grants of this instance's epochs again after they were lost (PROTOCOL.md
// §2.7.3). To whoever has read them before they change nothing.
func (a *Agent) regrant() {
	at := a.now()
	a.mu.Lock()
	lost := a.grants.lost
	a.grants.lost = false
	a.grants.kept = a.grants.live(at)
	drafts := a.grants.kept
	a.mu.Unlock()
	if !lost {
		return
	}
	for _, d := range drafts {
		if _, err := a.write(a.ctx, grantsTopic, d.Records); err != nil {
			a.warn("grants that the topic lost are not written again yet", a.refusedOr(err))
			a.mu.Lock()
			a.grants.lost = true
			a.mu.Unlock()
			return
		}
		a.log.Info("grant written again", "epoch", d.Epoch, "topics", len(d.Topics), "recipients", len(d.Recipients))
	}
}

// untilCanceled tells an error of polling from the end of its time.
func untilCanceled(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}
