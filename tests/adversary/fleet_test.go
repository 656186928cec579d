package adversary_test

import (
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// The fleet's grain: everything happens at instants that are tick apart, in a fixed order,
// so that what must hold after a step is exact.
const (
	tick       = 5 * time.Second
	steps      = 1200 // 100 virtual minutes
	partitions = 2
)

// began is the instant of step 0.
var began = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// at is the instant of a step.
func at(step int) time.Time { return began.Add(time.Duration(step) * tick) }

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
