package simulation

import (
	"bytes"
	"errors"
	"slices"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// A group reads topics to their end, or up to lag before it, and commits what it has read.
type group struct {
	*fleet
	name      string
	topics    []string
	lag       time.Duration
	paused    bool
	started   bool
	members   []*node
	position  map[place]int64 // of its consumers
	committed map[place]int64
	next      map[place]int // sequence number of the next value
	behind    time.Time     // when it last had something to read that it could not

	opened  int
	expired int            // retention took them unread
	skipped map[string]int // by what was said of them
}

func (f *fleet) group(name string, lag time.Duration, topics ...string) *group {
	g := &group{fleet: f, name: name, topics: topics, lag: lag, position: map[place]int64{}, committed: map[place]int64{}, next: map[place]int{}, skipped: map[string]int{}}
	f.groups[name] = g
	return g
}

// progress is what the broker says of a topic to the group's members.
func (g *group) progress(topic string) keyring.Progress {
	p := keyring.Progress{LogStart: map[int32]int64{}, Groups: map[string]map[int32]int64{}}
	for i := range int32(partitions) {
		p.LogStart[i] = g.broker.at(topic, i).start()
	}
	if g.started {
		p.Known = []string{g.name}
		p.Groups[g.name] = map[int32]int64{}
		for i := range int32(partitions) {
			if offset, ok := g.committed[place{topic, i}]; ok {
				p.Groups[g.name][i] = offset
			}
		}
	}
	return p
}

// consume lets the group read through the data planes of members that run.
func (g *group) consume() {
	var up []*node
	for _, n := range g.members {
		if n.up && n.ready && !n.thief {
			up = append(up, n)
		}
	}
	if len(up) == 0 || g.paused || !g.broker.up {
		g.behind = g.fleet.now
		return
	}
	g.started = true
	for _, topic := range g.topics {
		for i := range int32(partitions) {
			p := place{topic, i}
			for _, v := range slices.Clone(g.broker.at(topic, i).from(g.position[p])) {
				if g.fleet.now.Sub(v.at) < g.lag {
					break
				}
				if !g.take(up[g.rng.IntN(len(up))], v) {
					g.behind = g.fleet.now
					break
				}
			}
		}
	}
}

// take has a member open a value, or find out what it is. It returns false while its key may
// yet come: the partition stops there, as on_unreadable has it.
func (g *group) take(n *node, v *value) bool {
	if v.seq < g.next[v.place] {
		g.fail("group %s reads value %d of topic %s twice", g.name, v.seq, v.topic)
	}
	g.expired += v.seq - g.next[v.place]
	root, err := n.consumer.Root(v.topic, v.kid, n.now())
	if err == nil {
		if status := n.plane.InstallRoot(&root); status != abi.StatusOK {
			g.t.Fatal(status)
		}
		b := bytes.Clone(v.batch)
		if _, status := n.plane.OpenBatch(b, len(b), []byte(v.topic), v.partition); status != abi.StatusOK {
			g.fail("%s opens a value of %s: %v", n.name, v.topic, status)
		}
		g.opened++
		g.most("minutes from sealing to opening in group "+g.name, int(g.fleet.now.Sub(v.at).Minutes()))
		g.pass(v)
		return true
	}
	if n.consumer.GrantsNext() < g.broker.grants[n.state.Node().GrantPartition()].next {
		g.next[v.place] = v.seq
		return false // pending: the grants reader waits for its clock
	}
	if errors.Is(err, abi.StatusPending) && n.recall() {
		g.next[v.place] = v.seq
		return false
	}
	e := g.broker.epochs[v.kid]
	why := g.broken(e)
	if why == "" {
		if n.consumer.Askable(v.topic, v.kid) {
			n.ask(v.topic, v.kid)
		}
		g.next[v.place] = v.seq
		return false // what retention took before it is counted
	}
	kind := "unknown"
	err = n.consumer.Unreadable(v.topic, v.kid, g.committed[v.place] > 0)
	for _, s := range []abi.Status{abi.StatusHistory, abi.StatusErased, abi.StatusUnreadable} {
		if errors.Is(err, s) {
			kind = s.String()
		}
	}
	fits := map[string][]abi.Status{
		"older than the group":          {abi.StatusHistory},
		"its producer was revoked":      {abi.StatusUnreadable},
		"older than the hard cap":       {abi.StatusErased},
		"every member that had it left": {abi.StatusUnreadable, abi.StatusErased},
	}[why]
	if !slices.ContainsFunc(fits, func(s abi.Status) bool { return errors.Is(err, s) }) {
		g.fail("%s says of a value that is unreadable because %s: %v", n.name, why, err)
	}
	g.skipped[why+": "+kind]++
	if errors.Is(err, abi.StatusHistory) {
		g.position[v.place], g.next[v.place] = v.base+v.records, v.seq+1 // there is nothing to commit
		return true
	}
	g.pass(v)
	return true
}

// pass commits a value.
func (g *group) pass(v *value) {
	g.next[v.place] = v.seq + 1
	g.position[v.place] = v.base + v.records
	g.committed[v.place] = v.base + v.records
}

// broken says why a value's key may be had from nobody any more, "" while the promise holds:
// it was wrapped for a member that did not lose its state, and is younger than the hard cap.
func (g *group) broken(e *epoch) string {
	m := g.fleet.members[e.header.Producer]
	joined := false
	for _, n := range g.members {
		joined = joined || g.fleet.members[n.id()].first.Before(e.at)
	}
	switch {
	case !e.accepted, !m.revoked.IsZero() && e.at.Add(learning).After(m.revoked):
		return "its producer was revoked"
	case !joined:
		return "older than the group"
	case g.fleet.now.After(e.at.Add(timing.HardCap - learning)):
		return "older than the hard cap"
	}
	for _, n := range g.members {
		if !n.gone && !n.thief && (e.wrapped[n.id()] || n.held[e.kid]) {
			return ""
		}
	}
	return "every member that had it left"
}

// unread reports whether a value of kid stands before the group.
func (g *group) unread(topic string, kid abi.Kid) bool {
	for i := range int32(partitions) {
		for _, v := range g.broker.at(topic, i).from(g.position[place{topic, i}]) {
			if v.kid == kid {
				return true
			}
		}
	}
	return false
}
