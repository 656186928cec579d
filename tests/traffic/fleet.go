package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"runtime"
	"syscall"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// A shape is a fleet: every producer writes all topics, every consumer reads them.
type shape struct {
	consumers, producers int
	timing               keyring.Timing
}

// A cost is what a fleet did in some virtual time. Bytes are the fleet's; CPU and heap are
// those of one agent.
type cost struct {
	length             time.Duration
	grants, grantsRead int64
	roster, rosterRead int64
	epochs, bundles    int // written

	producerCPU, consumerCPU   time.Duration
	producerHeap, consumerHeap int64
	wrapping, opening          time.Duration // in all
	wraps, opens               int
	perSecret, perSecretFile   int64
}

func (c *cost) perHour(bytes int64) float64 { return float64(bytes) / 1e6 / c.length.Hours() }

// each is what one of n took.
func each(all time.Duration, n int) time.Duration {
	return (all / time.Duration(max(n, 1))).Round(time.Microsecond)
}

func (c *cost) seconds(cpu time.Duration) float64 { return cpu.Seconds() / c.length.Hours() }

// A fleet is a realm and the two control topics between its nodes.
type fleet struct {
	shape
	issuer    *keyring.Issuer
	now       time.Time
	roster    []keyring.Record
	grants    [keyring.GrantPartitions]int64 // bytes
	producers []*producer
	consumers []*consumer
	watched   []*consumer // of the consumers, those that do all their work
	cost      cost

	// identities are the same each time: how node ids fall over the partitions moves what is
	// read of them by 1 %.
	identities *mathrand.ChaCha8
}

// A peer is what both kinds of node have.
type peer struct {
	state  *keyring.State
	roster *keyring.Roster
	read   int       // records of the roster that were applied
	chain  time.Time // when the credential chain was last published
}

type producer struct {
	peer
	keys *keyring.Producer
}

type consumer struct {
	peer
	keys    *keyring.Consumer
	lags    bool             // its group never reads
	inbox   []keyring.Record // of its grants partition
	applied int64
	asked   time.Time // when the group's offsets were asked for
	cpu     time.Duration
	opening time.Duration
	opened  int
}

// began is the virtual hour's start. It is past, so that credentials of it can be parsed now.
var began = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func topic(i int) string { return fmt.Sprintf("topic-%02d", i) }

// newFleet enrols the nodes. They start within one prekey rotation, at random.
func newFleet(s shape, at time.Time) (*fleet, error) {
	f := &fleet{shape: s, now: at, identities: mathrand.NewChaCha8([32]byte{1})}
	root, err := keyring.NewRealm(rand.Reader)
	if err != nil {
		return nil, err
	}
	if f.issuer, err = root.CertifyIssuer(rand.Reader, at.Add(-time.Hour), at.Add(365*24*time.Hour)); err != nil {
		return nil, err
	}
	for i := range s.consumers {
		state, err := f.enrol(wire.RoleConsume)
		if err != nil {
			return nil, err
		}
		c := &consumer{keys: keyring.NewConsumer(state, s.timing, rand.Reader), lags: i == 1}
		c.state = state
		f.consumers = append(f.consumers, c)
		if i < 2 {
			c.roster = keyring.NewRoster(state, s.timing)
			f.watched = append(f.watched, c)
		}
	}
	for range s.producers {
		state, err := f.enrol(wire.RoleProduce)
		if err != nil {
			return nil, err
		}
		p := &producer{peer: peer{state: state, roster: keyring.NewRoster(state, s.timing)}}
		if p.keys, err = keyring.NewProducer(state.Node(), s.timing, nil, rand.Reader); err != nil {
			return nil, err
		}
		f.producers = append(f.producers, p)
	}
	return f, nil
}

func (f *fleet) enrol(role wire.Roles) (*keyring.State, error) {
	state, err := keyring.NewState(f.identities)
	if err != nil {
		return nil, err
	}
	want := keyring.Attributes{Roles: role, Topics: []wire.Pattern{{Name: "topic-", Prefix: true}}, OfflineAllow: 72 * time.Hour}
	if role == wire.RoleConsume {
		want.Groups = []wire.Pattern{{Name: "billing"}}
	}
	file, err := f.issuer.Issue(rand.Reader, state.Node().CSR(want), nil, keyring.Validity{NotBefore: f.now.Add(-time.Hour), NotAfter: f.now.Add(9 * 24 * time.Hour)})
	if err != nil {
		return nil, err
	}
	return state, state.Node().Install(file, f.now)
}

// measure lets a fleet come up, and then run for length.
func measure(s shape, length time.Duration) (*cost, error) {
	f, err := newFleet(s, began)
	if err != nil {
		return nil, err
	}
	// Everybody starts within one rotation, so that the work of the fleet is spread.
	start := map[*peer]time.Time{}
	spread := func(p *peer) { start[p] = f.now.Add(time.Duration(mathrand.Int64N(int64(s.timing.PrekeyRotation)))) }
	for _, c := range f.consumers {
		spread(&c.peer)
	}
	for _, p := range f.producers {
		spread(&p.peer)
	}
	counted := began.Add(s.timing.PrekeyRotation + s.timing.Epoch)
	step := min(time.Second, s.timing.Lead/4)
	for ; f.now.Before(counted.Add(length)); f.now = f.now.Add(step) {
		if !f.now.Before(counted) && f.now.Add(-step).Before(counted) {
			f.settle()
		}
		for _, c := range f.consumers {
			if !f.now.Before(start[&c.peer]) {
				if err := f.consume(c); err != nil {
					return nil, err
				}
			}
		}
		for i, p := range f.producers {
			// Not before every consumer is known: a newcomer ends epochs early.
			if f.now.After(began.Add(s.timing.PrekeyRotation)) && !f.now.Before(start[&p.peer].Add(s.timing.PrekeyRotation)) {
				if err := f.produce(p, i == 0); err != nil {
					return nil, err
				}
			}
		}
	}
	return f.finish(length)
}

// settle begins the count.
func (f *fleet) settle() {
	f.cost, f.grants = cost{}, [keyring.GrantPartitions]int64{}
	for _, c := range f.watched {
		c.cpu, c.opening, c.opened = 0, 0, 0
	}
}

// publish counts one write to the roster.
func (f *fleet) publish(records ...keyring.Record) {
	if len(records) > 0 {
		f.roster = append(f.roster, records...)
		f.cost.roster += stored(records...)
	}
}

// follow applies what is new on the roster. The own bundle's record goes to note.
func (f *fleet) follow(p *peer, note func(keyring.Record) error) error {
	for ; p.read < len(f.roster); p.read++ {
		rec := f.roster[p.read]
		if err := p.roster.Apply(rec.Key, rec.Value, f.now); err != nil {
			return err
		}
		if err := note(rec); err != nil {
			return err
		}
	}
	return nil
}

// chainDue says whether a node publishes its credential chain again, as host/agent does.
func (f *fleet) chainDue(p *peer) bool {
	if f.now.Sub(p.chain) < 20*f.timing.PrekeyRotation {
		return false
	}
	p.chain = f.now
	return true
}

func (f *fleet) consume(c *consumer) error {
	begin := cpu()
	defer func() { c.cpu += cpu() - begin }()
	var records []keyring.Record
	if f.chainDue(&c.peer) {
		records = c.state.Node().RosterRecords()
	}
	if c.keys.PrekeyDue(f.now) {
		rec, err := c.keys.NewPrekey(f.now)
		if err != nil {
			return err
		}
		records = append(records, rec)
		f.cost.bundles++
		if c.roster == nil { // nobody reads the roster for it: its own bundle is all it wants
			if _, err := c.keys.NoteRoster(rec.Key, rec.Value, f.now); err != nil {
				return err
			}
		}
	}
	f.publish(records...)
	if c.roster != nil {
		if err := f.receive(c); err != nil {
			return err
		}
	}
	if c.keys.PrekeysWaiting(f.now) {
		c.keys.NoteGrantsEnd(0, f.now)
	}
	c.keys.Tick(f.now)
	return nil
}

// receive reads the roster and the grants, and tells how far the group is.
func (f *fleet) receive(c *consumer) error {
	if err := f.follow(&c.peer, func(rec keyring.Record) error {
		_, err := c.keys.NoteRoster(rec.Key, rec.Value, f.now)
		return err
	}); err != nil {
		return err
	}
	begin := cpu()
	for _, rec := range c.inbox {
		if _, err := c.keys.ApplyGrant(rec.Partition, c.applied, rec.Key, rec.Value, c.roster, f.now); err != nil {
			return err
		}
		c.applied++
		c.opened++
	}
	c.opening += cpu() - begin
	c.inbox = nil
	c.keys.NoteGrants(c.applied)
	if f.now.Sub(c.asked) < 10*time.Second {
		return nil
	}
	c.asked = f.now
	const partitions = 6
	ends, read := map[int32]int64{}, map[int32]int64{}
	for p := range int32(partitions) {
		ends[p], read[p] = 1, 1
	}
	if c.lags {
		read = map[int32]int64{0: 0}
	}
	for _, topic := range c.keys.EndsWanted(f.now) {
		c.keys.NoteEnds(topic, ends, f.now)
	}
	for _, topic := range c.keys.Watched() {
		c.keys.NoteProgress(topic, keyring.Progress{Groups: map[string]map[int32]int64{"billing": read}, Known: []string{"billing"}}, f.now)
	}
	return nil
}

// produce rotates what is due. Only where it is measured does it look every time: for the
// others the age of an epoch says the same.
func (f *fleet) produce(p *producer, measured bool) error {
	begin := cpu()
	if f.chainDue(&p.peer) {
		f.publish(p.state.Node().RosterRecords()...)
	}
	if err := f.follow(&p.peer, func(keyring.Record) error { return nil }); err != nil {
		return err
	}
	var due []string
	if live := p.keys.Epochs(); len(live) == 0 {
		for i := range topics {
			due = append(due, topic(i))
		}
	} else if measured || f.now.Sub(live[0].Start) >= f.timing.Epoch {
		due = p.keys.Due(p.roster, f.now)
	}
	if len(due) > 0 {
		if err := f.grant(p, due, measured); err != nil {
			return err
		}
	}
	if measured {
		f.cost.producerCPU += cpu() - begin
	}
	return nil
}

func (f *fleet) grant(p *producer, due []string, measured bool) error {
	begin := cpu()
	drafts, refused, err := p.keys.Prepare(due, p.roster, f.now)
	if measured {
		f.cost.wrapping += cpu() - begin
		for _, d := range drafts {
			f.cost.wraps += len(d.Recipients)
		}
	}
	for _, r := range refused {
		err = errors.Join(err, r)
	}
	if err != nil {
		return err
	}
	for _, d := range drafts {
		for _, rec := range d.Records {
			f.grants[rec.Partition] += stored(rec)
			for _, c := range f.watched {
				if c.state.Node().GrantPartition() == rec.Partition {
					c.inbox = append(c.inbox, rec)
				}
			}
		}
		f.cost.epochs++
		if err := p.keys.Activate(d, f.now, f.now); err != nil {
			return err
		}
		for _, topic := range d.Topics {
			if _, err := p.keys.Lease(topic, f.now); err != nil {
				return err
			}
		}
	}
	p.keys.Retire(f.now)
	return nil
}

// finish adds up what was read, and weighs an agent of each kind.
func (f *fleet) finish(length time.Duration) (*cost, error) {
	c := &f.cost
	c.length = length
	for _, bytes := range f.grants {
		c.grants += bytes
	}
	for _, n := range f.consumers {
		c.grantsRead += f.grants[n.state.Node().GrantPartition()]
	}
	for _, n := range f.producers { // they read their own grants back, which are of equal size
		c.grantsRead += f.grants[n.state.Node().GrantPartition()] / int64(len(f.producers))
	}
	c.rosterRead = c.roster * int64(len(f.consumers)+len(f.producers))
	first := f.watched[0]
	c.consumerCPU = first.cpu
	c.opening, c.opens = first.opening, first.opened

	newest := f.compacted()
	follow := func(s *keyring.State) *keyring.Roster {
		r := keyring.NewRoster(s, f.timing)
		for _, rec := range newest {
			_ = r.Apply(rec.Key, rec.Value, f.now)
		}
		return r
	}
	c.producerHeap = heap(func() any {
		p := f.producers[0]
		return follow(p.state)
	})
	file := first.state.Marshal()
	var err error
	c.consumerHeap = heap(func() any {
		var s *keyring.State
		if s, err = keyring.ParseState(file); err != nil {
			return nil
		}
		return []any{s, follow(s)}
	})
	if len(f.watched) > 1 {
		lagging := f.watched[1].state.Marshal()
		kids := int64(len(f.watched[1].state.View().Kids))
		c.perSecret = heap(func() any { s, _ := keyring.ParseState(lagging); return s }) / max(kids, 1)
		c.perSecretFile = int64(len(lagging)) / max(kids, 1)
	}
	return c, err
}

// compacted is the roster as its topic's compaction leaves it.
func (f *fleet) compacted() []keyring.Record {
	last := map[string]int{}
	for i, rec := range f.roster {
		last[string(rec.Key)] = i
	}
	var out []keyring.Record
	for i, rec := range f.roster {
		if last[string(rec.Key)] == i {
			out = append(out, rec)
		}
	}
	return out
}

// heap is by how many bytes what build returns lets the heap grow.
func heap(build func() any) int64 {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	held := build()
	runtime.GC()
	runtime.ReadMemStats(&after)
	runtime.KeepAlive(held)
	return max(int64(after.HeapAlloc)-int64(before.HeapAlloc), 0)
}

// cpu is the processor time that this process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
