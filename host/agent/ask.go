package agent

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// How peers are asked for keys (PROTOCOL.md §2.10, §2.15).
const (
	lateness     = 5 * time.Second        // how long an answer may take
	askAgain     = time.Minute            // from one question for a kid to the next
	askGather    = 100 * time.Millisecond // fetches that start together share a request
	askSpacer    = time.Second            // from one request of this node to the next
	askRetry     = time.Second            // from a question that failed, or had nobody to answer it, to the next
	shareQuiet   = 3 * time.Second        // after which a start waits for no more shares
	maxAskGroups = 4                      // requests for the same kids, one for each group
	maxPeerLooks = 64                     // groups whose peers are looked for, where a prefix covers more
	maxAsked     = 1 << 16                // kids that are remembered
)

// An inquiry remembers which kids peers were asked for and gathers those they are to be asked
// for next. Whoever floods it delays answers, and opens nothing. The zero value is ready.
type inquiry struct {
	mu      sync.Mutex
	kids    map[abi.Kid]*asked
	queue   []abi.Kid     // those with a zero at
	wake    chan struct{} // holds one token while there is a queue
	changed chan struct{} // closed and replaced when a question was sent, or failed
	last    time.Time     // when a request was last made; the inquiring loop's own
}

// An asked is what became of the question for one kid.
type asked struct {
	topic  string
	at     time.Time // when it was sent, or could not be; zero before
	nobody bool      // there is no peer
	err    error     // why it could not be sent
}

// left is how much longer an answer for kid may come; it queues the question where that was
// not asked lately. named says that a signed header names the kid: where it is so and there is
// no peer, none will come. changed is closed when that may be known better.
func (q *inquiry) left(topic string, kid abi.Kid, named bool) (left time.Duration, changed <-chan struct{}, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.initLocked()
	k, now := q.kids[kid], time.Now()
	// A peer, or a group that a prefix covers, may have come since.
	if k == nil || (k.err != nil || k.nobody && named) && !k.at.IsZero() && now.Sub(k.at) >= askRetry || !k.at.IsZero() && now.Sub(k.at) >= askAgain {
		if k == nil && len(q.kids) >= maxAsked {
			q.forgetLocked(now)
		}
		k = &asked{topic: topic}
		q.kids[kid] = k
		q.queue = append(q.queue, kid)
		select {
		case q.wake <- struct{}{}:
		default:
		}
	}
	switch {
	case k.err != nil:
		return 0, nil, k.err
	case k.at.IsZero():
		return askAgain, q.changed, nil
	case k.nobody && named:
		return 0, nil, nil
	}
	return lateness - now.Sub(k.at), q.changed, nil
}

func (q *inquiry) initLocked() {
	if q.kids == nil {
		q.kids, q.wake, q.changed = make(map[abi.Kid]*asked), make(chan struct{}, 1), make(chan struct{})
	}
}

// forgetLocked drops what is old, and everything where nothing is.
func (q *inquiry) forgetLocked(now time.Time) {
	maps.DeleteFunc(q.kids, func(_ abi.Kid, k *asked) bool { return !k.at.IsZero() && now.Sub(k.at) >= lateness })
	if len(q.kids) >= maxAsked {
		clear(q.kids)
		q.queue = nil
	}
}

// waked is where whoever asks waits for a queue.
func (q *inquiry) waked() <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.initLocked()
	return q.wake
}

// take returns at most a request's worth of what is queued, by kid.
func (q *inquiry) take() map[abi.Kid]string {
	q.mu.Lock()
	defer q.mu.Unlock()
	out := make(map[abi.Kid]string)
	for len(q.queue) > 0 && len(out) < wire.MaxRequested {
		if k := q.kids[q.queue[0]]; k != nil && k.at.IsZero() {
			out[q.queue[0]] = k.topic
		}
		q.queue = q.queue[1:]
	}
	if len(q.queue) > 0 {
		select {
		case q.wake <- struct{}{}:
		default:
		}
	}
	return out
}

// sent notes that the question for kids was sent, or why it was not.
func (q *inquiry) sent(kids []abi.Kid, nobody bool, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.initLocked()
	now := time.Now()
	for _, kid := range kids {
		if q.kids[kid] == nil && len(q.kids) >= maxAsked {
			q.forgetLocked(now)
		}
		q.kids[kid] = &asked{at: now, nobody: nobody, err: err}
	}
	close(q.changed)
	q.changed = make(chan struct{})
}

// lately reports whether kid was asked for within the last minute.
func (q *inquiry) lately(kid abi.Kid) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	k := q.kids[kid]
	return k != nil && k.err == nil && time.Since(k.at) < askAgain
}

// inquiring asks the peers of this node's groups for what fetches lack, and at the start for
// the newest of what is lacking: a peer that is up now may not be when it is fetched.
func (a *Agent) inquiring() {
	select {
	case <-a.joined: // peers know this node's prekey by now
	case <-a.ctx.Done():
		return
	}
	ready := sync.OnceFunc(func() { close(a.ready) })
	defer time.AfterFunc(lateness, ready).Stop()
	if err := a.grantsLog.catchUp(a.ctx); err == nil {
		a.awaitShares(a.inquire(nil))
	}
	ready()
	wake := a.inquiry.waked()
	for {
		select {
		case <-wake:
		case <-a.ctx.Done():
			return
		}
		a.pause(askGather)
		if kids := a.inquiry.take(); len(kids) > 0 {
			a.inquire(kids)
		}
	}
}

// awaitShares returns when none of kids is missing any more, or nothing has come for a while.
func (a *Agent) awaitShares(kids []abi.Kid) {
	late := time.After(lateness)
	for a.ctx.Err() == nil {
		moved := a.grantsLog.movement()
		a.mu.Lock()
		done := !slices.ContainsFunc(kids, func(kid abi.Kid) bool { return a.consumer.Missing(kid) != "" })
		a.mu.Unlock()
		if done {
			return
		}
		quiet := time.NewTimer(shareQuiet)
		select {
		case <-moved:
		case <-quiet.C:
			return
		case <-late:
			return
		case <-a.ctx.Done():
		}
		quiet.Stop()
	}
}

// inquire asks for kids, by topic, and what goes with them in one request for each group
// that has a peer; without kids, for the newest that are missing. It returns what it asked
// for.
func (a *Agent) inquire(kids map[abi.Kid]string) []abi.Kid {
	list := slices.Collect(maps.Keys(kids))
	ctx, cancel := context.WithTimeout(a.ctx, requestTimeout)
	defer cancel()
	groups, err := a.groupNames(ctx)
	groups = groups[:min(len(groups), maxPeerLooks)]
	if err != nil {
		a.warn("peers cannot be asked for keys", err)
		a.inquiry.sent(list, false, err)
		return nil
	}
	at := a.now()
	a.mu.Lock()
	if len(kids) == 0 {
		list = a.consumer.Requestable(nil, a.inquiry.lately)
	}
	var alone []abi.Kid // kids that nobody could answer for
	with := make(map[string]bool)
	peers := make(map[string]bool) // topics
	for _, kid := range list {
		topic, ok := kids[kid]
		if !ok {
			topic = a.consumer.Missing(kid)
		}
		found, seen := peers[topic]
		if !seen {
			for _, g := range groups {
				if a.consumer.HasPeer(topic, []string{g}, a.roster, at) {
					found, with[g] = true, true
				}
			}
			peers[topic] = found
		}
		if !found {
			alone = append(alone, kid)
		}
	}
	list = slices.DeleteFunc(list, func(kid abi.Kid) bool { return slices.Contains(alone, kid) })
	if len(list) > 0 && len(kids) > 0 {
		list = a.consumer.Requestable(list, a.inquiry.lately)
	}
	a.mu.Unlock()
	// What a start finds says nothing of a fetch: its group may have come into being since.
	if len(alone) > 0 && len(kids) > 0 {
		a.inquiry.sent(alone, true, nil)
	}
	if len(list) == 0 {
		return nil
	}
	groups = slices.DeleteFunc(groups, func(g string) bool { return !with[g] })
	for i, group := range groups[:min(len(groups), maxAskGroups)] {
		a.pause(time.Until(a.inquiry.last.Add(askSpacer)))
		a.inquiry.last = time.Now()
		err = a.request(ctx, group, list)
		if err != nil {
			a.warn("peers cannot be asked for keys", a.refusedOr(err), "group", group)
			break
		}
		a.log.Info("peers asked for keys", "group", group, "kids", len(list))
		if i == 0 {
			a.inquiry.sent(list, false, nil)
		}
	}
	if err != nil {
		a.inquiry.sent(list, false, err)
	}
	return list
}

func (a *Agent) request(ctx context.Context, group string, kids []abi.Kid) error {
	at := a.now()
	a.mu.Lock()
	rec, err := a.consumer.EpochRequest(group, kids, at)
	a.mu.Unlock()
	if err != nil {
		return err
	}
	if _, err = a.write(ctx, rosterTopic, []keyring.Record{rec}); err != nil {
		return fmt.Errorf("epoch request: %w", err)
	}
	return nil
}

// pause waits for d, or until the agent ends.
func (a *Agent) pause(d time.Duration) {
	select {
	case <-time.After(d):
	case <-a.ctx.Done():
	}
}
