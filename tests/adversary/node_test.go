package adversary_test

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
	"github.com/wasm-e2ee/wasm-e2ee/module/filter"
	"github.com/wasm-e2ee/wasm-e2ee/tests/reference"
)

// A node is one agent and its data plane.
type node struct {
	*fleet
	name     string
	produces []string
	consumes []string
	groups   []string
	timing   keyring.Timing
	ghost    bool           // its credential names a group that never comes
	awake    func(int) bool // whether it runs in a step

	state    *keyring.State
	roster   *keyring.Roster
	read     int
	consumer *keyring.Consumer
	producer *keyring.Producer
	plane    *filter.Filter
	pending  []*keyring.Draft

	online  []bool // by step
	bundles []bundle
}

// start runs a process on a state.
func (n *node) start(s *keyring.State) {
	n.state, n.read, n.pending = s, 0, nil
	n.roster = keyring.NewRoster(s, n.timing)
	n.consumer = keyring.NewConsumer(s, n.timing, n.random)
	var err error
	n.producer, err = keyring.NewProducer(s.Node(), n.timing, nil, n.random)
	n.must(err)
	n.plane = filter.New(n.random)
	if status := n.plane.Configure(abi.Config{MaxDecompressed: 1 << 20}); status != abi.StatusOK {
		n.t.Fatal(status)
	}
}

// stop ends the process: what is left is the state file.
func (n *node) stop() {
	file := n.state.Marshal()
	n.producer.Wipe()
	n.plane.Erase(nil)
	n.state.Wipe()
	s, err := keyring.ParseState(file)
	n.must(err)
	n.start(s)
}

// sync reads the roster to its end.
func (n *node) sync() {
	for ; n.read < len(n.broker.roster); n.read++ {
		rec := n.broker.roster[n.read]
		if err := n.roster.Apply(rec.Key, rec.Value, at(n.step)); err != nil && !errors.Is(err, keyring.ErrRollback) {
			n.must(err)
		}
		_, err := n.consumer.NoteRoster(rec.Key, rec.Value, at(n.step))
		n.must(err)
	}
}

// produce rotates what is due and seals some batches.
func (n *node) produce() {
	now := at(n.step)
	n.sync()
	for _, d := range n.pending {
		n.must(n.producer.Activate(d, now, now))
	}
	n.pending = nil
	if due := n.producer.Due(n.roster, now); len(due) > 0 {
		n.prepare(due)
	}
	n.forget(n.producer.Retire(now))
	if n.rng.IntN(400) == 0 {
		n.pending = nil
		kids, err := n.producer.Restart()
		n.must(err)
		n.forget(kids)
	}
	for _, topic := range n.produces {
		for range n.rng.IntN(2) {
			n.seal(topic)
		}
	}
}

// forget erases kids from the data plane. None means none here, and all to the plane.
func (n *node) forget(kids []abi.Kid) {
	if len(kids) > 0 {
		n.plane.Erase(kids)
	}
}

// prepare writes the grants of new epochs. Half of them are acknowledged a step later.
func (n *node) prepare(topics []string) {
	now := at(n.step)
	drafts, _, err := n.producer.Prepare(topics, n.roster, now)
	n.must(err)
	for _, d := range drafts {
		g := &grant{kids: map[string]abi.Kid{}, from: n, step: n.step}
		for _, rec := range d.Records {
			n.broker.grants[rec.Partition] = append(n.broker.grants[rec.Partition], rec)
			part, err := wire.ParseGrant(rec.Value)
			n.must(err)
			g.header = &part.Header
			g.wraps = append(g.wraps, part.Wraps...)
		}
		for _, topic := range g.header.Topics {
			g.kids[topic.Name] = keyring.KidOf(topic.Commit)
			n.broker.byKid[g.kids[topic.Name]] = g
		}
		n.broker.epochs = append(n.broker.epochs, g)
		if n.rng.IntN(2) == 0 {
			n.must(n.producer.Activate(d, now, now))
		} else {
			n.pending = append(n.pending, d)
		}
	}
}

// seal makes the data plane seal one batch of a client, where an epoch allows it.
func (n *node) seal(topic string) {
	now := at(n.step)
	if n.rng.IntN(20) == 0 { // a worker is lost, and its leases are burned
		n.plane.Erase(nil)
	}
	records := 1 + n.rng.IntN(3)
	var client []kafka.Record
	for i := range records {
		client = append(client, kafka.Record{OffsetDelta: int32(i), Value: fmt.Appendf(nil, "%s %d", topic, len(n.broker.values))})
	}
	ms := now.UnixMilli()
	b := reference.Join(kafka.BatchHeader{LastOffsetDelta: int32(records - 1), NumRecords: int32(records), BaseTimestamp: ms, MaxTimestamp: ms,
		ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1}, reference.Section(client...))
	size := len(b)
	b = append(b, make([]byte, 300)...)
	v := &value{place: place{topic, int32(n.rng.IntN(partitions))}, records: int64(records), step: n.step, from: n}
	for {
		r, status := n.plane.SealBatch(b, size, []byte(topic), v.partition, uint64(ms))
		if status == abi.StatusOK {
			v.batch = b[:r.Length]
			break
		}
		if status != abi.StatusNeedLease {
			n.t.Fatal(status)
		}
		lease, err := n.producer.Lease(topic, now)
		if errors.Is(err, abi.StatusNeedLease) {
			if !slices.ContainsFunc(n.pending, func(d *keyring.Draft) bool { return slices.Contains(d.Topics, topic) }) {
				n.prepare([]string{topic})
			}
			return
		}
		n.must(err)
		if status := n.plane.InstallLease(&lease); status != abi.StatusOK {
			n.t.Fatal(status)
		}
	}
	var r kafka.Record
	_, err := kafka.NextRecord(v.batch[kafka.BatchHeaderSize:], &r)
	n.must(err)
	v.bytes = r.Value
	v.header, err = wire.ParsePackedHeader(v.bytes)
	n.must(err)
	v.marker = n.rng.IntN(3) == 0
	n.broker.append(v)
}

// follow rotates the prekey and reads the own grants partition to its end.
func (n *node) follow() {
	now := at(n.step)
	n.sync()
	if n.consumer.PrekeyDue(now) {
		rec, err := n.consumer.NewPrekey(now)
		n.must(err)
		n.broker.roster = append(n.broker.roster, rec)
		b, err := wire.ParsePrekeyBundle(rec.Value)
		n.must(err)
		n.bundles = append(n.bundles, bundle{n.step, wire.PrekeyIDOf(b.KEMPub[:]), time.UnixMilli(int64(b.NotAfter))})
	}
	part := n.state.Node().GrantPartition()
	for i := max(n.consumer.GrantsNext(), 0); i < int64(len(n.broker.grants[part])); i++ {
		rec := n.broker.grants[part][i]
		if _, err := n.consumer.ApplyGrant(part, i, rec.Key, rec.Value, n.roster, now); err != nil && !errors.Is(err, abi.StatusErased) {
			n.must(err)
		}
		n.consumer.NoteGrants(i + 1)
	}
}

// open opens a batch in the data plane, or skips it where its key is not to be had.
func (n *node) open(v *value) {
	root, err := n.consumer.Root(v.topic, v.header.Kid, at(n.step))
	if err != nil {
		return
	}
	if status := n.plane.InstallRoot(&root); status != abi.StatusOK {
		n.t.Fatal(status)
	}
	b := slices.Clone(v.batch)
	if _, status := n.plane.OpenBatch(b, len(b), []byte(v.topic), v.partition); status != abi.StatusOK {
		n.t.Fatal(status)
	}
}

// erase does what the agent's loop does about erasure.
func (n *node) erase() {
	now := at(n.step)
	for _, topic := range n.consumer.EndsWanted(now) {
		n.consumer.NoteEnds(topic, n.broker.ends(topic), now)
	}
	for _, topic := range n.consumer.Watched() {
		progress := n.progress(topic)
		scans, _ := n.consumer.NoteProgress(topic, progress, now)
		for _, s := range scans {
			kids, inside := n.broker.scan(place{s.Topic, s.Partition}, s.From, s.To)
			n.consumer.NoteScan(s, kids, inside)
		}
		n.consumer.NoteProgress(topic, progress, now)
	}
	if n.consumer.PrekeysWaiting(now) {
		n.consumer.NoteGrantsEnd(int64(len(n.broker.grants[n.state.Node().GrantPartition()])), now)
	}
	n.forget(n.consumer.Tick(now))
}

// progress is what the broker says of a topic to a node.
func (n *node) progress(topic string) keyring.Progress {
	p := keyring.Progress{LogStart: map[int32]int64{}, Groups: map[string]map[int32]int64{}}
	for i := range int32(partitions) {
		p.LogStart[i] = 0
	}
	for _, name := range n.groups {
		g := n.fleet.groups[name]
		if g == nil {
			continue
		}
		p.Known = append(p.Known, name)
		if !slices.Contains(g.topics, topic) {
			continue
		}
		p.Groups[name] = map[int32]int64{}
		for i := range int32(partitions) {
			if offset, ok := g.committed[place{topic, i}]; ok {
				p.Groups[name][i] = offset
			}
		}
	}
	return p
}
