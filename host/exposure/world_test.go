package exposure

import (
	"crypto/rand"
	"errors"
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// A world is a producer and a consumer of two topics in virtual time, and what the broker
// stored of their control topics. Its step does what an agent's loops do.
type world struct {
	t      testing.TB
	now    time.Time
	timing keyring.Timing
	issuer *keyring.Issuer
	log    []keyring.Record                          // of the roster
	parts  [keyring.GrantPartitions][]keyring.Record // of the grants topic
	grants []*wire.Grant                             // the same, parsed
	heads  map[string]map[int32]int64                // end offsets of the data topics
	read   map[string]map[string]map[int32]int64     // committed offsets by topic and group

	prodState, consState   *keyring.State
	prodRoster, consRoster *keyring.Roster
	prodRead, consRead     int
	prod                   *keyring.Producer
	cons                   *keyring.Consumer
}

var topics = []string{"orders", "payments"}

func newWorld(t testing.TB, timing keyring.Timing, groups ...string) *world {
	t.Helper()
	w := &world{
		t: t, now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), timing: timing,
		heads: map[string]map[int32]int64{}, read: map[string]map[string]map[int32]int64{},
	}
	for _, topic := range topics {
		w.heads[topic] = map[int32]int64{0: 0, 1: 0}
		w.read[topic] = map[string]map[int32]int64{}
	}
	root, err := keyring.NewRealm(rand.Reader)
	w.must(err)
	w.issuer, err = root.CertifyIssuer(rand.Reader, w.now, w.now.Add(365*24*time.Hour))
	w.must(err)
	w.prodState, w.consState = w.enrol(wire.RoleProduce), w.enrol(wire.RoleConsume, groups...)
	w.prodRoster, w.consRoster = keyring.NewRoster(w.prodState, timing), keyring.NewRoster(w.consState, timing)
	w.prod, err = keyring.NewProducer(w.prodState.Node(), timing, nil, rand.Reader)
	w.must(err)
	w.cons = keyring.NewConsumer(w.consState, timing, rand.Reader)
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) enrol(role wire.Roles, groups ...string) *keyring.State {
	w.t.Helper()
	s, err := keyring.NewState(rand.Reader)
	w.must(err)
	want := keyring.Attributes{Roles: role, OfflineAllow: 72 * time.Hour}
	for _, topic := range topics {
		want.Topics = append(want.Topics, wire.Pattern{Name: topic})
	}
	for _, group := range groups {
		want.Groups = append(want.Groups, wire.Pattern{Name: group})
	}
	file, err := w.issuer.Issue(rand.Reader, s.Node().CSR(want), nil, keyring.Validity{NotBefore: w.now, NotAfter: w.now.Add(9 * 24 * time.Hour)})
	w.must(err)
	w.must(s.Node().Install(file, w.now))
	w.log = append(w.log, s.Node().RosterRecords()...)
	return s
}

// sync lets both ends read the roster to its end, the consumer only while it is online.
func (w *world) sync(online bool) {
	w.t.Helper()
	for ; w.prodRead < len(w.log); w.prodRead++ {
		w.must(w.prodRoster.Apply(w.log[w.prodRead].Key, w.log[w.prodRead].Value, w.now))
	}
	for ; online && w.consRead < len(w.log); w.consRead++ {
		rec := w.log[w.consRead]
		if err := w.consRoster.Apply(rec.Key, rec.Value, w.now); err != nil && !errors.Is(err, keyring.ErrRollback) {
			w.t.Fatal(err)
		}
		_, err := w.cons.NoteRoster(rec.Key, rec.Value, w.now)
		w.must(err)
	}
}

// produce seals to a topic: one record in each partition.
func (w *world) produce(topic string) {
	w.t.Helper()
	_, err := w.prod.Lease(topic, w.now)
	if err != nil {
		w.grant(topic)
		_, err = w.prod.Lease(topic, w.now)
	}
	w.must(err)
	for partition := range w.heads[topic] {
		w.heads[topic][partition]++
	}
}

func (w *world) grant(topics ...string) {
	w.t.Helper()
	drafts, refused, err := w.prod.Prepare(topics, w.prodRoster, w.now)
	w.must(err)
	if len(refused) > 0 {
		w.t.Fatal(refused)
	}
	for _, d := range drafts {
		for _, rec := range d.Records {
			w.parts[rec.Partition] = append(w.parts[rec.Partition], rec)
			g, err := wire.ParseGrant(rec.Value)
			w.must(err)
			w.grants = append(w.grants, g)
		}
		w.must(w.prod.Activate(d, w.now, w.now))
	}
}

// step is what happens at one moment: the producer's rotation, and the consumer's loops
// while it is online. groups that read commit what they have read.
func (w *world) step(online bool, groups ...string) {
	w.t.Helper()
	if online && w.cons.PrekeyDue(w.now) {
		rec, err := w.cons.NewPrekey(w.now)
		w.must(err)
		w.log = append(w.log, rec)
	}
	w.sync(online)
	if due := w.prod.Due(w.prodRoster, w.now); len(due) > 0 {
		w.grant(due...)
	}
	w.prod.Retire(w.now)
	if !online {
		return
	}
	part := w.consState.Node().GrantPartition()
	end := int64(len(w.parts[part]))
	for at := max(w.cons.GrantsNext(), 0); at < end; at++ {
		rec := w.parts[part][at]
		_, err := w.cons.ApplyGrant(part, at, rec.Key, rec.Value, w.consRoster, w.now)
		if err != nil {
			w.t.Fatal(err)
		}
		w.cons.NoteGrants(at + 1)
	}
	if w.cons.PrekeysWaiting(w.now) {
		w.cons.NoteGrantsEnd(end, w.now)
	}
	for _, topic := range w.cons.EndsWanted(w.now) {
		w.cons.NoteEnds(topic, w.heads[topic], w.now)
	}
	for _, topic := range topics {
		for _, group := range groups {
			w.read[topic][group] = map[int32]int64{0: w.heads[topic][0], 1: w.heads[topic][1]}
		}
	}
	for _, topic := range w.cons.Watched() {
		var known []string
		for group := range w.read[topic] {
			known = append(known, group)
		}
		w.cons.NoteProgress(topic, keyring.Progress{LogStart: map[int32]int64{0: 0, 1: 0}, Groups: w.read[topic], Known: known}, w.now)
	}
	w.cons.Tick(w.now)
}

// leak is the consumer's state as its file holds it, and what may be shown of it.
func (w *world) leak() ([]byte, keyring.View) {
	w.t.Helper()
	b := w.consState.Marshal()
	s, err := keyring.ParseState(b)
	w.must(err)
	return b, s.View()
}

// report is what is said of the consumer's state without a look at the grants.
func (w *world) report() *Report {
	w.t.Helper()
	_, view := w.leak()
	r, err := Of(view, w.timing, nil, w.now)
	w.must(err)
	return r
}
