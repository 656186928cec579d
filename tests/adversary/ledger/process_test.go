package ledger

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
	"github.com/wasm-e2ee/wasm-e2ee/module/filter"
	"github.com/wasm-e2ee/wasm-e2ee/tests/reference"
)

// A machine is a disk with a state file, and copies that somebody made of it.
type machine struct {
	name    string
	disk    []byte
	backups [][]byte
	starts  int
}

func (m *machine) write(b []byte) {
	m.disk = b
	m.backups = append(m.backups, slices.Clone(b))
}

// workersOfProcess is how many module instances seal under one agent.
const workersOfProcess = 3

// A process is one agent and its module instances, with the agent's steps in its order.
type process struct {
	*fleet
	*machine
	name     string
	state    *keyring.State
	roster   *keyring.Roster
	read     int
	producer *keyring.Producer
	consumer *keyring.Consumer
	workers  []*filter.Filter
	random   io.Reader
	saved    uint64
	prekeyAt time.Time

	crashAt    point
	crashAfter int
}

// start begins a process on what the machine's disk holds. What it draws comes from random.
func (p *process) start(random io.Reader) {
	p.machine.starts++
	p.name = fmt.Sprintf("%s's process %d", p.machine.name, p.machine.starts)
	p.random = random
	var err error
	p.state, err = keyring.ParseState(p.disk)
	p.must(err)
	p.roster = keyring.NewRoster(p.state, p.timing)
	p.consumer = keyring.NewConsumer(p.state, p.timing, random)
	p.reach("the state is read, and not yet written")
	p.save(true)
	p.producer, err = keyring.NewProducer(p.state.Node(), p.timing, nil, random)
	p.must(err)
	p.reach("an instance is drawn")
	for range workersOfProcess {
		p.workers = append(p.workers, p.worker())
	}
	if p.state.Node().HasRole(wire.RoleProduce) {
		p.publish()
	}
}

func (p *process) worker() *filter.Filter {
	w := filter.New(p.random)
	if s := w.Configure(abi.Config{MaxDecompressed: 1 << 20}); s != abi.StatusOK {
		p.t.Fatal(s)
	}
	return w
}

// save writes the state as the agent's store does.
func (p *process) save(always bool) {
	if !always && p.state.Version() == p.saved {
		return
	}
	b := p.state.Marshal()
	p.reach("the state is written to its temporary file")
	p.machine.write(b)
	p.saved = p.state.Version()
	p.reach("the state is renamed")
}

// publish puts the credential, and where the node consumes a new prekey, on the roster.
func (p *process) publish() {
	p.fleet.roster = append(p.fleet.roster, p.state.Node().RosterRecords()...)
	p.reach("the credential is published")
	if !p.state.Node().HasRole(wire.RoleConsume) {
		return
	}
	rec, err := p.consumer.NewPrekey(p.now)
	p.must(err)
	p.prekeyAt = p.now
	p.reach("a prekey is drawn, and not on disk")
	p.save(true)
	p.reach("a prekey is on disk, and its bundle not published")
	p.fleet.roster = append(p.fleet.roster, rec)
	p.reach("a bundle is published")
}

func (p *process) readRoster() {
	for ; p.read < len(p.fleet.roster); p.read++ {
		rec := p.fleet.roster[p.read]
		if err := p.roster.Apply(rec.Key, rec.Value, p.now); !tolerable(err) {
			p.must(err)
		}
		if _, err := p.consumer.NoteRoster(rec.Key, rec.Value, p.now); !tolerable(err) {
			p.must(err)
		}
	}
}

// work is one round of everything that an agent and its data plane do.
func (p *process) work() {
	p.readRoster()
	if p.state.Node().HasRole(wire.RoleConsume) && p.consumer.PrekeyDue(p.now) {
		p.publish()
	}
	if due := p.producer.Due(p.roster, p.now); len(due) > 0 {
		p.reach("the next epoch is due")
		p.begin(due)
	}
	p.retire()
	for range 1 + p.rng.IntN(4) {
		topic, worker := topics[p.rng.IntN(len(topics))], p.rng.IntN(len(p.workers))
		if p.seal(topic, worker) && p.rng.IntN(4) == 0 {
			p.reach("a client's batch is sealed again")
			p.seal(topic, p.rng.IntN(len(p.workers))) // its answer was lost
		}
	}
	switch p.rng.IntN(16) {
	case 0: // a module instance traps, and another takes its place
		p.workers[p.rng.IntN(len(p.workers))] = p.worker()
		p.reach("a worker is lost")
	case 1: // the clock jumps
		kids, err := p.producer.Restart()
		p.must(err)
		p.reach("an instance is ended, and its leases are with the workers")
		p.forget(kids)
		p.reach("an instance is ended, and its leases are erased")
	}
	p.follow()
}

// begin makes new epochs and starts them once their grants are acknowledged.
func (p *process) begin(topics []string) {
	p.readRoster()
	p.reach("the roster is read")
	drafts, refused, err := p.producer.Prepare(topics, p.roster, p.now)
	p.must(err)
	for _, err := range refused {
		p.must(err)
	}
	p.reach("a draft is prepared")
	for _, d := range drafts {
		for i, rec := range d.Records {
			if i == len(d.Records)/2 {
				p.reach("some parts of a grant are written")
			}
			p.grants[rec.Partition] = append(p.grants[rec.Partition], rec)
		}
		p.reach("a grant is written")
		p.audit()
		p.reach("a grant is acknowledged")
		p.must(p.producer.Activate(d, p.now, p.now))
		p.reach("an epoch begins")
	}
}

// retire takes the leases of what is over from the workers.
func (p *process) retire() {
	kids := p.producer.Retire(p.now)
	if len(kids) == 0 {
		return
	}
	p.reach("an epoch is replaced, and its leases are with the workers")
	p.forget(kids)
	p.reach("an epoch is retired, and its leases are erased")
}

func (p *process) forget(kids []abi.Kid) {
	for _, w := range p.workers {
		if len(kids) > 0 {
			w.Erase(kids)
		}
	}
}

// seal makes a worker seal one batch, and reports whether it did.
func (p *process) seal(topic string, worker int) bool {
	w := p.workers[worker]
	ms := p.now.UnixMilli()
	b := reference.Join(kafka.BatchHeader{NumRecords: 1, BaseTimestamp: ms, MaxTimestamp: ms, ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1},
		reference.Section(kafka.Record{Value: []byte(topic)}))
	size := len(b)
	b = append(b, make([]byte, 200)...)
	for range 4 {
		r, status := w.SealBatch(b, size, []byte(topic), 0, uint64(ms))
		if status == abi.StatusOK {
			p.sealed(b[:r.Length], worker)
			p.reach("a batch is sealed")
			return true
		}
		if status != abi.StatusNeedLease {
			p.t.Fatal(status)
		}
		lease, err := p.producer.Lease(topic, p.now)
		if errors.Is(err, abi.StatusNeedLease) {
			p.begin([]string{topic})
			p.retire()
			continue
		}
		p.must(err)
		p.reach("a lease is cut")
		if s := w.InstallLease(&lease); s != abi.StatusOK {
			p.t.Fatal(s)
		}
		p.reach("a lease is installed")
	}
	p.t.Fatal("no lease lasts for a batch")
	return false
}

// sealed enters what a worker sealed, whether or not it ever leaves the process.
func (p *process) sealed(batch []byte, worker int) {
	var r kafka.Record
	_, err := kafka.NextRecord(batch[kafka.BatchHeaderSize:], &r)
	p.must(err)
	h, err := wire.ParsePackedHeader(r.Value)
	p.must(err)
	p.must(p.book.sealed(h, fmt.Sprintf("%s, worker %d", p.name, worker)))
}

// follow reads the own partition of the grants, and erases what is due.
func (p *process) follow() {
	if !p.state.Node().HasRole(wire.RoleConsume) {
		return
	}
	part := p.state.Node().GrantPartition()
	for i := max(p.consumer.GrantsNext(), 0); i < int64(len(p.grants[part])); i++ {
		rec := p.grants[part][i]
		if _, err := p.consumer.ApplyGrant(part, i, rec.Key, rec.Value, p.roster, p.now); err != nil && !errors.Is(err, abi.StatusErased) && !errors.Is(err, keyring.ErrRollback) {
			p.must(err)
		}
		p.consumer.NoteGrants(i + 1)
	}
	p.reach("a grant is opened, and its secret not on disk")
	p.save(false)
	for _, topic := range p.consumer.EndsWanted(p.now) {
		p.consumer.NoteEnds(topic, map[int32]int64{0: 1}, p.now)
	}
	for _, topic := range p.consumer.Watched() {
		p.consumer.NoteProgress(topic, keyring.Progress{LogStart: map[int32]int64{0: 0}, Known: []string{p.machine.name},
			Groups: map[string]map[int32]int64{p.machine.name: {0: 1}}}, p.now)
	}
	if len(p.consumer.Tick(p.now)) > 0 {
		p.save(false)
		p.reach("a secret is erased, and on disk")
	}
}
