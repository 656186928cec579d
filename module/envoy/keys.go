package envoy

import (
	"fmt"
	"maps"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/channel"
	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
	"github.com/wasm-e2ee/wasm-e2ee/module/filter"
)

// Times in ms, and bounds.
const (
	// renewEvery is how often each root held is renewed; it lives three times as long.
	renewEvery = 20_000
	rootLife   = uint64(channel.RootLife / time.Millisecond)

	askAgain   = 100    // after an answer that a key is not there yet
	aheadAgain = 1000   // between requests for a lease that is not missed yet
	leaseKept  = 1000   // why there is no lease
	rootKept   = 10_000 // why there is no root
	unasked    = 30_000 // after which it is forgotten that somebody wanted a key
	rootLate   = 5000   // after which a root that is not there is worth a line in the log

	// aheadTime is how long before its last moment a lease in use is followed by another.
	aheadTime = 2000

	maxTopicsAsked = 4096    // for leases
	maxRootsAsked  = 4096    // and partitions, for roots
	maxOpened      = 1 << 15 // batches of which the agent was not told yet
	maxRenewed     = 4000    // kids in one request
)

// Keys knows which leases and roots the filter holds, which it lacks, and what the agent said
// of them. What the agent gave expires here by itself: an agent that is gone leaves nothing
// behind (PROTOCOL.md §2.12).
type Keys struct {
	filter  *filter.Filter
	cfg     *Config // of the worker
	leases  map[string]*leasing
	wanted  map[rootID]*wanting
	held    map[abi.Kid]*holding
	replays replays
	shared  *sharedReplays    // nil where there is one worker only
	opened  []channel.Request // OPENED, in order
	groups  groups

	cutOff  bool              // no agent answers, or none that is ours
	answer  int               // HTTP status of its last answer, where cutOff
	checkAt uint64            // when held is looked through for what to renew
	asked   []channel.Request // in the call that is under way
	sentAt  uint64
}

// A leasing is what is known of one topic's leases.
type leasing struct {
	kid       abi.Kid // of the newest lease
	end, size uint32  // its leaves end before end
	useBy     uint64  // Unix ms

	ask       bool   // for another
	notBefore uint64 // Unix ms
	since     uint64 // when the topic began to lack a lease; 0 where it does not
	missed    uint64 // when that was noticed last
	used      uint64 // when a batch was sealed last
	refused   abi.Status
	refusedAt uint64
}

// A rootID is a root that a partition needs. Why there is none may differ among partitions.
type rootID struct {
	kid       abi.Kid
	partition int32
}

// A wanting is what is known of a root that the filter does not hold.
type wanting struct {
	topic     string
	ask       bool
	notBefore uint64
	since     uint64 // when it was missed first
	needed    uint64 // when it was missed last
	refused   abi.Status
	refusedAt uint64
}

// A holding is what the filter holds under one kid.
type holding struct {
	root    uint64 // when its root expires, Unix ms; 0 where it has none
	lease   uint64 // when its last lease does
	renewAt uint64
}

// NewKeys returns the keys of f, which nobody else installs any in.
func NewKeys(f *filter.Filter) *Keys {
	return &Keys{filter: f, cfg: &Config{}, leases: map[string]*leasing{}, wanted: map[rootID]*wanting{}, held: map[abi.Kid]*holding{}}
}

// NeedLease notes that a batch of this topic cannot be sealed. It returns StatusPending while
// the agent is asked, and else what it said.
func (k *Keys) NeedLease(topic string, now uint64) abi.Status {
	l := k.leases[topic]
	if l == nil {
		if len(k.leases) >= maxTopicsAsked {
			return abi.StatusFull
		}
		l = &leasing{}
		k.leases[topicName(topic)] = l
	}
	if l.refused != 0 && now-l.refusedAt < leaseKept {
		return l.refused
	}
	if l.since == 0 || now-l.missed > unasked {
		l.since = now
	}
	l.missed, l.ask, l.refused = now, true, 0
	return abi.StatusPending
}

// leaseDeadline is when a Produce that begins to wait now is refused: full ms after the topic
// began to lack its lease, but no sooner than a tenth of that. If each request waited the whole
// time, those that a client pipelines would outlive its patience, and healthy topics beside
// this one would starve.
func (k *Keys) leaseDeadline(topic string, now, full uint64) uint64 {
	return max(k.leases[topic].since+full, now+full/10)
}

// sealed is told of every batch that was sealed, so that the next lease is asked for before
// this one is used up.
func (k *Keys) sealed(topic string, kid abi.Kid, leaf uint32, now uint64) {
	l := k.leases[topic]
	if l == nil {
		return
	}
	l.used, l.since = now, 0
	if l.kid == kid && l.end-leaf-1 <= l.size/4 {
		l.ask = true
	}
}

// NeedRoot notes that a batch of this partition cannot be opened. It returns StatusPending
// while the agent is asked, and else what it said.
func (k *Keys) NeedRoot(topic string, partition int32, kid abi.Kid, now uint64) abi.Status {
	id := rootID{kid, partition}
	w := k.wanted[id]
	if w == nil {
		if len(k.wanted) >= maxRootsAsked {
			return abi.StatusFull
		}
		w = &wanting{topic: topicName(topic), since: now}
		k.wanted[id] = w
	}
	if w.refused != 0 && now-w.refusedAt < rootKept {
		return w.refused
	}
	w.needed, w.ask, w.refused = now, true, 0
	return abi.StatusPending
}

// late reports whether a root has been missed for longer than the exchange of keys takes: that
// the first batches of each epoch come before their root does is as it should be.
func (k *Keys) late(id rootID, now uint64) bool {
	w := k.wanted[id]
	return w == nil || now-w.since >= rootLate
}

// awaits reports whether the agent has still to say something of a root.
func (k *Keys) awaits(id rootID) bool {
	w := k.wanted[id]
	return w != nil && w.refused == 0
}

// Opened is told of every batch that opened, before it is delivered, with the base offset at
// which the broker served it (PROTOCOL.md §2.8.6). With any status but StatusOK the batch must
// not be delivered. The agent is told in its turn.
func (k *Keys) Opened(topic string, kid abi.Kid, leaf uint32, partition int32, offset int64) abi.Status {
	if len(k.opened) >= maxOpened {
		return abi.StatusUnavailable
	}
	if k.shared != nil && k.replays.allows(kid, leaf, partition, offset) {
		switch k.shared.note(sharedID(kid, leaf, partition), uint64(offset), false) {
		case notedElsewhere:
			return abi.StatusReplayed
		case notNoted:
			k.cfg.report(Event{Kind: EventShared})
			return abi.StatusUnavailable
		}
	}
	fresh, status := k.replays.note(kid, leaf, partition, offset)
	if fresh && status == abi.StatusOK {
		k.opened = append(k.opened, channel.Request{
			Op: channel.OpOpened, Topic: topicName(topic), Kid: kid, Leaf: leaf, Partition: partition, Offset: offset,
		})
	}
	return status
}

// expire erases what may not be kept any longer, and forgets who asked for what.
func (k *Keys) expire(now uint64) {
	for kid, h := range k.held {
		switch {
		case h.root != 0 && (now > h.root || h.root-now > rootLife): // or the clock went back
			k.erase(kid)
		case h.root == 0 && now > h.lease:
			delete(k.held, kid) // the filter erases leases by their own time
		}
	}
	maps.DeleteFunc(k.wanted, func(_ rootID, w *wanting) bool { return now-max(w.needed, w.refusedAt) > unasked })
	maps.DeleteFunc(k.leases, func(_ string, l *leasing) bool {
		return now > l.useBy && now-max(l.missed, l.used) > unasked
	})
}

func (k *Keys) erase(kid abi.Kid) {
	k.filter.Erase([]abi.Kid{kid})
	delete(k.held, kid)
	k.replays.forget(kid)
}

// requests returns what the agent is to be asked now; none where there is nothing.
func (k *Keys) requests(now uint64) []channel.Request {
	var all []channel.Request
	if k.groups.due(now) {
		all = append(all, channel.Request{Op: channel.OpGroups})
	}
	if now >= k.checkAt {
		k.checkAt = now + 1000
		if kids := k.renewals(now); len(kids) > 0 {
			all = append(all, channel.Request{Op: channel.OpRenew, Kids: kids})
		}
	}
	for topic, l := range k.leases {
		if l.useBy != 0 && now+aheadTime > l.useBy && now-l.used < aheadTime {
			l.ask = true
		}
		if l.ask && now >= l.notBefore {
			all = append(all, channel.Request{Op: channel.OpLease, Topic: topic})
		}
	}
	for id, w := range k.wanted {
		if w.ask && now >= w.notBefore {
			all = append(all, channel.Request{Op: channel.OpRoot, Topic: w.topic, Partition: id.partition, Kid: id.kid})
		}
	}
	all = append(all, k.opened[:min(len(k.opened), maxRenewed)]...)
	k.asked, k.sentAt = all[:channel.Fits(all)], now
	return k.asked
}

// renewals returns the kids that are to be renewed: all that are due, and those that soon will
// be, so that they are renewed together.
func (k *Keys) renewals(now uint64) []abi.Kid {
	var kids []abi.Kid
	due := false
	for kid, h := range k.held {
		if h.renewAt <= now+renewEvery/4 && len(kids) < maxRenewed {
			kids = append(kids, kid)
			due = due || h.renewAt <= now
		}
	}
	if !due {
		return nil
	}
	return kids
}

// answered takes what the agent said to the requests under way. After an error what was not
// understood is asked again.
func (k *Keys) answered(answers []channel.Answer, now uint64) error {
	asked := k.asked
	k.asked = nil
	var open []channel.Request // OPENED that the agent could not take
	told := 0
	for i := range asked {
		q, a := &asked[i], &answers[i]
		var err error
		switch q.Op {
		case channel.OpLease:
			err = k.leaseAnswered(q, a, now)
		case channel.OpRoot:
			err = k.rootAnswered(q, a, now)
		case channel.OpRenew:
			err = k.renewed(q, a)
		case channel.OpGroups:
			err = k.groups.answered(a, k.sentAt)
		case channel.OpOpened:
			told++
			if k.told(q, a.Status) {
				open = append(open, *q)
			}
		}
		if err != nil {
			return fmt.Errorf("%v: %w", q.Op, err)
		}
	}
	k.opened = append(open, k.opened[told:]...)
	return nil
}

func (k *Keys) leaseAnswered(q *channel.Request, a *channel.Answer, now uint64) error {
	l := k.leases[q.Topic]
	if l == nil {
		return nil // nobody wants it any more; its leaves are lost
	}
	l.ask, l.notBefore = false, now+askAgain
	if a.Status == abi.StatusPending || a.Status == abi.StatusUnavailable {
		return nil
	}
	if a.Status != abi.StatusOK {
		l.refused, l.refusedAt, l.notBefore = a.Status, now, now+aheadAgain
		return nil
	}
	lease, err := abi.ParseLease(a.Body)
	defer clear(lease.Node[:])
	if err != nil || lease.Topic != q.Topic {
		return channel.ErrMalformed
	}
	if s := k.filter.InstallLease(&lease); s != abi.StatusOK {
		l.refused, l.refusedAt, l.notBefore = s, now, now+aheadAgain
		return nil
	}
	l.kid, l.size, l.useBy, l.since, l.refused = lease.Kid, 1<<(abi.TreeDepth-lease.Level), lease.UseBy, 0, 0
	l.end = lease.Start + l.size
	if now < l.missed+aheadAgain {
		l.used = now // what waited for it is sealed next. An answer alone is no use
	}
	l.notBefore = now
	if now+aheadTime > l.useBy {
		l.notBefore = now + aheadAgain // the next one is not there yet either
	}
	h := k.hold(lease.Kid)
	h.lease = max(h.lease, lease.UseBy)
	return nil
}

// hold returns the holding of a kid, and makes it where there is none.
func (k *Keys) hold(kid abi.Kid) *holding {
	h := k.held[kid]
	if h == nil {
		h = &holding{renewAt: k.sentAt + renewEvery}
		k.held[kid] = h
	}
	return h
}

func (k *Keys) rootAnswered(q *channel.Request, a *channel.Answer, now uint64) error {
	id := rootID{q.Kid, q.Partition}
	w := k.wanted[id]
	if w == nil {
		return nil
	}
	w.ask, w.notBefore = false, now+askAgain
	if a.Status == abi.StatusPending || a.Status == abi.StatusUnavailable {
		return nil
	}
	if a.Status != abi.StatusOK {
		w.refused, w.refusedAt = a.Status, now
		return nil
	}
	root, err := abi.ParseRoot(a.Body)
	defer clear(root.Root[:])
	if err != nil || root.Kid != q.Kid || root.Topic != q.Topic {
		return channel.ErrMalformed
	}
	if s := k.filter.InstallRoot(&root); s != abi.StatusOK {
		w.refused, w.refusedAt = s, now
		return nil
	}
	delete(k.wanted, id)
	// The agent counts from when it answered, which is later.
	k.hold(root.Kid).root = k.sentAt + rootLife
	return nil
}

// renewed keeps what the agent names, and erases the rest at once.
func (k *Keys) renewed(q *channel.Request, a *channel.Answer) error {
	if a.Status != abi.StatusOK {
		return nil // it is tried again in a second
	}
	kids, err := channel.ParseKids(a.Body)
	if err != nil {
		return err
	}
	kept := make(map[abi.Kid]bool, len(kids))
	for _, kid := range kids {
		kept[kid] = true
	}
	for _, kid := range q.Kids {
		h := k.held[kid]
		switch {
		case h == nil:
		case !kept[kid]:
			k.erase(kid)
			k.follow(kid)
		default:
			h.renewAt = k.sentAt + renewEvery
			if h.root != 0 {
				h.root = k.sentAt + rootLife
			}
		}
	}
	return nil
}

// follow asks for a lease in the place of one whose epoch was replaced, before a Produce misses it.
func (k *Keys) follow(kid abi.Kid) {
	for _, l := range k.leases {
		if l.kid == kid && k.sentAt-l.used < renewEvery {
			l.ask, l.notBefore = true, 0
		}
	}
}

// told takes what the agent said of a batch that opened. It reports whether it must be told again.
func (k *Keys) told(q *channel.Request, s abi.Status) bool {
	switch s {
	case abi.StatusReplayed:
		k.replays.bar(q.Kid, q.Leaf, q.Partition)
		if k.shared != nil && k.shared.note(sharedID(q.Kid, q.Leaf, q.Partition), 0, true) == notNoted {
			k.cfg.report(Event{Kind: EventShared})
			return true // the agent says it again
		}
	case abi.StatusErased:
		k.erase(q.Kid)
	}
	return kafka.FetchRetries(s)
}
