package keyring

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/module/ratchet"
)

// Limits of one epoch of one topic (PROTOCOL.md §2.7.4), and how new recipients are
// gathered.
const (
	leaseLevel     = 10      // a lease is 2^14 leaves, an epoch 2^10 leases
	leavesReserve  = 1 << 21 // an epoch with fewer leaves unleased is replaced
	newcomerWait   = 15 * time.Second
	newcomerSpacer = 30 * time.Second // least age of an epoch that a newcomer ends
)

// A Producer is one instance's epochs (PROTOCOL.md §2.7). All of it lives in memory only.
//
// The agent's loop: topics that Lease refused with StatusNeedLease, and those of Due, go
// to Prepare after the roster was read to an end offset fetched just then; each draft's
// records are written; when all are acknowledged Activate, else Restart; then erase the
// kids of Retire from the data planes.
type Producer struct {
	node   *Node
	timing Timing
	groups func(topic string) []string
	rand   io.Reader

	requireFresh bool

	instance wire.InstanceID
	next     uint32      // epoch of the next header
	prev     wire.Digest // of the last header
	rate     headerRate  // of the instance
	pending  map[*Draft]bool
	live     map[string]*epoch
	retired  []abi.Kid // wiped, to be erased from the data planes
}

// An epoch is one topic's tree under one header.
type epoch struct {
	topic      string
	instance   wire.InstanceID
	number     uint32
	kid        abi.Kid
	start      time.Time
	useBy      time.Time
	stack      ratchet.Stack
	recipients []Recipient
	leases     int
	newcomer   time.Time // when a recipient that the grant lacks was first noticed
}

// NewProducer draws an instance id. requireGroups names, per topic, the groups that must
// have a recipient; it may be nil.
func NewProducer(n *Node, t Timing, requireGroups func(topic string) []string, rand io.Reader) (*Producer, error) {
	if requireGroups == nil {
		requireGroups = func(string) []string { return nil }
	}
	p := &Producer{node: n, timing: t, groups: requireGroups, rand: rand, live: map[string]*epoch{}, pending: map[*Draft]bool{}}
	if _, err := p.Restart(); err != nil {
		return nil, err
	}
	return p, nil
}

// RequireFresh makes Prepare refuse without a fresh AuthorityState (PROTOCOL.md §2.14).
func (p *Producer) RequireFresh() { p.requireFresh = true }

// Restart ends the instance: a record was not acknowledged within 30 s, the clock jumped,
// or the process resumed. Everything is wiped and a new instance id drawn. It returns the
// kids to erase, even with an error.
func (p *Producer) Restart() ([]abi.Kid, error) {
	p.Wipe()
	kids := p.retired
	p.retired = nil
	p.next, p.prev, p.rate = 0, wire.Digest{}, headerRate{}
	if err := readAll(p.rand, p.instance[:]); err != nil {
		return kids, fmt.Errorf("instance id: %w", err)
	}
	return kids, nil
}

// Instance is the present instance's id.
func (p *Producer) Instance() wire.InstanceID { return p.instance }

// Activate starts the draft's epochs once all of its records are acknowledged; they
// replace what their topics had. appended is the broker's append time of one of the
// records (zero: not known); when it is off by more than the allowed skew the error wraps
// abi.StatusClockSkew and the draft is wiped. A draft of an earlier instance is refused.
func (p *Producer) Activate(d *Draft, appended, now time.Time) error {
	if !p.pending[d] {
		return fmt.Errorf("epoch %d: its instance has ended: %w", d.Epoch, abi.StatusUnavailable)
	}
	delete(p.pending, d)
	if !appended.IsZero() && (appended.Before(d.Start.Add(-p.timing.Skew)) || appended.After(now.Add(p.timing.Skew))) {
		d.wipe()
		return fmt.Errorf("the broker's clock is %v from ours: %w; hint: synchronise the clocks, or check that %s has message.timestamp.type=LogAppendTime",
			appended.Sub(now).Round(time.Second), abi.StatusClockSkew, GrantsTopic)
	}
	// Later than this, a recipient that rotated meanwhile may have erased the prekey that the
	// grant is wrapped for (PROTOCOL.md §2.8.3): a suspended machine, or a slow cluster.
	if now.Sub(d.Start) >= min(p.timing.PrekeyGrace, d.UseBy.Sub(d.Start)) {
		d.wipe()
		return fmt.Errorf("epoch %d: acknowledged too late, %v after the roster was read: %w", d.Epoch, now.Sub(d.Start), abi.StatusUnavailable)
	}
	for _, e := range d.epochs {
		p.retire(e.topic)
		p.live[e.topic] = e
	}
	d.epochs = nil
	return nil
}

// retire wipes the topic's live epoch, if there is one.
func (p *Producer) retire(topic string) {
	if e := p.live[topic]; e != nil {
		e.stack.Wipe()
		p.retired = append(p.retired, e.kid)
		delete(p.live, topic)
	}
}

// Lease cuts a subtree that nobody else has. The error wraps abi.StatusNeedLease when the
// topic has no epoch that can be used now: Prepare and Activate first. It wraps
// StatusNotEntitled where the credential has expired or does not cover the topic.
func (p *Producer) Lease(topic string, now time.Time) (abi.Lease, error) {
	if err := p.node.MayProduce(topic, now); err != nil {
		return abi.Lease{}, err
	}
	e := p.live[topic]
	if e == nil || !now.Before(e.useBy) || now.Before(e.start.Add(-p.timing.Skew)) {
		return abi.Lease{}, fmt.Errorf("topic %s: %w", topic, abi.StatusNeedLease)
	}
	l := abi.Lease{Kid: e.kid, UseBy: unixMs(e.useBy), Topic: topic}
	var ok bool
	if l.Start, l.Level, ok = e.stack.Cut(leaseLevel, (*ratchet.Node)(&l.Node)); !ok {
		return abi.Lease{}, fmt.Errorf("topic %s: every leaf is handed out: %w", topic, abi.StatusNeedLease)
	}
	e.leases++
	return l, nil
}

// Due returns the topics whose epoch must be replaced now: by age where records flowed
// since the last rotation (a lease was cut), by use, by a change of the roster
// (PROTOCOL.md §2.7.4). What is sealed for somebody who is entitled no more, or by a node
// that is not, ends at once, before its successor is there; Retire has its kid. So does an
// unused epoch that no longer fits the roster. Call it at least every Lead/4.
//
// Topics with equal recipients share a grant: one that is half as old as it may get goes with
// another that is due, or those that began apart would need a grant each for ever.
func (p *Producer) Due(r *Roster, now time.Time) []string {
	var due, joining []string
	for topic, e := range p.live {
		gone, came := e.compare(r, p.groups(topic), now)
		gone = gone || p.node.MayProduce(topic, now) != nil
		used := e.leases > 0
		if gone || !used && (came || !now.Before(e.useBy)) {
			p.retire(topic)
			if used {
				due = append(due, topic)
			}
			continue
		}
		if !used {
			continue
		}
		if came && e.newcomer.IsZero() {
			e.newcomer = now
		}
		switch age := now.Sub(e.start); {
		case age >= p.timing.Epoch, e.stack.Remaining() < leavesReserve,
			came && now.Sub(e.newcomer) >= newcomerWait && age >= newcomerSpacer:
			due = append(due, topic)
		case age >= p.timing.Epoch/2:
			joining = append(joining, topic)
		}
	}
	for _, topic := range joining {
		if slices.ContainsFunc(due, func(d string) bool { return p.live[d] != nil && p.live[d].sharesGrant(p.live[topic]) }) {
			due = append(due, topic)
		}
	}
	slices.Sort(due)
	return due
}

// sharesGrant reports whether the two epochs have the same recipients.
func (e *epoch) sharesGrant(o *epoch) bool {
	return slices.EqualFunc(e.recipients, o.recipients, func(a, b Recipient) bool { return a.Node == b.Node })
}

// compare reports whether a recipient of the epoch is entitled no more, or a node is
// entitled that is not a recipient.
func (e *epoch) compare(r *Roster, groups []string, now time.Time) (gone, came bool) {
	present, err := r.Recipients(e.topic, groups, now)
	if err != nil {
		return true, false
	}
	kept := 0
	for _, n := range present {
		if _, ok := slices.BinarySearchFunc(e.recipients, n, compareRecipients); ok {
			kept++
		} else {
			came = true
		}
	}
	return kept < len(e.recipients), came
}

// Retire wipes what is past its use_by, and returns the kids of all that ended since the
// last call, to be erased from the data planes.
func (p *Producer) Retire(now time.Time) []abi.Kid {
	for topic, e := range p.live {
		if !now.Before(e.useBy) {
			p.retire(topic)
		}
	}
	kids := p.retired
	p.retired = nil
	return kids
}

// Wipe overwrites everything, at shutdown.
func (p *Producer) Wipe() {
	for d := range p.pending {
		d.wipe()
	}
	clear(p.pending)
	for topic := range p.live {
		p.retire(topic)
	}
}

// An EpochView describes one epoch of one topic.
type EpochView struct {
	Topic      string
	Instance   wire.InstanceID
	Epoch      uint32
	Kid        abi.Kid
	Start      time.Time
	UseBy      time.Time
	Recipients int
	Leases     int // cut so far
}

// Epochs shows the live epochs, by topic.
func (p *Producer) Epochs() []EpochView {
	var out []EpochView
	for _, e := range p.live {
		out = append(out, e.view())
	}
	slices.SortFunc(out, compareEpochViews)
	return out
}

// Pending shows the epochs whose grants are not acknowledged yet, by topic.
func (p *Producer) Pending() []EpochView {
	var out []EpochView
	for d := range p.pending {
		for _, e := range d.epochs {
			out = append(out, e.view())
		}
	}
	slices.SortFunc(out, compareEpochViews)
	return out
}

func (e *epoch) view() EpochView {
	return EpochView{e.topic, e.instance, e.number, e.kid, e.start, e.useBy, len(e.recipients), e.leases}
}

func compareEpochViews(a, b EpochView) int {
	return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Epoch, b.Epoch))
}
