package adversary_test

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// The fleet's grain: everything happens at instants that are tick apart, in a fixed order,
// so that what must hold after a step is exact.
const (
	tick       = 5 * time.Second
	steps      = 1200 // 100 virtual minutes
	partitions = 3
	unused     = 2                // the partition that one topic never uses, and another seldom
	validity   = 90 * time.Minute // V, so that everybody renews once
	retention  = 30 * time.Minute // of clicks; the others are kept for ever
)

// began is the instant of step 0.
var began = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// at is the instant of a step, by the broker's clock.
func at(step int) time.Time { return began.Add(time.Duration(step) * tick) }

// A fleet is a realm, its nodes and groups, and the broker between them.
type fleet struct {
	t      *testing.T
	rng    *rand.Rand
	random *recorder
	step   int
	broker *broker
	office *office
	groups map[string]*group
	nodes  []*node
	rules  [2]*rules // by reading
}

// A recorder is a source of randomness that remembers the 32-byte draws, which are secrets.
type recorder struct {
	*rand.ChaCha8
	drawn [][32]byte
}

func (r *recorder) Read(b []byte) (int, error) {
	n, err := r.ChaCha8.Read(b)
	if len(b) == 32 {
		r.drawn = append(r.drawn, [32]byte(b))
	}
	return n, err
}

// draws returns what was drawn since the last call.
func (r *recorder) draws() [][32]byte {
	out := r.drawn
	r.drawn = nil
	return out
}

func newFleet(t *testing.T, seed uint64) *fleet {
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	f := &fleet{t: t, rng: rand.New(rand.NewPCG(seed, 1)), random: &recorder{ChaCha8: rand.NewChaCha8(key)}, broker: newBroker(), groups: map[string]*group{}}
	f.rules = [2]*rules{newRules(f, earliest), newRules(f, latest)}
	f.office = newOffice(f)

	kind := func() committer { return committer(f.rng.IntN(int(committers))) }
	f.group("billing", "orders", "payments").kind = kind()
	f.group("audit", "payments", "clicks").kind = kind()
	slow := f.group("reports", "orders")
	slow.kind, slow.lag = kind(), 60+f.rng.IntN(240)

	for _, n := range f.cast() {
		n.fleet = f
		f.nodes = append(f.nodes, n)
	}
	t.Cleanup(func() {
		for _, n := range f.nodes {
			if n.plane != nil {
				n.plane.close()
			}
		}
	})
	// Every clock is up to a minute off the broker's (PROTOCOL.md §2.17).
	for _, n := range f.nodes {
		n.skew = time.Duration(f.rng.Int64N(120_001)-60_000) * time.Millisecond
	}
	return f
}

// cast makes the fleet's nodes.
func (f *fleet) cast() []*node {
	strict := keyring.DefaultTiming()
	strict.HardCap, strict.Offline = 40*time.Minute, 30*time.Minute
	replay := strict
	replay.Window = time.Duration(8+f.rng.IntN(15)) * time.Minute
	either := func() keyring.Timing {
		if f.rng.IntN(2) == 0 {
			return replay
		}
		return strict
	}
	always := func(int) bool { return true }
	// Away for long: longer than prekeys rotate, and now and then longer than a bundle is good.
	leaves, stays := 150+f.rng.IntN(300), 60+f.rng.IntN(500)
	away := func(step int) bool { return step < leaves || step >= leaves+stays }
	// Away for a moment at a time.
	period := 40 + f.rng.IntN(100)
	flaky := func(step int) bool { return step%period > 10 }
	// The disk that is stolen, and the node that is enrolled in its owner's place.
	stolen := 200 + f.rng.IntN(200)
	until := func(step int) bool { return step < stolen }
	fired := 300 + f.rng.IntN(400)

	all := []string{"clicks", "orders", "payments"}
	billing, audit := []string{"orders", "payments"}, []string{"payments", "clicks"}
	return []*node{
		{role: member, name: "strict member", consumes: billing, groups: []string{"billing"}, shares: true, timing: strict, awake: always},
		{role: member, name: "member that comes and goes", consumes: billing, groups: []string{"billing"}, timing: either(), awake: flaky},
		{role: member, name: "member of two groups", consumes: all, groups: []string{"billing", "audit"}, shares: true, timing: either(), awake: always},
		{role: member, name: "member of any group by prefix", consumes: audit, groups: []string{"audit"}, prefix: "spare-", shares: true, timing: either(), awake: always},
		{role: offline, name: "offline member", consumes: audit, groups: []string{"audit"}, shares: true, timing: either(), awake: away},
		{role: laggard, name: "laggard", consumes: []string{"orders"}, groups: []string{"reports"}, shares: true, timing: either(), awake: always},
		{role: laggard, name: "member of a group that never starts", consumes: []string{"clicks"}, groups: []string{"ghosts"}, timing: either(), awake: always},
		{role: laggard, name: "consumer that commits nothing", consumes: []string{"clicks"}, timing: either(), awake: always},
		{role: newcomer, name: "late member", consumes: billing, groups: []string{"billing"}, shares: true, timing: either(), awake: always,
			born: 250 + f.rng.IntN(300), dataFrom: 20 + f.rng.IntN(60)},
		{role: newcomer, name: "late laggard", consumes: []string{"orders"}, groups: []string{"reports"}, shares: true, timing: either(), awake: always,
			born: 350 + f.rng.IntN(200), dataFrom: 500},
		{role: newcomer, name: "member enrolled anew", consumes: audit, groups: []string{"audit"}, shares: true, timing: either(), awake: always,
			born: stolen + 10 + f.rng.IntN(30), dataFrom: 500},
		{role: removed, name: "member whose disk was stolen", consumes: audit, groups: []string{"audit"}, shares: true, timing: either(), awake: until, revoked: stolen + 5 + f.rng.IntN(30)},
		{role: removed, name: "member that is revoked", consumes: billing, groups: []string{"billing"}, shares: true, timing: either(), awake: always, revoked: fired},
		{role: producer, name: "producer", produces: billing, timing: strict, awake: always},
		{role: producer, name: "producer that restarts", produces: all, timing: strict, awake: flaky},
		{role: gateway, name: "gateway", produces: []string{"clicks"}, consumes: []string{"orders"}, groups: []string{"billing"}, timing: either(), awake: always},
	}
}

// A role is what leaks are counted by.
type role int

const (
	member role = iota
	offline
	laggard // or one whose group does not commit
	newcomer
	removed
	producer
	gateway
	roles
)

func (r role) String() string {
	return [...]string{"member", "offline member", "laggard", "newcomer", "removed member", "producer", "gateway"}[r]
}

func (f *fleet) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatalf("step %d: %v", f.step, err)
	}
}

func (f *fleet) group(name string, topics ...string) *group {
	g := &group{name: name, topics: topics, next: map[place]int{}, ready: map[place]int64{}, committed: map[place]int64{}, history: map[place][]commit{}}
	f.groups[name] = g
	return g
}

// enrol makes the node's identity and starts its process.
func (f *fleet) enrol(n *node) {
	f.must(n.timing.Validate())
	s, err := keyring.NewState(f.random)
	f.must(err)
	f.broker.identities[s.Node().PublicKey()] = f.random.draws()[0]
	want := keyring.Attributes{OfflineAllow: 72 * time.Hour}
	if len(n.produces) > 0 {
		want.Roles |= wire.RoleProduce
	}
	if len(n.consumes) > 0 {
		want.Roles |= wire.RoleConsume
	}
	if n.shares {
		want.Roles |= wire.RoleShare
	}
	// One list of topics serves both roles: a gateway may read what it writes, but its group
	// does not.
	for _, topic := range append(slices.Clone(n.consumes), n.produces...) {
		want.Topics = append(want.Topics, wire.Pattern{Name: topic})
	}
	for _, name := range n.groups {
		want.Groups = append(want.Groups, wire.Pattern{Name: name})
	}
	if n.prefix != "" {
		want.Groups = append(want.Groups, wire.Pattern{Prefix: true, Name: n.prefix})
	}
	f.office.issue(n, s, want)
	n.id = s.Node().ID()
	for _, name := range n.groups {
		if g := f.groups[name]; g != nil {
			g.members = append(g.members, n)
		}
	}
	f.rules[earliest].enrol(n)
	f.rules[latest].enrol(n)
	n.start(s)
}

// advance runs one step of the whole fleet.
func (f *fleet) advance() {
	f.broker.retain("clicks", f.step-int(retention/tick))
	f.office.work()
	for _, n := range f.nodes {
		up := n.awake(f.step) && f.step >= n.born
		if f.step == n.born {
			f.enrol(n)
		}
		if !up && f.step > 0 && n.online[f.step-1] {
			n.stop()
		}
		n.online = append(n.online, up)
	}
	f.each(func(n *node) { n.renew() })
	f.each(func(n *node) {
		if len(n.produces) > 0 {
			n.produce()
		}
	})
	f.each(func(n *node) {
		if len(n.consumes) > 0 {
			n.follow()
		}
	})
	for _, name := range []string{"audit", "billing", "reports"} {
		f.consume(f.groups[name])
	}
	f.each(func(n *node) {
		if len(n.consumes) > 0 {
			n.erase()
		}
	})
	f.step++
}

// each calls do for those that run.
func (f *fleet) each(do func(n *node)) {
	for _, n := range f.nodes {
		if n.online[f.step] {
			do(n)
		}
	}
}

// consume lets a group read what is old enough, through the data plane of any member that
// runs, and commit in its way.
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
				if !up[f.rng.IntN(len(up))].open(v) {
					break // peers were asked for its key
				}
				g.next[p]++
				next := log.end
				if g.next[p] < len(log.values) {
					next = f.broker.values[log.values[g.next[p]]].base
				}
				switch g.kind {
				case commitsPosition:
					g.commit(p, f.step, next)
				case commitsNextValue:
					g.commit(p, f.step, v.base+v.records)
				case commitsLastValue:
					g.commit(p, f.step, v.base+v.records-1)
				case commitsRarely:
					g.ready[p] = next
				case shares:
					// Up to two batches are acquired and not acknowledged, or part of one.
					before := f.broker.values[log.values[max(0, g.next[p]-1-f.rng.IntN(3))]]
					g.commit(p, f.step, before.base+f.rng.Int64N(before.records+1))
				}
			}
			if g.ready[p] > 0 && f.rng.IntN(30) == 0 {
				g.commit(p, f.step, g.ready[p])
			}
		}
	}
}
