package adversary_test

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
	"github.com/wasm-e2ee/wasm-e2ee/module/filter"
	"github.com/wasm-e2ee/wasm-e2ee/tests/reference"
)

// The fleet's grain: everything happens at instants that are tick apart, in a fixed order,
// so that what must hold after a step is exact.
const (
	tick       = 5 * time.Second
	steps      = 1200 // 100 virtual minutes
	partitions = 2
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// at is the instant of a step.
func at(step int) time.Time { return epoch.Add(time.Duration(step) * tick) }

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

// A fleet is a realm, its nodes and groups, and the broker between them.
type fleet struct {
	t      *testing.T
	rng    *rand.Rand
	random io.Reader
	step   int
	broker broker
	groups map[string]*group
	nodes  []*node
}

func newFleet(t *testing.T, seed uint64) *fleet {
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	f := &fleet{t: t, rng: rand.New(rand.NewPCG(seed, 1)), random: rand.NewChaCha8(key), groups: map[string]*group{}}
	f.broker.partitions = map[place]*partition{}
	f.broker.byKid = map[abi.Kid]*grant{}
	root, err := keyring.NewRealm(f.random)
	f.must(err)
	issuer, err := root.CertifyIssuer(f.random, at(0), at(0).Add(365*24*time.Hour))
	f.must(err)

	strict := keyring.DefaultTiming()
	strict.HardCap, strict.Offline = 40*time.Minute, 30*time.Minute
	replay := strict
	replay.Window = time.Duration(8+f.rng.IntN(15)) * time.Minute

	f.group("billing", "orders", "payments").kind = committer(f.rng.IntN(int(committers)))
	f.group("audit", "payments", "clicks").kind = committer(f.rng.IntN(int(committers)))
	slow := f.group("reports", "orders")
	slow.kind, slow.lag = committer(f.rng.IntN(int(committers))), 60+f.rng.IntN(240)

	always := func(int) bool { return true }
	// Away for long: longer than prekeys rotate, and now and then longer than a bundle is good.
	leaves, stays := 150+f.rng.IntN(300), 60+f.rng.IntN(500)
	away := func(step int) bool { return step < leaves || step >= leaves+stays }
	// Away for a moment at a time.
	period := 40 + f.rng.IntN(100)
	flaky := func(step int) bool { return step%period > 10 }

	all := []string{"clicks", "orders", "payments"}
	for _, n := range []*node{
		{name: "strict member", consumes: []string{"orders", "payments"}, groups: []string{"billing"}, timing: strict, awake: always},
		{name: "member that comes and goes", consumes: []string{"orders", "payments"}, groups: []string{"billing"}, timing: strict, awake: flaky},
		{name: "replaying member", consumes: []string{"payments", "clicks"}, groups: []string{"audit"}, timing: replay, awake: always},
		{name: "offline member", consumes: []string{"payments", "clicks"}, groups: []string{"audit"}, timing: strict, awake: away},
		{name: "laggard", consumes: []string{"orders"}, groups: []string{"reports"}, timing: strict, awake: always},
		{name: "member of two groups", consumes: all, groups: []string{"billing", "audit"}, timing: strict, awake: always},
		{name: "member of a group that never starts", consumes: []string{"clicks"}, groups: []string{"ghosts"}, timing: strict, awake: always, ghost: true},
		{name: "producer", produces: []string{"orders", "payments"}, timing: strict, awake: always},
		{name: "producer that restarts", produces: all, timing: strict, awake: flaky},
		{name: "gateway", produces: []string{"clicks"}, consumes: []string{"orders"}, groups: []string{"billing"}, timing: strict, awake: always},
	} {
		n.fleet = f
		f.enrol(n, issuer)
		f.nodes = append(f.nodes, n)
		for _, name := range n.groups {
			if g := f.groups[name]; g != nil {
				g.members = append(g.members, n)
			}
		}
	}
	return f
}

func (f *fleet) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatalf("step %d: %v", f.step, err)
	}
}

func (f *fleet) group(name string, topics ...string) *group {
	g := &group{name: name, topics: topics, next: map[place]int{}, committed: map[place]int64{}, history: map[place][]commit{}}
	f.groups[name] = g
	return g
}

func (f *fleet) enrol(n *node, issuer *keyring.Issuer) {
	f.must(n.timing.Validate())
	s, err := keyring.NewState(f.random)
	f.must(err)
	want := keyring.Attributes{OfflineAllow: 72 * time.Hour}
	for _, side := range []struct {
		role   wire.Roles
		topics []string
	}{{wire.RoleProduce, n.produces}, {wire.RoleConsume, n.consumes}} {
		if len(side.topics) > 0 {
			want.Roles |= side.role
		}
		for _, topic := range side.topics {
			want.Topics = append(want.Topics, wire.Pattern{Name: topic})
		}
	}
	if len(n.consumes) > 0 && len(n.produces) > 0 {
		// One list of topics serves both roles: a gateway may read what it writes, but its
		// group does not.
		n.consumes = append(slices.Clone(n.consumes), n.produces...)
	}
	for _, name := range n.groups {
		want.Groups = append(want.Groups, wire.Pattern{Name: name})
	}
	file, err := issuer.Issue(f.random, s.Node().CSR(want), nil, keyring.Validity{NotBefore: at(0), NotAfter: at(0).Add(9 * 24 * time.Hour)})
	f.must(err)
	f.must(s.Node().Install(file, at(0)))
	f.broker.roster = append(f.broker.roster, s.Node().RosterRecords()...)
	n.start(s)
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

// advance runs one step of the whole fleet.
func (f *fleet) advance() {
	for _, n := range f.nodes {
		up := n.awake(f.step)
		if !up && len(n.online) > 0 && n.online[f.step-1] {
			n.stop()
		}
		n.online = append(n.online, up)
	}
	for _, n := range f.nodes {
		if n.online[f.step] && len(n.produces) > 0 {
			n.produce()
		}
	}
	for _, n := range f.nodes {
		if n.online[f.step] && len(n.consumes) > 0 {
			n.follow()
		}
	}
	for _, name := range []string{"audit", "billing", "reports"} {
		f.consume(f.groups[name])
	}
	for _, n := range f.nodes {
		if n.online[f.step] && len(n.consumes) > 0 {
			n.erase()
		}
	}
	f.step++
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
		if _, err := n.consumer.ApplyGrant(part, rec.Key, rec.Value, n.roster, now); err != nil && !errors.Is(err, abi.StatusErased) {
			n.must(err)
		}
		n.consumer.NoteGrants(i + 1)
	}
}

// consume lets a group read what is old enough, through the data plane of any member that
// runs, and commit.
func (f *fleet) consume(g *group) {
	var up []*node
	for _, n := range g.members {
		if n.online[f.step] {
			up = append(up, n)
		}
	}
	if len(up) == 0 {
		return
	}
	for _, topic := range g.topics {
		for i := range int32(partitions) {
			p := place{topic, i}
			log := f.broker.at(p)
			for g.next[p] < len(log.values) && f.broker.values[log.values[g.next[p]]].step <= f.step-g.lag {
				v := f.broker.values[log.values[g.next[p]]]
				g.next[p]++
				up[f.rng.IntN(len(up))].open(v)
				committed := v.base + v.records
				switch g.kind {
				case commitsLastValue:
					committed--
				case commitsPosition:
					committed = log.end
					if g.next[p] < len(log.values) {
						committed = f.broker.values[log.values[g.next[p]]].base
					}
				}
				if committed != g.committed[p] {
					g.committed[p] = committed
					g.history[p] = append(g.history[p], commit{f.step, committed})
				}
			}
		}
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
