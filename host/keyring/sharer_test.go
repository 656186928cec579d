package keyring

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

func TestSharerRefusesWhoIsNotEntitled(t *testing.T) {
	for _, c := range []struct {
		name    string
		request func(w *world, holder, late *party, kid abi.Kid) Record
		want    error // nil: nothing is said either
	}{
		{"another group", func(w *world, _, _ *party, kid abi.Kid) Record {
			p := w.node(member, []string{"orders"}, []string{"audit"})
			p.publish()
			return p.ask("audit", kid)
		}, nil},
		{"a group that its credential lacks", func(w *world, _, late *party, kid abi.Kid) Record {
			p := w.node(member, []string{"orders"}, []string{"audit"})
			p.publish()
			return p.forge(late.ask("billing", kid), func(q *wire.EpochRequest) {})
		}, abi.StatusNotEntitled},
		{"another topic", func(w *world, _, _ *party, kid abi.Kid) Record {
			p := w.node(member, []string{"payments"}, billing)
			p.publish()
			return p.ask("billing", kid)
		}, nil},
		{"no role to consume", func(w *world, _, late *party, kid abi.Kid) Record {
			p := w.node(produce, []string{"orders"}, billing)
			return p.forge(late.ask("billing", kid), func(q *wire.EpochRequest) {})
		}, abi.StatusNotEntitled},
		{"data before data_not_before", func(w *world, _, _ *party, kid abi.Kid) Record {
			v := w.validity()
			v.DataNotBefore = w.now
			p := w.nodeUntil(member, []string{"orders"}, billing, v)
			p.publish()
			return p.ask("billing", kid)
		}, nil},
		{"no bundle", func(w *world, _, _ *party, kid abi.Kid) Record {
			return w.node(member, []string{"orders"}, billing).ask("billing", kid)
		}, nil},
		{"a stale request", func(w *world, _, late *party, kid abi.Kid) Record {
			req := late.ask("billing", kid)
			w.pass(requestAge + time.Millisecond)
			return req
		}, nil},
		{"a request from the future", func(w *world, _, late *party, kid abi.Kid) Record {
			return late.forge(late.ask("billing", kid), func(q *wire.EpochRequest) { q.Created += ms(requestAge) + 1 })
		}, abi.StatusClockSkew},
		{"an expired credential", func(w *world, holder, _ *party, kid abi.Kid) Record {
			v := w.validity()
			v.NotAfter = w.now.Add(time.Minute)
			p := w.nodeUntil(member, []string{"orders"}, billing, v)
			p.publish()
			req := p.ask("billing", kid)
			w.pass(time.Minute + time.Millisecond)
			return req
		}, abi.StatusNotEntitled},
		{"a revoked credential", func(w *world, _, late *party, kid abi.Kid) Record {
			req := late.ask("billing", kid)
			w.revoke(nil, late)
			return req
		}, abi.StatusNotEntitled},
		{"a credential revoked by a clock that is ahead", func(w *world, _, late *party, kid abi.Kid) Record {
			req := late.ask("billing", kid)
			w.pass(30 * time.Second)
			w.revoke(nil, late)
			w.pass(-30 * time.Second)
			return req
		}, abi.StatusNotEntitled},
		{"another's signature", func(w *world, holder, late *party, kid abi.Kid) Record {
			req := late.ask("billing", kid)
			req.Value[len(req.Value)-1] ^= 1
			return req
		}, ErrUnauthentic},
		{"another's credential", func(w *world, holder, late *party, kid abi.Kid) Record {
			return late.forge(late.ask("billing", kid), func(q *wire.EpochRequest) { q.Credential = holder.state.Node().Credential().Serial })
		}, ErrUnauthentic},
		{"another's name", func(w *world, _, late *party, kid abi.Kid) Record {
			p := w.node(member, []string{"orders"}, billing)
			p.publish()
			return late.forge(late.ask("billing", kid), func(q *wire.EpochRequest) { q.Node = p.state.Node().ID() })
		}, ErrUnauthentic},
		{"an unknown credential", func(w *world, _, late *party, kid abi.Kid) Record {
			return late.forge(late.ask("billing", kid), func(q *wire.EpochRequest) { q.Credential[0] ^= 1 })
		}, ErrUnknownCredential},
		{"another's place", func(w *world, holder, late *party, kid abi.Kid) Record {
			req := late.ask("billing", kid)
			req.Key[5] ^= 1
			return req
		}, wire.ErrMalformed},
		{"an unknown kid", func(w *world, _, late *party, _ abi.Kid) Record { return late.ask("billing", abi.Kid{9}) }, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, holder, late, kid := group(t)
			req := c.request(w, holder, late, kid)
			holder.sync()
			tasks, err := holder.consumer.Share(req.Key, req.Value, holder.roster, holder.now)
			if len(tasks) != 0 || !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
				t.Errorf("%d shares, %v; want none and %v", len(tasks), err, c.want)
			}
		})
	}
}

// forge signs a changed request as p.
func (p *party) forge(req Record, change func(*wire.EpochRequest)) Record {
	p.t.Helper()
	q, err := wire.ParseEpochRequest(req.Value)
	if err != nil {
		p.t.Fatal(err)
	}
	n := p.state.Node()
	q.Node, q.Credential = n.ID(), n.Credential().Serial
	change(q)
	q.Signature = sign(&n.seed, wire.TypeEpochRequest, q.Realm, q.AppendBody(nil))
	return Record{Key: q.Key(), Value: q.Append(nil)}
}

func TestSharerWithoutRoleOrGroupAnswersNothing(t *testing.T) {
	w, _, late, kid := group(t)
	prod := w.node(produce, []string{"orders"}, nil)
	for name, p := range map[string]*party{
		"no role share": w.node(consume, []string{"orders"}, billing),
		"another group": w.node(member, []string{"orders"}, []string{"audit"}),
	} {
		p.publish()
		prod.grant("orders")
		p.follow()
		req := late.ask("billing", kid, prod.lease("orders").Kid)
		if tasks := p.tasks(req); len(tasks) != 0 {
			t.Errorf("%s: shares %d", name, len(tasks))
		}
	}
	if late.consumer.HasPeer("orders", []string{"audit"}, late.roster, late.now) {
		t.Error("a group whose only member has not been read yet counts as peers")
	}
}

func TestKidThatTheGroupHasPassedIsNotShared(t *testing.T) {
	w := newWorld(t)
	prod := w.node(produce, []string{"orders"}, nil)
	holder := w.node(member, []string{"orders"}, []string{"billing", "audit"})
	holder.publish()
	prod.grant("orders")
	kid := prod.lease("orders").Kid
	holder.follow()
	peers := map[string]*party{}
	for _, g := range []string{"billing", "audit"} {
		p := w.node(member, []string{"orders"}, []string{g})
		p.publish()
		peers[g] = p
	}
	holder.settle(map[int32]int64{0: 10, 1: 0})
	holder.progress(map[string]map[int32]int64{"billing": {0: 10}, "audit": {0: 9}})
	if tasks := holder.tasks(peers["billing"].ask("billing", kid)); len(tasks) != 0 {
		t.Error("shared with a group that has passed it")
	}
	if tasks := holder.tasks(peers["audit"].ask("audit", kid)); len(tasks) != 1 {
		t.Error("not shared with a group that has yet to read it")
	}
	holder.progress(map[string]map[int32]int64{"billing": {0: 10}, "audit": {0: 10}})
	w.pass(time.Minute)
	if tasks := holder.tasks(peers["audit"].ask("audit", kid)); len(tasks) != 0 {
		t.Error("shared with a group that has passed it by now")
	}
	holder = holder.restart()
	if tasks := holder.tasks(peers["billing"].ask("billing", kid)); len(tasks) != 0 {
		t.Error("shared after a restart with a group that has passed it")
	}
}

func TestSharerGivesAKidOnceAMinute(t *testing.T) {
	w, holder, late, kid := group(t)
	if n := len(holder.tasks(late.ask("billing", kid))); n != 1 {
		t.Fatalf("%d shares", n)
	}
	if n := len(holder.tasks(late.ask("billing", kid))); n != 0 {
		t.Error("the same at once again")
	}
	w.pass(time.Minute)
	for range requestsEach {
		if n := len(holder.tasks(late.ask("billing", abi.Kid{1}))); n != 0 {
			t.Error("shares what it does not hold")
		}
	}
	if n := len(holder.tasks(late.ask("billing", kid))); n != 0 {
		t.Errorf("more than %d requests in a minute are looked at", requestsEach)
	}
	w.pass(time.Minute)
	if n := len(holder.tasks(late.ask("billing", kid))); n != 1 {
		t.Error("not given again a minute later")
	}
}

// TestFewOfALargeGroupAnswer: and they are members that had joined when the epoch started.
func TestFewOfALargeGroupAnswer(t *testing.T) {
	w := newWorld(t)
	prod := w.node(produce, []string{"orders"}, nil)
	var holders []*party
	for range 8 {
		p := w.node(member, []string{"orders"}, billing)
		p.publish()
		holders = append(holders, p)
	}
	w.pass(time.Second)
	prod.grant("orders")
	kid := prod.lease("orders").Kid
	w.pass(time.Second)
	for range 8 { // they hold nothing, and must not take the places of those that do
		w.node(member, []string{"orders"}, billing).publish()
	}
	late := w.node(member, []string{"orders"}, billing)
	late.publish()
	chosen := map[wire.NodeID]bool{}
	for range 10 {
		req, answers := late.ask("billing", kid), 0
		for _, p := range holders {
			p.follow()
			if n := len(p.tasks(req)); n > 0 {
				answers += n
				chosen[p.state.Node().ID()] = true
			}
		}
		if answers != sharersOfEach {
			t.Fatalf("%d answers, want %d", answers, sharersOfEach)
		}
		w.pass(time.Minute)
		for _, p := range holders {
			p.publish()
		}
	}
	if len(chosen) <= sharersOfEach {
		t.Error("each time the same members are chosen: if those cannot answer, nobody does")
	}
}

// TestLaterMembersAnswerWhereTheFirstAreGone: those who had joined in time were replaced by
// nodes of other names a moment ago, and look as if they were up.
func TestLaterMembersAnswerWhereTheFirstAreGone(t *testing.T) {
	w, holder, late, kid := group(t)
	for range sharersOfEach - 1 { // and holder
		w.now = w.now.Add(-time.Second)
		p := w.node(member, []string{"orders"}, billing)
		w.now = w.now.Add(time.Second)
		p.publish()
	}
	holder.share(late.ask("billing", kid))
	late.follow()
	later := w.node(member, []string{"orders"}, billing)
	later.publish()
	later.follow()
	late.share(later.ask("billing", kid))
	if got := later.follow(); !slices.Equal(got, []abi.Kid{kid}) {
		t.Errorf("became readable: %x, want %x", got, kid)
	}
}

func TestOtherGrantAtTheSourceIsNotPassedOn(t *testing.T) {
	w, holder, late, kid := group(t)
	prod := w.node(produce, []string{"orders"}, nil)
	prod.grant("orders")
	task := holder.tasks(late.ask("billing", kid))[0]
	part := holder.state.Node().GrantPartition()
	if _, err := holder.consumer.MakeShare(task, w.grants[part][task.Source+1].Value, w.now); !errors.Is(err, ErrUnauthentic) {
		t.Errorf("another header: %v", err)
	}
	if _, err := holder.consumer.MakeShare(task, []byte("garbage"), w.now); !errors.Is(err, wire.ErrMalformed) {
		t.Errorf("garbage: %v", err)
	}
	// The grants topic was made anew, and the grant written again.
	rec := w.grants[part][task.Source]
	if _, err := holder.consumer.ApplyGrant(part, 99, rec.Key, rec.Value, holder.roster, w.now); err != nil {
		t.Fatal(err)
	}
	w.pass(time.Minute)
	if got := holder.tasks(late.ask("billing", kid))[0].Source; got != 99 {
		t.Errorf("source %d, want the grant's new place", got)
	}
}
