package ledger

import (
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
	"github.com/wasm-e2ee/wasm-e2ee/module/ratchet"
)

var topics = []string{"orders", "payments"}

// A fleet is a realm, the broker's control topics, and an auditor: a consumer that is granted
// everything and forgets nothing, from whom the ledger has its roots.
type fleet struct {
	t      *testing.T
	rng    *rand.Rand
	random io.Reader
	now    time.Time
	issuer *keyring.Issuer
	timing keyring.Timing
	roster []keyring.Record
	grants [keyring.GrantPartitions][]keyring.Record

	auditor *process
	book    *ledger
	reached map[point]int
	crashed map[point]int
}

func newFleet(t *testing.T, seed uint64) *fleet {
	t.Helper()
	t.Logf("seed %d", seed)
	f := &fleet{t: t, rng: rand.New(rand.NewPCG(seed, 7)), random: generator(seed), now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		timing: keyring.DefaultTiming(), book: newLedger(), reached: map[point]int{}, crashed: map[point]int{}}
	root, err := keyring.NewRealm(f.random)
	f.must(err)
	f.issuer, err = root.CertifyIssuer(f.random, f.now, f.now.Add(365*24*time.Hour))
	f.must(err)
	f.auditor = &process{fleet: f, machine: f.enrol("auditor", wire.RoleConsume)}
	f.auditor.start(f.random)
	f.auditor.publish()
	return f
}

// generator is a random source of its own for each seed.
func generator(seed uint64) io.Reader {
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	return rand.NewChaCha8(key)
}

func (f *fleet) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatalf("%v: %v", f.now, err)
	}
}

// enrol makes a machine whose disk holds a node's first state.
func (f *fleet) enrol(name string, roles wire.Roles) *machine {
	s, err := keyring.NewState(f.random)
	f.must(err)
	want := keyring.Attributes{Roles: roles, OfflineAllow: 72 * time.Hour}
	for _, topic := range topics {
		want.Topics = append(want.Topics, wire.Pattern{Name: topic})
	}
	if roles.Has(wire.RoleConsume) {
		want.Groups = []wire.Pattern{{Name: name}}
	}
	file, err := f.issuer.Issue(f.random, s.Node().CSR(want), nil, keyring.Validity{NotBefore: f.now, NotAfter: f.now.Add(60 * 24 * time.Hour)})
	f.must(err)
	f.must(s.Node().Install(file, f.now))
	m := &machine{name: name}
	m.write(s.Marshal())
	return m
}

// audit lets the auditor read the grants and gives the ledger the new roots.
func (f *fleet) audit() {
	a := f.auditor
	if a.consumer.PrekeyDue(f.now) && f.now.Sub(a.prekeyAt) > 24*time.Hour {
		a.publish()
	}
	a.readRoster()
	part := a.state.Node().GrantPartition()
	for i := max(a.consumer.GrantsNext(), 0); i < int64(len(f.grants[part])); i++ {
		rec := f.grants[part][i]
		kids, err := a.consumer.ApplyGrant(part, i, rec.Key, rec.Value, a.roster, f.now)
		f.must(err)
		a.consumer.NoteGrants(i + 1)
		g, err := wire.ParseGrant(rec.Value)
		f.must(err)
		for _, kid := range kids {
			for _, t := range g.Header.Topics {
				if keyring.KidOf(t.Commit) == kid {
					root, err := a.consumer.Root(t.Name, kid, f.now)
					f.must(err)
					f.book.root(kid, (*ratchet.Node)(&root.Root))
				}
			}
		}
	}
}

// judge fails the test where a key sealed twice.
func (f *fleet) judge() {
	f.t.Helper()
	for _, s := range append(f.book.again, f.book.repeats...) {
		f.t.Errorf("used again: %s", s)
	}
}

// tolerable are the answers that honest processes give each other's records where several
// run under one identity.
func tolerable(err error) bool {
	return err == nil || errors.Is(err, keyring.ErrRollback) || errors.Is(err, keyring.ErrDuplicateNode)
}
