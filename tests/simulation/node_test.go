package simulation

import (
	"bytes"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
	"github.com/wasm-e2ee/wasm-e2ee/module/filter"
)

// A clock is off by up to skew from the broker's, and drifts.
type clock struct {
	offset, swing time.Duration
	period        time.Duration
}

func (c clock) at(t time.Time) time.Time {
	drift := time.Duration(float64(c.swing) * math.Sin(2*math.Pi*t.Sub(began).Hours()/c.period.Hours()))
	return t.Add(min(max(c.offset+drift, -skew), skew)).Truncate(time.Millisecond)
}

// A node is one agent and its data plane.
type node struct {
	*fleet
	name     string
	produces []string
	consumes []string
	group    string
	timing   keyring.Timing
	careful  bool // wants a fresh AuthorityState
	clock    clock
	rng      *rand.Rand
	random   io.Reader
	traffic  map[string]*traffic

	state     *keyring.State
	roster    *keyring.Roster
	consumer  *keyring.Consumer
	producer  *keyring.Producer
	plane     *filter.Filter
	read      int64             // next offset of the roster
	later     map[string]stored // bundles of others that are yet to be read, by key
	readLater time.Time
	ready     bool      // the roster was read to its end since start
	recalled  bool      // the grants of before its start were read once more
	replayed  time.Time // when it last read an old grant that the broker wrote again
	requests  []keyring.Record
	bundle    keyring.Record // the newest
	publish   bool           // it is to be written
	pending   []pending
	asked     time.Time        // when renewal was last asked for
	inquired  map[abi.Kid]bool // kids asked for in this minute
	inquiry   time.Time        // when that began
	up        bool             // runs, and is not suspended
	since     time.Time        // up since
	away      bool             // switched off for days
	gone      bool             // lost for good
	thief     bool             // somebody else runs it, and looks at no AuthorityState
	held      map[abi.Kid]bool // topic secrets
	erased    map[abi.Kid]bool // ever
	out       []stored         // written in this step, not yet on the broker; roster records have partition rosterPartition
}

// rosterPartition marks what goes to the roster among what goes to the grants topic.
const rosterPartition = -1

func (n *node) now() time.Time { return n.clock.at(n.fleet.now) }

func (n *node) id() wire.NodeID { return n.state.Node().ID() }

// start runs a process on a state.
func (n *node) start(s *keyring.State) {
	n.state, n.read, n.later, n.ready, n.recalled, n.requests, n.pending = s, 0, map[string]stored{}, false, false, nil, nil
	n.bundle, n.publish = keyring.Record{}, false
	n.roster = keyring.NewRoster(s, n.timing)
	n.consumer = keyring.NewConsumer(s, n.timing, n.random)
	for _, topic := range n.consumes {
		n.consumer.NoteRetention(topic, dataRetention)
	}
	var err error
	n.producer, err = keyring.NewProducer(s.Node(), n.timing, nil, n.random)
	n.must(err)
	if n.careful {
		n.producer.RequireFresh()
	}
	n.plane = filter.New(n.random)
	if status := n.plane.Configure(abi.Config{MaxDecompressed: 1 << 20}); status != abi.StatusOK {
		n.t.Fatal(status)
	}
	n.inquired = map[abi.Kid]bool{}
	n.writeAll(s.Node().RosterRecords())
	n.up, n.since = true, n.fleet.now
}

// restart ends the process and starts another one on its state file.
func (n *node) restart() {
	file := n.state.Marshal()
	n.most("bytes of a state file", len(file))
	n.producer.Wipe()
	n.plane.Erase(nil)
	n.state.Wipe()
	s, err := keyring.ParseState(file)
	n.must(err)
	n.start(s)
}

// resume is what the agent does after its machine was suspended.
func (n *node) resume() {
	n.up, n.since = true, n.fleet.now
	n.pending = nil
	kids, err := n.producer.Restart()
	n.must(err)
	n.forget(kids)
	if len(n.consumes) > 0 && n.state.Node().Check(n.now()) == nil { // else the next credential may be on the roster
		n.newPrekey()
	}
}

func (n *node) write(rec keyring.Record, topic string) {
	if topic == keyring.RosterTopic {
		rec.Partition = rosterPartition
	}
	n.out = append(n.out, stored{Record: rec})
}

func (n *node) writeAll(roster []keyring.Record) {
	for _, rec := range roster {
		n.write(rec, keyring.RosterTopic)
	}
}

// forget erases kids from the data plane. None means none here, and all to the plane.
func (n *node) forget(kids []abi.Kid) {
	if len(kids) > 0 {
		n.plane.Erase(kids)
	}
}

// sync reads the roster to its end. Bundles of others are read later where nothing depends on
// them: half an hour's at once, or before an epoch begins. Of a log that is compacted the newest
// is what is left of them.
func (n *node) sync() {
	own := (&wire.PrekeyBundle{Node: n.id()}).Key()
	for _, s := range n.broker.roster.from(n.read) {
		n.read = s.offset + 1
		if n.broker.roster.superseded(s) {
			continue
		}
		switch typ := wire.Type(s.Key[0]); {
		case typ == wire.TypeAuthorityState && n.thief:
		case typ == wire.TypeEpochRequest:
			if n.fleet.now.Sub(s.at) < time.Minute {
				n.requests = append(n.requests, s.Record)
			}
		case typ == wire.TypePrekeyBundle && !bytes.Equal(s.Key, own):
			n.later[string(s.Key)] = s
		default:
			n.apply(s)
		}
	}
	if !n.ready || len(n.requests) > 0 || n.fleet.now.Sub(n.readLater) >= 30*time.Minute || len(n.producer.Epochs()) > 0 {
		n.syncBundles()
	}
	if !n.ready {
		n.ready = true
		if !n.thief {
			for _, err := range n.roster.Lost(n.now()) {
				n.alarm("roster that lacks something", err)
			}
		}
	}
}

// syncBundles reads the bundles of others.
func (n *node) syncBundles() {
	n.readLater = n.fleet.now
	for _, key := range sorted(n.later) {
		n.apply(n.later[key])
	}
	clear(n.later)
}

// apply takes one record of the roster.
func (n *node) apply(s stored) {
	if err := n.roster.Apply(s.Key, s.Value, n.now()); err != nil {
		n.explain("roster", err, s.Record)
	}
	again, err := n.consumer.NoteRoster(s.Key, s.Value, n.now())
	if err != nil {
		n.alarm("own bundle", err)
	}
	n.publish = n.publish || again
}

// renew asks for the next credential in time, and takes it.
func (n *node) renew() {
	now, before := n.now(), n.state.Node().Credential()
	if n.state.AdoptRenewal(n.roster, now) {
		after := n.state.Node().Credential()
		if after.Lineage != before.Lineage+1 || after.Node != before.Node || after.Subject == before.Subject || after.Subject != n.state.Node().PublicKey() {
			n.fail("renewal from lineage %d to %d, of node %v to %v", before.Lineage, after.Lineage, before.Node, after.Node)
		}
		if now.UnixMilli() > int64(before.NotAfter) {
			n.count("renewals of an ended credential", 1)
		}
		n.count("renewals", 1)
		n.asked = time.Time{}
		n.writeAll(n.state.Node().RosterRecords())
		return
	}
	if now.Before(n.state.Node().RenewAt()) || !n.state.Node().Renewable(now) || n.fleet.now.Sub(n.asked) < 10*time.Minute {
		return
	}
	n.asked = n.fleet.now
	rec, err := n.state.Renew(n.random)
	n.must(err)
	n.write(rec, keyring.RosterTopic)
}

// newPrekey makes a prekey, which a node whose credential does not count now cannot.
func (n *node) newPrekey() {
	rec, err := n.consumer.NewPrekey(n.now())
	if err == nil {
		n.bundle, n.publish = rec, true
		return
	}
	if m := n.members[n.id()]; !errors.Is(err, abi.StatusNotEntitled) || m.may(n.fleet.now) && m.must(n.fleet.now) {
		n.alarm("new prekey", err)
	}
}

// follow rotates the prekey and reads the own grants partition to its end.
func (n *node) follow() {
	if n.consumer.PrekeyDue(n.now()) {
		n.newPrekey()
	}
	if !n.broker.up {
		return
	}
	if n.publish && len(n.bundle.Key) > 0 {
		n.write(n.bundle, keyring.RosterTopic)
		n.publish = false
	}
	part := n.state.Node().GrantPartition()
	for _, s := range n.broker.grants[part].from(max(n.consumer.GrantsNext(), 0)) {
		apply := n.consumer.ApplyGrant
		if wire.Type(s.Key[0]) == wire.TypeKeyShare {
			apply = n.consumer.ApplyShare
		}
		if s.again {
			n.replayed = n.fleet.now
		}
		kids, err := apply(part, s.offset, s.Key, s.Value, n.roster, n.now())
		if errors.Is(err, abi.StatusClockSkew) && s.at.After(n.now()) {
			break // it waits for this node's clock
		}
		if err != nil {
			n.explain("grants", err, s.Record)
		}
		n.consumer.NoteGrants(s.offset + 1)
		for _, kid := range kids {
			n.hold(kid, wire.Type(s.Key[0]) == wire.TypeKeyShare)
		}
	}
	for _, err := range n.consumer.Findings(n.roster, n.now()) {
		n.explain("comparison of grants", err, keyring.Record{})
	}
	n.share()
}

// recall reads the grants once more that were read before the process started, if that was not
// done yet: what they say of keys that are not there is in memory only.
func (n *node) recall() bool {
	if n.recalled {
		return false
	}
	part := n.state.Node().GrantPartition()
	for _, s := range n.broker.grants[part].records {
		if s.offset < n.consumer.GrantsNext() && wire.Type(s.Key[0]) == wire.TypeEpochGrant {
			if err := n.consumer.Recall(part, s.offset, s.Key, s.Value, n.roster, n.now()); err != nil {
				n.explain("grants", err, s.Record)
			}
		}
	}
	n.recalled = true
	return true
}

// share answers what peers asked for.
func (n *node) share() {
	for _, q := range n.requests {
		tasks, err := n.consumer.Share(q.Key, q.Value, n.roster, n.now())
		if err != nil {
			n.explain("request of a peer", err, q)
		}
		for _, task := range tasks {
			s, ok := n.broker.grants[n.state.Node().GrantPartition()].at(task.Source)
			if !ok {
				continue // retention took it
			}
			rec, err := n.consumer.MakeShare(task, s.Value, n.now())
			if err != nil {
				n.alarm("share", err)
				continue
			}
			n.write(rec, keyring.GrantsTopic)
			n.count("secrets shared", 1)
		}
	}
	n.requests = nil
}

// ask writes a request for kid and what goes with it, at most once a minute for each.
func (n *node) ask(topic string, kid abi.Kid) {
	if n.fleet.now.Sub(n.inquiry) >= time.Minute {
		clear(n.inquired)
		n.inquiry = n.fleet.now
	}
	if n.inquired[kid] || !n.consumer.HasPeer(topic, []string{n.group}, n.roster, n.now()) {
		return
	}
	kids := n.consumer.Requestable([]abi.Kid{kid}, func(k abi.Kid) bool { return n.inquired[k] })
	rec, err := n.consumer.EpochRequest(n.group, kids, n.now())
	if err != nil {
		return // its credential has ended, or is revoked: newPrekey judges that
	}
	for _, k := range kids {
		n.inquired[k] = true
	}
	n.write(rec, keyring.RosterTopic)
}

// beg has a thief ask the group's members for all that it lacks.
func (n *node) beg() {
	if kids := n.consumer.Requestable(nil, func(abi.Kid) bool { return false }); len(kids) > 0 {
		rec, err := n.consumer.EpochRequest(n.group, kids, n.now())
		if err != nil {
			return // its credential has ended, and nobody renews it
		}
		n.write(rec, keyring.RosterTopic)
		n.count("requests of a thief", 1)
	}
}

// erase does what the agent's loop does about erasure.
func (n *node) erase() {
	now := n.now()
	if n.broker.up {
		for _, topic := range n.consumer.EndsWanted(now) {
			ends := map[int32]int64{}
			for i := range int32(partitions) {
				ends[i] = n.broker.at(topic, i).end
			}
			n.consumer.NoteEnds(topic, ends, now)
		}
		for _, topic := range n.consumer.Watched() {
			progress := n.groups[n.group].progress(topic)
			scans, _ := n.consumer.NoteProgress(topic, progress, now)
			for _, s := range scans {
				kids := map[abi.Kid]bool{}
				for _, v := range n.broker.at(s.Topic, s.Partition).from(s.From) {
					if v.base < s.To {
						kids[v.kid] = true
					}
				}
				n.consumer.NoteScan(s, kids, false)
			}
			if len(scans) > 0 {
				n.consumer.NoteProgress(topic, progress, now)
			}
		}
		if n.consumer.PrekeysWaiting(now) {
			n.consumer.NoteGrantsEnd(n.broker.grants[n.state.Node().GrantPartition()].next, now)
		}
	}
	kids := n.consumer.Tick(now)
	n.forget(kids)
	for _, kid := range kids {
		delete(n.held, kid)
		n.erased[kid] = true
		e, g := n.broker.epochs[kid], n.groups[n.group]
		if capped := !now.Before(time.UnixMilli(int64(e.header.UseBy)).Add(n.timing.HardCap)); !capped && g.unread(e.topic, kid) {
			n.fail("%s erases a key that its group has yet to use, of the epoch of %v", n.name, e.at.Sub(began))
		}
	}
}

// hold judges a topic secret that the node came to hold.
func (n *node) hold(kid abi.Kid, shared bool) {
	e, m := n.broker.epochs[kid], n.members[n.id()]
	switch {
	case e == nil:
		n.fail("%s holds a key of no epoch", n.name)
		return
	case n.erased[kid]: // C13
		n.fail("%s holds again what it had erased, of the epoch of %v", n.name, e.at.Sub(began))
	case !slices.Contains(n.consumes, e.topic):
		n.fail("%s holds a key of topic %s", n.name, e.topic)
	case !m.revoked.IsZero() && e.at.After(m.revoked.Add(learning)): // C11
		n.fail("%s, revoked at %v, holds a key of the epoch of %v", n.name, m.revoked.Sub(began), e.at.Sub(began))
	case !e.accepted && !n.thief && n.fleet.now.After(e.at.Add(learning)):
		n.fail("%s holds a key of the epoch of %v, whose producer was revoked", n.name, e.at.Sub(began))
	case shared && !m.revoked.IsZero() && n.fleet.now.After(m.revoked.Add(learning)):
		n.fail("%s, revoked at %v, was given a key by a peer", n.name, m.revoked.Sub(began))
	case !shared && !e.wrapped[n.id()]:
		n.fail("%s holds a key that was not wrapped for it", n.name)
	}
	n.held[kid] = true
	if shared {
		n.count("secrets had from peers", 1)
	}
}
