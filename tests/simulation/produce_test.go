package simulation

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
	"github.com/wasm-e2ee/wasm-e2ee/tests/reference"
)

// A traffic is when clients write to a topic: for hours, with hours between them.
type traffic struct {
	active bool
	until  time.Time
}

// flows moves on at the end of a phase.
func (n *node) flows(topic string) bool {
	x := n.traffic[topic]
	if x == nil {
		x = &traffic{}
		n.traffic[topic] = x
	}
	if !n.fleet.now.Before(x.until) {
		x.active = !x.active
		minutes := 60 + n.rng.IntN(90)
		if !x.active {
			minutes = 120 + n.rng.IntN(300)
		}
		x.until = n.fleet.now.Add(time.Duration(minutes) * time.Minute)
	}
	return x.active
}

// A pending draft waits for its acknowledgements.
type pending struct {
	*keyring.Draft
	written time.Time
}

// ackTimeout is for how long an agent waits for acknowledgements (PROTOCOL.md §2.7.3).
const ackTimeout = 30 * time.Second

// produce rotates what is due and seals some batches.
func (n *node) produce() {
	now := n.now()
	if n.broker.up {
		for _, d := range n.pending {
			n.activate(d)
		}
		n.pending = nil
		if due := n.producer.Due(n.roster, now); len(due) > 0 {
			n.prepare(due)
		}
	} else if slices.ContainsFunc(n.pending, func(d pending) bool { return n.fleet.now.Sub(d.written) >= ackTimeout }) {
		n.pending = nil
		kids, err := n.producer.Restart()
		n.must(err)
		n.forget(kids)
	}
	n.forget(n.producer.Retire(now))
	for _, e := range n.producer.Epochs() {
		if age := now.Sub(e.Start); age >= n.timing.Epoch+n.timing.Lead {
			n.fail("%s keeps an epoch of topic %s for %v", n.name, e.Topic, age)
		}
	}
	for _, topic := range n.produces {
		if n.flows(topic) && n.broker.up && n.rng.IntN(4) == 0 {
			n.seal(topic)
		}
	}
}

func (n *node) activate(d pending) {
	if err := n.producer.Activate(d.Draft, d.written, n.now()); err != nil && n.fleet.now.Sub(d.written) < ackTimeout {
		n.alarm("acknowledged epoch", err)
	}
}

// prepare writes the grants of new epochs, and holds their recipients against what everybody
// knows of the fleet. Half of them are acknowledged a step later.
func (n *node) prepare(topics []string) {
	now := n.now()
	n.syncBundles()
	drafts, refused, err := n.producer.Prepare(topics, n.roster, now)
	if err != nil {
		if !n.careful || !errors.Is(err, abi.StatusUnavailable) || n.fleet.now.Before(n.fresh) {
			n.alarm("new epoch", err)
		}
		return
	}
	for _, topic := range sorted(refused) {
		n.refused(topic, refused[topic])
	}
	if m := n.members[n.id()]; len(drafts) > 0 && !n.thief && !m.may(n.fleet.now) {
		n.fail("%s begins an epoch without a credential that counts", n.name)
	}
	if n.careful && len(drafts) > 0 && n.fleet.now.After(n.fresh.Add(learning)) {
		n.fail("%s begins an epoch, and the AuthorityState is as old as that of %v", n.name, n.fresh.Sub(began))
	}
	for _, d := range drafts {
		n.record(d)
		for _, rec := range d.Records {
			n.write(rec, keyring.GrantsTopic)
		}
		p := pending{d, n.fleet.now}
		if n.rng.IntN(2) == 0 {
			n.activate(p)
		} else {
			n.pending = append(n.pending, p)
		}
		n.count("epochs", len(d.Topics))
	}
}

// refused judges why a topic gets no epoch.
func (n *node) refused(topic string, err error) {
	switch m := n.members[n.id()]; {
	case errors.Is(err, abi.StatusNotEntitled) && !m.must(n.fleet.now):
	case errors.Is(err, abi.StatusNoRecipient) && len(n.recipients(topic, true)) == 0:
	default:
		n.alarm("epoch of "+topic, err)
	}
}

// record notes a new epoch in the fleet's books and judges its recipients (§2.7.2, C11).
func (n *node) record(d *keyring.Draft) {
	var header *wire.GrantHeader
	wrapped := map[wire.NodeID]bool{}
	for _, rec := range d.Records {
		g, err := wire.ParseGrant(rec.Value)
		n.must(err)
		header = &g.Header
		for _, w := range g.Wraps {
			wrapped[w.Node] = true
		}
	}
	if useful := time.Duration(header.UseBy-header.Start) * time.Millisecond; useful != n.timing.Epoch+n.timing.Lead {
		n.fail("%s begins an epoch that is good for %v", n.name, useful)
	}
	m := n.members[n.id()]
	for _, t := range header.Topics {
		kid := keyring.KidOf(t.Commit)
		n.broker.epochs[kid] = &epoch{header: header, topic: t.Name, kid: kid, from: n, at: n.fleet.now, wrapped: wrapped, accepted: m.revoked.IsZero()}
		n.started = append(n.started, n.fleet.now)
		if n.thief {
			continue
		}
		must, may := n.recipients(t.Name, true), n.recipients(t.Name, false)
		for id := range must {
			if !wrapped[id] {
				n.fail("%s leaves %s out of an epoch of topic %s", n.name, n.members[id].node.name, t.Name)
			}
		}
		for id := range wrapped {
			if !may[id] {
				n.fail("%s grants %s an epoch of topic %s", n.name, n.members[id].node.name, t.Name)
			}
		}
	}
}

// seal makes the data plane seal one batch of a client, where an epoch allows it.
func (n *node) seal(topic string) {
	now := n.now()
	if n.rng.IntN(200) == 0 { // a worker is lost, and its leases are burned
		n.plane.Erase(nil)
	}
	p := place{topic, int32(n.rng.IntN(partitions))}
	records, ms := 1+n.rng.IntN(3), now.UnixMilli()
	var client []kafka.Record
	for i := range records {
		client = append(client, kafka.Record{OffsetDelta: int32(i), Value: fmt.Appendf(nil, "%s %d", topic, n.sealed)})
	}
	b := reference.Join(kafka.BatchHeader{LastOffsetDelta: int32(records - 1), NumRecords: int32(records), BaseTimestamp: ms, MaxTimestamp: ms,
		ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1}, reference.Section(client...))
	size := len(b)
	b = append(b, make([]byte, 300)...)
	for {
		r, status := n.plane.SealBatch(b, size, []byte(topic), p.partition, uint64(ms))
		if status == abi.StatusOK {
			n.store(p, int64(records), bytes.Clone(b[:r.Length]))
			return
		}
		if status != abi.StatusNeedLease {
			n.fail("%s seals for topic %s: %v", n.name, topic, status)
			return
		}
		lease, err := n.producer.Lease(topic, now)
		switch {
		case errors.Is(err, abi.StatusNeedLease):
			if !slices.ContainsFunc(n.pending, func(d pending) bool { return slices.Contains(d.Topics, topic) }) {
				n.prepare([]string{topic})
			}
			return // the client tries again
		case err != nil:
			n.refused(topic, err)
			return
		}
		if status := n.plane.InstallLease(&lease); status != abi.StatusOK {
			n.t.Fatal(status)
		}
	}
}

// store appends a sealed batch to the log, and judges the epoch that it is of (C2, §2.7.5).
func (n *node) store(p place, records int64, batch []byte) {
	var first kafka.Record
	_, err := kafka.NextRecord(batch[kafka.BatchHeaderSize:], &first)
	n.must(err)
	h, err := wire.ParsePackedHeader(first.Value)
	n.must(err)
	log := n.broker.at(p.topic, p.partition)
	v := &value{place: p, base: log.end, records: records, seq: log.sealed, kid: h.Kid, batch: batch, at: n.fleet.now, from: n}
	log.end += records
	log.sealed++
	log.values = append(log.values, v)
	n.sealed++
	e, now := n.broker.epochs[v.kid], uint64(n.now().UnixMilli())
	switch {
	case e == nil || e.from != n || e.topic != p.topic:
		n.fail("%s seals for topic %s in an epoch that is not its own", n.name, p.topic)
	case now >= e.header.UseBy:
		n.fail("%s seals %d ms after use_by", n.name, now-e.header.UseBy)
	default:
		n.most("ms from an epoch's start to a batch that is sealed in it", int(now-e.header.Start))
	}
}

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
