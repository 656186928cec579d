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
	"github.com/wasm-e2ee/wasm-e2ee/tests/reference"
)

// A node is one agent and its data plane.
type node struct {
	*fleet
	role     role
	name     string
	produces []string
	consumes []string
	groups   []string
	prefix   string // of groups that its credential covers besides, and that nobody uses
	shares   bool   // with its peers
	timing   keyring.Timing
	awake    func(step int) bool
	skew     time.Duration // its clock's, against the broker's
	born     int           // when it is enrolled
	dataFrom int           // its data_not_before is this many steps before that; 0: none
	revoked  int           // when it is revoked, 0: never

	id       wire.NodeID
	state    *keyring.State
	roster   *keyring.Roster
	read     int
	consumer *keyring.Consumer
	producer *keyring.Producer
	plane    *plane
	pending  []*keyring.Draft
	requests []keyring.Record // of peers, to be answered
	asked    map[abi.Kid]int  // when peers were asked
	joined   bool             // and asked for what was missing at the start
	renewing int              // when the next credential was last asked for

	online []bool // by step
}

// now is the time by the node's clock.
func (n *node) now() time.Time { return at(n.step).Add(n.skew) }

// start runs a process on a state.
func (n *node) start(s *keyring.State) {
	n.state, n.read, n.pending, n.requests, n.asked, n.joined = s, 0, nil, nil, map[abi.Kid]int{}, false
	n.roster = keyring.NewRoster(s, n.timing)
	n.consumer = keyring.NewConsumer(s, n.timing, n.random)
	n.consumer.NoteRetention("clicks", retention)
	var err error
	n.producer, err = keyring.NewProducer(s.Node(), n.timing, nil, n.random)
	n.must(err)
	n.plane = newPlane(n.t)
}

// stop ends the process: what is left is the state file.
func (n *node) stop() {
	file := n.state.Marshal()
	n.producer.Wipe()
	n.plane.close()
	n.state.Wipe()
	s, err := keyring.ParseState(file)
	n.must(err)
	n.start(s)
	n.rules[earliest].restart(n)
	n.rules[latest].restart(n)
}

// sync reads the roster to its end.
func (n *node) sync() {
	for ; n.read < len(n.broker.roster); n.read++ {
		rec := n.broker.roster[n.read]
		if err := n.roster.Apply(rec.Key, rec.Value, n.now()); err != nil && !errors.Is(err, keyring.ErrRollback) {
			n.must(err)
		}
		_, err := n.consumer.NoteRoster(rec.Key, rec.Value, n.now())
		n.must(err)
		if wire.Type(rec.Key[0]) == wire.TypeEpochRequest && n.shares {
			n.requests = append(n.requests, rec)
		}
	}
	n.rules[earliest].sync(n)
	n.rules[latest].sync(n)
}

// renew takes the next credential if it is there, and asks for it when it is time.
func (n *node) renew() {
	n.sync()
	if n.state.AdoptRenewal(n.roster, n.now()) {
		n.renewing = 0
		return
	}
	if n.now().Before(n.state.Node().RenewAt()) || !n.state.Node().Renewable(n.now()) || n.renewing > 0 && n.step < n.renewing+12 {
		return
	}
	n.random.draws()
	rec, err := n.state.Renew(n.random)
	n.must(err)
	q, err := wire.ParseRenewal(rec.Value)
	n.must(err)
	if drawn := n.random.draws(); len(drawn) > 0 {
		n.broker.identities[q.Subject] = drawn[0]
		n.rules[earliest].nextKey(n, q.Subject)
		n.rules[latest].nextKey(n, q.Subject)
	}
	n.renewing = n.step
	n.broker.publish(n.fleet, rec)
}

// produce rotates what is due and seals some batches.
func (n *node) produce() {
	now := n.now()
	n.sync()
	for _, d := range n.pending {
		n.must(n.producer.Activate(d, at(n.step), now))
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
		n.plane.erase(kids)
	}
}

// prepare writes the grants of new epochs. Half of them are acknowledged a step later.
func (n *node) prepare(topics []string) {
	n.random.draws()
	drafts, _, err := n.producer.Prepare(topics, n.roster, n.now())
	n.must(err)
	drawn := n.random.draws()
	for _, d := range drafts {
		g := &grant{kids: map[string]abi.Kid{}, from: n, step: n.step}
		for _, rec := range d.Records {
			n.broker.grants[rec.Partition] = append(n.broker.grants[rec.Partition], appended{rec, at(n.step)})
			part, err := wire.ParseGrant(rec.Value)
			n.must(err)
			g.header = &part.Header
			g.wraps = append(g.wraps, part.Wraps...)
		}
		for _, topic := range g.header.Topics {
			g.kids[topic.Name] = keyring.KidOf(topic.Commit)
			n.broker.byKid[g.kids[topic.Name]] = g
		}
		for _, es := range drawn {
			if isSecretOf(es, g) {
				g.secret = es
			}
		}
		n.broker.epochs = append(n.broker.epochs, g)
		n.rules[earliest].grant(g)
		n.rules[latest].grant(g)
		if n.rng.IntN(2) == 0 {
			n.must(n.producer.Activate(d, at(n.step), n.now()))
		} else {
			n.pending = append(n.pending, d)
		}
	}
}

// seal makes the data plane seal one batch of a client, where an epoch allows it.
func (n *node) seal(topic string) {
	if n.rng.IntN(20) == 0 { // a worker is lost, and its leases are burned
		n.plane.erase(nil)
	}
	v := &value{place: place{topic, int32(n.rng.IntN(partitions))}, records: int64(1 + n.rng.IntN(3)), step: n.step, time: n.now(), from: n}
	if v.partition == unused && (topic == "payments" || n.rng.IntN(20) > 0) {
		v.partition = 0
	}
	var client []kafka.Record
	for i := range v.records {
		client = append(client, kafka.Record{OffsetDelta: int32(i), Value: fmt.Appendf(nil, "%s %d", topic, len(n.broker.values))})
	}
	ms := n.now().UnixMilli()
	b := reference.Join(kafka.BatchHeader{LastOffsetDelta: int32(v.records - 1), NumRecords: int32(v.records), BaseTimestamp: ms, MaxTimestamp: ms,
		ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1}, reference.Section(client...))
	var status abi.Status
	for {
		if v.batch, status = n.plane.transform(abi.FuncSealBatch, b, v.place, uint64(ms)); status == abi.StatusOK {
			break
		}
		if status != abi.StatusNeedLease {
			n.t.Fatal(status)
		}
		lease, err := n.producer.Lease(topic, n.now())
		if errors.Is(err, abi.StatusNeedLease) {
			if !slices.ContainsFunc(n.pending, func(d *keyring.Draft) bool { return slices.Contains(d.Topics, topic) }) {
				n.prepare([]string{topic})
			}
			return
		}
		n.must(err)
		n.plane.lease(&lease)
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

// follow rotates the prekey, reads the own grants partition to its end, asks peers for what
// it lacks and answers them.
func (n *node) follow() {
	now := n.now()
	n.sync()
	if n.consumer.PrekeyDue(now) && n.state.Node().Check(now) == nil {
		n.random.draws()
		rec, err := n.consumer.NewPrekey(now)
		n.must(err)
		p, err := wire.ParsePrekeyBundle(rec.Value)
		n.must(err)
		b := &bundle{PrekeyBundle: p, of: n, seed: n.random.draws()[0]}
		n.broker.bundles[wire.PrekeyIDOf(p.KEMPub[:])] = b
		n.broker.publish(n.fleet, rec)
		n.rules[earliest].prekey(n, b)
		n.rules[latest].prekey(n, b)
	}
	n.readGrants()
	for _, finding := range n.consumer.Findings(n.roster, now) {
		n.t.Errorf("step %d: the %s raises an alarm on an honest cluster: %v", n.step, n.name, finding)
	}
	n.share()
	if !n.joined && n.consumer.Published() {
		n.joined = true
		n.ask(nil)
	}
}

// readGrants reads the own grants partition to its end, or to a grant that starts in the
// future by this node's clock: that has to wait.
func (n *node) readGrants() {
	part := n.state.Node().GrantPartition()
	for i := max(n.consumer.GrantsNext(), 0); i < int64(len(n.broker.grants[part])); i++ {
		rec := n.broker.grants[part][i]
		apply := n.consumer.ApplyGrant
		if wire.Type(rec.Key[0]) == wire.TypeKeyShare {
			apply = n.consumer.ApplyShare
		}
		_, err := apply(part, i, rec.Key, rec.Value, n.roster, n.now())
		if errors.Is(err, abi.StatusClockSkew) && rec.time.After(n.now()) {
			break
		}
		if !errors.Is(err, abi.StatusErased) {
			n.must(err)
		}
		n.consumer.NoteGrants(i + 1)
	}
	n.rules[earliest].readGrants(n)
	n.rules[latest].readGrants(n)
}

// open opens a batch in the data plane, or skips it where its key is not to be had. It
// returns false while peers have their time to share it.
func (n *node) open(v *value) bool {
	root, err := n.consumer.Root(v.topic, v.header.Kid, n.now())
	if err != nil {
		if n.consumer.Askable(v.topic, v.header.Kid) {
			if step, ok := n.asked[v.header.Kid]; ok {
				return n.step-step > 2
			}
			return !n.ask(map[abi.Kid]string{v.header.Kid: v.topic})
		}
		return true
	}
	n.plane.root(&root)
	if _, status := n.plane.transform(abi.FuncOpenBatch, v.batch, v.place, uint64(n.now().UnixMilli())); status != abi.StatusOK {
		n.t.Fatal(status)
	}
	return true
}

// erase does what the agent's loop does about erasure.
func (n *node) erase() {
	now := n.now()
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
	n.rules[earliest].erase(n)
	n.rules[latest].erase(n)
}

// progress is what the broker says of a topic to a node.
func (n *node) progress(topic string) keyring.Progress {
	p := keyring.Progress{LogStart: map[int32]int64{}, Groups: map[string]map[int32]int64{}}
	for i := range int32(partitions) {
		p.LogStart[i] = n.broker.at(place{topic, i}).start
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
