package ledger

import (
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

// setting reads a number that the long form changes.
func setting(name string, value uint64) uint64 {
	if n, err := strconv.ParseUint(os.Getenv(name), 10, 64); err == nil {
		return n
	}
	return value
}

// roundsOfLife is how long a process works, at most, before it is ended.
const roundsOfLife = 60

// Each point is crashed at several times, and what follows is by turns a start from the
// state, from an old copy of it, and of two processes from one state at once.
func TestNoKeySealsTwiceThroughCrashes(t *testing.T) {
	t.Parallel()
	seed := setting("ADVERSARY_SEED", 1)
	for run := range setting("ADVERSARY_LEDGERS", 2) {
		f := newFleet(t, seed+run)
		machines := []*machine{f.enrol("gateway", wire.RoleProduce|wire.RoleConsume), f.enrol("producer", wire.RoleProduce)}
		restores, twins := 0, 0
		for i, at := range slices.Concat(points, points, points) {
			m, after := machines[0], 1
			if i >= len(points) { // once everything was reached
				m, after = machines[f.rng.IntN(2)], 1+f.rng.IntN(3)
			}
			processes := []*machine{m}
			switch f.rng.IntN(4) {
			case 0: // an old state is put back
				m.disk = slices.Clone(m.backups[f.rng.IntN(len(m.backups))])
				restores++
			case 1: // the state is copied to another machine, which runs as well
				twin := &machine{name: m.name, disk: slices.Clone(m.disk), starts: m.starts + 1000}
				processes = append(processes, twin)
				twins++
			}
			var alive []*process
			for _, m := range processes {
				p := &process{fleet: f, machine: m, crashAt: at, crashAfter: after}
				if p.survives(func() { p.start(f.random) }) {
					alive = append(alive, p)
				}
			}
			for range roundsOfLife {
				alive = slices.DeleteFunc(alive, func(p *process) bool { return !p.survives(p.work) })
				f.now = f.now.Add(time.Duration(f.rng.IntN(20_000)) * time.Millisecond)
			}
			f.now = f.now.Add(time.Second)
		}
		f.judge()
		for _, at := range points {
			if f.crashed[at] == 0 {
				t.Errorf("no process crashed where %s", at)
			}
		}
		total := 0
		for _, n := range f.crashed {
			total += n
		}
		t.Logf("%d batches under %d keys of %d epochs, %d crashes at %d points, %d old states put back, %d states run twice",
			f.book.batches, len(f.book.keys), len(f.book.roots), total, len(f.crashed), restores, twins)
		if len(points) < 20 || f.book.batches < 2000 || restores < 5 || twins < 5 {
			t.Error("too little happened to judge by")
		}
	}
}

// A machine that is cloned while it runs has the same trees twice. What it seals then differs
// by the salt alone (PROTOCOL.md §2.13).
func TestALiveCloneRepeatsKeysAndNoNonce(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		salts   [2]uint64 // seeds of the two generators after the clone
		repeats bool
	}{
		{"with generators of their own", [2]uint64{11, 12}, false},
		{"with the generator's state cloned too, which C9 leaves out", [2]uint64{13, 13}, true},
	} {
		f := newFleet(t, setting("ADVERSARY_SEED", 1))
		m := f.enrol("producer", wire.RoleProduce)
		var clones []*process
		for i, salts := range test.salts {
			p := &process{fleet: f, machine: &machine{name: m.name, disk: slices.Clone(m.disk), starts: i}}
			p.start(generator(99)) // until here they are one
			p.begin(topics[:1])
			p.random = generator(salts)
			for i := range p.workers {
				p.workers[i] = p.worker()
			}
			clones = append(clones, p)
		}
		for range 500 {
			for _, p := range clones {
				p.seal(topics[0], 0)
			}
		}
		if len(f.book.again) != 500 {
			t.Errorf("%s: %d keys were used again of 500: these are no clones", test.name, len(f.book.again))
		}
		if got := len(f.book.repeats) > 0; got != test.repeats {
			t.Errorf("%s: %d pairs repeat: %v", test.name, len(f.book.repeats), f.book.repeats[:min(3, len(f.book.repeats))])
		}
	}
}

// Whoever says that no key repeats must be able to see that one does.
func TestTheLedgerSeesALeaseUsedTwice(t *testing.T) {
	t.Parallel()
	f := newFleet(t, setting("ADVERSARY_SEED", 1))
	p := &process{fleet: f, machine: f.enrol("producer", wire.RoleProduce)}
	p.start(f.random)
	p.begin(topics[:1])
	lease, err := p.producer.Lease(topics[0], p.now)
	f.must(err)
	for i := range 2 { // the same lease in two workers
		if s := p.workers[i].InstallLease(&lease); s != abi.StatusOK {
			t.Fatal(s)
		}
		p.seal(topics[0], i)
	}
	if len(f.book.again) != 1 || len(f.book.repeats) != 0 {
		t.Errorf("used again: %v, repeated: %v", f.book.again, f.book.repeats)
	}
	clear(f.book.roots)
	if err := f.book.sealed(wire.PackedHeader{}, "somebody"); err == nil {
		t.Error("a batch under a kid that was never granted passes")
	}
}
