package keyring

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

const member = wire.RoleConsume | wire.RoleShare

// ask makes p's request for kids.
func (p *party) ask(group string, kids ...abi.Kid) Record {
	p.t.Helper()
	rec, err := p.consumer.EpochRequest(group, kids, p.now)
	if err != nil {
		p.t.Fatal(err)
	}
	return rec
}

// tasks is what p decides to share for a request.
func (p *party) tasks(req Record) []ShareTask {
	p.t.Helper()
	p.sync()
	tasks, err := p.consumer.Share(req.Key, req.Value, p.roster, p.now)
	if err != nil {
		p.t.Fatal(err)
	}
	return tasks
}

// share answers a request and returns the records that it wrote.
func (p *party) share(req Record) (out []Record) {
	p.t.Helper()
	part := p.state.Node().GrantPartition()
	for _, task := range p.tasks(req) {
		rec, err := p.consumer.MakeShare(task, p.world.grants[part][task.Source].Value, p.now)
		if err != nil {
			p.t.Fatal(err)
		}
		p.world.grants[rec.Partition] = append(p.world.grants[rec.Partition], rec)
		out = append(out, rec)
	}
	return out
}

// group is a producer, a member of "billing" that holds the only epoch of "orders", and one
// that came after it.
func group(t *testing.T) (w *world, holder, late *party, kid abi.Kid) {
	t.Helper()
	w = newWorld(t)
	prod := w.node(produce, []string{"orders"}, nil)
	holder = w.node(member, []string{"orders"}, billing)
	holder.publish()
	prod.grant("orders")
	kid = prod.lease("orders").Kid
	holder.follow()
	w.pass(time.Second)
	late = w.node(member, []string{"orders"}, billing)
	late.publish()
	late.follow()
	return w, holder, late, kid
}

func (p *party) mustNotHold(kid abi.Kid) {
	p.t.Helper()
	if _, err := p.consumer.Root("orders", kid, p.now); err == nil {
		p.t.Error("the key is held")
	}
}

func TestLateMemberGetsTheKeyFromAPeer(t *testing.T) {
	_, holder, late, kid := group(t)
	late.mustNotHold(kid)
	if !late.consumer.Askable("orders", kid) || !late.consumer.HasPeer("orders", billing, late.roster, late.now) {
		t.Fatal("nobody is asked")
	}
	if got := late.consumer.Requestable(nil, func(abi.Kid) bool { return false }); !slices.Equal(got, []abi.Kid{kid}) {
		t.Fatalf("would ask for %x", got)
	}
	holder.share(late.ask("billing", kid))
	if got := late.follow(); !slices.Equal(got, []abi.Kid{kid}) {
		t.Fatalf("became readable: %x", got)
	}
	want, err := holder.consumer.Root("orders", kid, holder.now)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if got, err := late.consumer.Root("orders", kid, late.now); err != nil || got != want {
			t.Errorf("root: %v, want the holder's", err)
		}
		late = late.restart()
	}
	if late.consumer.Askable("orders", kid) {
		t.Error("what is held would be asked for")
	}
}

// TestSharedKeyIsErasedLikeAGranted: where the secret came from changes nothing about its end.
func TestSharedKeyIsErasedLikeAGranted(t *testing.T) {
	_, holder, late, kid := group(t)
	holder.share(late.ask("billing", kid))
	late.follow()
	late.pass(-time.Second) // the epoch began a second before
	late.settle(map[int32]int64{0: 10, 1: 0})
	late.pass(time.Second)
	late.progress(map[string]map[int32]int64{"billing": {0: 10, 1: 0}})
	late.mustErase(kid, late.timing.Window)

	part := late.state.Node().GrantPartition()
	i := len(late.world.grants[part]) - 1
	rec := late.world.grants[part][i]
	if kids, err := late.consumer.ApplyShare(part, int64(i), rec.Key, rec.Value, late.roster, late.now); len(kids) != 0 || err != nil {
		t.Errorf("a share that is replayed brings %x (%v) back", kids, err)
	}
	if late.consumer.Askable("orders", kid) {
		t.Error("what was erased would be asked for")
	}
	late.mustNotHold(kid)
}

// TestPrekeyIsReplacedSoonAfterAShare: the share stands in the log, and the secret in it may
// be erased as soon as W after the share.
func TestPrekeyIsReplacedSoonAfterAShare(t *testing.T) {
	_, holder, late, kid := group(t)
	holder.share(late.ask("billing", kid))
	late.follow()
	if late.consumer.PrekeyDue(late.now) {
		t.Error("replaced before other answers can come")
	}
	late.pass(shareSettle)
	if !late.consumer.PrekeyDue(late.now) {
		t.Fatal("not replaced")
	}
	late.publish()
	if late.consumer.PrekeyDue(late.now) {
		t.Error("replaced again and again")
	}
}

// TestLeakedStateOpensSharesToItsPrekeysOnly: as long as it has those.
func TestLeakedStateOpensSharesToItsPrekeysOnly(t *testing.T) {
	_, holder, late, kid := group(t)
	share, err := wire.ParseKeyShare(holder.share(late.ask("billing", kid))[0].Value)
	if err != nil {
		t.Fatal(err)
	}
	opened := func(p *party) []UnsafeRoot {
		t.Helper()
		roots, err := UnsafeShares(p.state.Marshal(), []*wire.KeyShare{share})
		if err != nil {
			t.Fatal(err)
		}
		return roots
	}
	late.follow()
	want, err := late.consumer.Root("orders", kid, late.now)
	if err != nil {
		t.Fatal(err)
	}
	if got := opened(late); len(got) != 1 || got[0].Kid != kid || got[0].Root != want.Root {
		t.Errorf("the recipient's state opens %d shares", len(got))
	}
	if got := opened(holder); len(got) != 0 {
		t.Errorf("the sharer's prekeys open %d shares", len(got))
	}
	late.pass(shareSettle)
	late.publish()
	late.pass(late.timing.PrekeyGrace)
	late.consumer.NoteGrantsEnd(late.consumer.GrantsNext(), late.now)
	late.consumer.Tick(late.now)
	if got := opened(late); len(got) != 0 {
		t.Errorf("%d shares open after the prekey's grace", len(got))
	}
}

// TestMemberThatLostItsDiskReadsOnThroughAShare: it is another node then, of the same group.
// The peer itself had the key from a peer.
func TestMemberThatLostItsDiskReadsOnThroughAShare(t *testing.T) {
	w, holder, late, kid := group(t)
	holder.share(late.ask("billing", kid))
	late.follow()
	again := w.node(member, []string{"orders"}, billing)
	again.publish()
	again.follow()
	if got := len(late.share(again.ask("billing", kid))); got != 1 {
		t.Fatalf("%d shares", got)
	}
	if got := again.follow(); !slices.Equal(got, []abi.Kid{kid}) {
		t.Fatalf("became readable: %x", got)
	}
}

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

// TestDishonestSharerCannotSubstitute: the producer's commitment decides, whatever a member
// signs.
func TestDishonestSharerCannotSubstitute(t *testing.T) {
	_, holder, late, kid := group(t)
	x := holder.state.secrets[kid]
	honest := x.ts
	x.ts[0] ^= 1
	rec := holder.share(late.ask("billing", kid))[0]
	late.sync()
	kids, err := late.consumer.ApplyShare(rec.Partition, 1, rec.Key, rec.Value, late.roster, late.now)
	if len(kids) != 0 || !errors.Is(err, ErrConflict) || !errors.Is(err, ErrUnauthentic) {
		t.Errorf("another secret under the producer's header: %x, %v", kids, err)
	}
	late.mustNotHold(kid)
	if bytes.Contains(late.state.Marshal(), x.ts[:]) {
		t.Error("what was refused is in the state")
	}
	x.ts = honest
	late.pass(time.Minute)
	holder.share(late.ask("billing", kid))
	rec = late.world.grants[rec.Partition][len(late.world.grants[rec.Partition])-1]
	if _, err := late.consumer.ApplyShare(rec.Partition, 2, rec.Key, rec.Value, late.roster, late.now); err != nil {
		t.Errorf("the honest one after it: %v", err)
	}
}

func TestShareIsRefused(t *testing.T) {
	resign := func(p *party, k *wire.KeyShare) Record {
		k.Signature = sign(&p.state.node.seed, wire.TypeKeyShare, k.Realm, k.AppendBody(nil))
		return Record{Partition: GrantPartition(k.Recipient), Key: wire.KeyShareKey(KidOf(k.Commit()), k.Recipient), Value: k.Append(nil)}
	}
	for _, c := range []struct {
		name   string
		change func(w *world, holder, late *party, rec Record, k *wire.KeyShare) Record
		want   error // nil: passed over
	}{
		{"in another partition", func(_ *world, _, _ *party, rec Record, k *wire.KeyShare) Record {
			rec.Partition = (rec.Partition + 1) % GrantPartitions
			return rec
		}, wire.ErrMalformed},
		{"under another key", func(_ *world, _, _ *party, rec Record, k *wire.KeyShare) Record {
			rec.Key[3] ^= 1
			return rec
		}, wire.ErrMalformed},
		{"for another node", func(w *world, holder, late *party, rec Record, k *wire.KeyShare) Record {
			k.Recipient[0] ^= 1
			return resign(holder, k)
		}, nil},
		{"without a signature", func(_ *world, _, _ *party, rec Record, k *wire.KeyShare) Record {
			rec.Value[len(rec.Value)-1] ^= 1
			return rec
		}, ErrUnauthentic},
		{"by a stranger", func(_ *world, holder, _ *party, rec Record, k *wire.KeyShare) Record {
			k.Credential[0] ^= 1
			return resign(holder, k)
		}, ErrUnknownCredential},
		{"by somebody in a member's name", func(w *world, holder, late *party, rec Record, k *wire.KeyShare) Record {
			k.Credential = late.state.Node().Credential().Serial
			return resign(late, k)
		}, ErrUnauthentic},
		{"by a node without role share", func(w *world, holder, late *party, rec Record, k *wire.KeyShare) Record {
			p := w.node(consume, []string{"orders"}, billing)
			k.Sharer, k.Credential = p.state.Node().ID(), p.state.Node().Credential().Serial
			return resign(p, k)
		}, abi.StatusNotEntitled},
		{"by a node of another topic", func(w *world, holder, late *party, rec Record, k *wire.KeyShare) Record {
			p := w.node(member, []string{"payments"}, billing)
			k.Sharer, k.Credential = p.state.Node().ID(), p.state.Node().Credential().Serial
			return resign(p, k)
		}, abi.StatusNotEntitled},
		{"passed on by another sharer", func(w *world, holder, late *party, rec Record, k *wire.KeyShare) Record {
			p := w.node(member, []string{"orders"}, billing)
			k.Sharer, k.Credential = p.state.Node().ID(), p.state.Node().Credential().Serial
			return resign(p, k)
		}, ErrUnauthentic},
		{"of a header that the producer did not sign", func(_ *world, holder, _ *party, rec Record, k *wire.KeyShare) Record {
			k.Proof.Header.UseBy++
			return resign(holder, k)
		}, ErrUnauthentic},
		{"of a header that is no producer's", func(_ *world, holder, late *party, rec Record, k *wire.KeyShare) Record {
			return holder.invented(k, late.consumer.newest())
		}, abi.StatusNotEntitled},
		{"to a prekey that is gone", func(_ *world, holder, late *party, rec Record, k *wire.KeyShare) Record {
			late.state.prekeys[0].id[0] ^= 1
			return rec
		}, abi.StatusErased},
		{"with another encapsulation", func(_ *world, holder, _ *party, rec Record, k *wire.KeyShare) Record {
			k.HPKE[0] ^= 1
			return resign(holder, k)
		}, ErrUnauthentic},
		{"cut", func(_ *world, _, _ *party, rec Record, k *wire.KeyShare) Record {
			rec.Value = rec.Value[:len(rec.Value)-1]
			return rec
		}, wire.ErrMalformed},
		{"past the hard cap", func(w *world, _, late *party, rec Record, k *wire.KeyShare) Record {
			late.consumer.NoteRetention("orders", time.Hour)
			w.pass(2 * time.Hour)
			return rec
		}, nil},
		{"by a revoked node", func(w *world, holder, _ *party, rec Record, k *wire.KeyShare) Record {
			w.revoke(nil, holder)
			return rec
		}, abi.StatusNotEntitled},
		{"after the sharer's credential ended", func(w *world, _, late *party, rec Record, k *wire.KeyShare) Record {
			late.timing.HardCap = 30 * 24 * time.Hour
			late.consumer.timing.HardCap = 30 * 24 * time.Hour
			w.pass(9*24*time.Hour + time.Second)
			return rec
		}, abi.StatusNotEntitled},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, holder, late, kid := group(t)
			rec := holder.share(late.ask("billing", kid))[0]
			k, err := wire.ParseKeyShare(rec.Value)
			if err != nil {
				t.Fatal(err)
			}
			rec = c.change(w, holder, late, rec, k)
			late.sync()
			kids, err := late.consumer.ApplyShare(rec.Partition, 1, rec.Key, rec.Value, late.roster, late.now)
			if len(kids) != 0 || !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
				t.Errorf("%x, %v; want nothing and %v", kids, err, c.want)
			}
			late.mustNotHold(kid)
			if len(late.state.secrets) != 0 {
				t.Errorf("%d secrets are held", len(late.state.secrets))
			}
		})
	}
}

// invented is a share of an epoch that the sharer made up: header, commitment and secret go
// together, and the sharer signed all of it.
func (p *party) invented(k *wire.KeyShare, to *prekey) Record {
	p.t.Helper()
	n := p.state.Node()
	h := &k.Proof.Header
	h.Producer, h.Credential = n.ID(), n.Credential().Serial
	es := secretKey{1}
	var ts secretKey
	var err error
	if err = deriveTopicSecret(&ts, &es, topicContext(h, "orders")); err == nil {
		h.Topics[0].Commit, err = deriveCommit(&ts, topicContext(h, "orders"))
	}
	if err != nil {
		p.t.Fatal(err)
	}
	k.Proof.Signature = sign(&n.seed, wire.TypeEpochGrant, k.Realm, k.Proof.AppendBody(nil))
	pub, err := kemPublic(&to.seed)
	if err != nil {
		p.t.Fatal(err)
	}
	kem, err := usableKEM(pub)
	if err != nil {
		p.t.Fatal(err)
	}
	wrap := wire.Wrap{Node: k.Recipient}
	if err := wrapSecret(&wrap, kem, shareInfo(h.Digest(), k.Recipient, pub, n.ID()), &ts); err != nil {
		p.t.Fatal(err)
	}
	k.HPKE = wrap.HPKE
	k.Signature = sign(&n.seed, wire.TypeKeyShare, k.Realm, k.AppendBody(nil))
	return Record{Partition: GrantPartition(k.Recipient), Key: wire.KeyShareKey(KidOf(k.Commit()), k.Recipient), Value: k.Append(nil)}
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

func TestWhatCannotBeOpenedIsToldApart(t *testing.T) {
	_, _, late, kid := group(t)
	classify := func(kid abi.Kid, topic string, committed bool) error {
		return late.consumer.Unreadable(topic, kid, committed)
	}
	expect := func(what string, err error, want abi.Status) {
		t.Helper()
		if !errors.Is(err, want) || !strings.Contains(err.Error(), "\nhint: ") {
			t.Errorf("%s: %v, want %q with a hint", what, err, want)
		}
	}
	expect("before the node joined", classify(kid, "orders", false), abi.StatusHistory)
	expect("where the group has read", classify(kid, "orders", true), abi.StatusUnreadable)
	expect("as another topic's", classify(kid, "payments", false), abi.StatusUnreadable)
	expect("named by nobody", classify(abi.Kid{9}, "orders", false), abi.StatusUnreadable)

	_, cons, own := held(t, "billing")
	expect("held for another topic", cons.consumer.Unreadable("payments", own, false), abi.StatusUnreadable)
	expect("held, and due to go", cons.consumer.Unreadable("orders", own, false), abi.StatusErased)

	late.consumer.state.erased[abi.Kid{8}] = 1 << 60
	expect("erased", classify(abi.Kid{8}, "orders", false), abi.StatusErased)

	m := late.consumer.missing[kid]
	m.wraps, m.why = true, abi.StatusErased
	late.consumer.missing[kid] = m
	expect("wrapped for a prekey that is gone", classify(kid, "orders", false), abi.StatusErased)
	m.wraps, m.why, m.start = false, abi.StatusUnreadable, late.state.firstBundle+ms(joining)
	late.consumer.missing[kid] = m
	expect("after the node joined", classify(kid, "orders", false), abi.StatusUnreadable)
	late.state.node.chain[0].DataNotBefore = m.start + 1
	expect("before data_not_before", classify(kid, "orders", false), abi.StatusHistory)
}

// TestSecondHeaderMakesNothingHistory: a dishonest producer lists another's commitment under
// a header of its own that looks older.
func TestSecondHeaderMakesNothingHistory(t *testing.T) {
	w := newWorld(t)
	cons := w.node(member, []string{"orders"}, billing)
	cons.state.firstBundle = 1
	kid := abi.Kid{1}
	young, old := unixMs(w.now), uint64(1)
	for _, starts := range [][]uint64{{young, old}, {old, young}} {
		clear(cons.consumer.missing)
		for _, start := range starts {
			cons.consumer.miss(kid, missing{topic: "orders", start: start, why: abi.StatusUnreadable, final: start == old})
		}
		if err := cons.consumer.Unreadable("orders", kid, false); !errors.Is(err, abi.StatusUnreadable) {
			t.Errorf("starts %v: %v", starts, err)
		}
		if !cons.consumer.Askable("orders", kid) {
			t.Errorf("starts %v: not asked for", starts)
		}
	}
}

func TestRequestListsWhatTheReaderComesToNext(t *testing.T) {
	w := newWorld(t)
	cons := w.node(member, []string{"orders", "payments"}, billing)
	kid := func(i int) abi.Kid { return abi.Kid{byte(i >> 8), byte(i)} }
	for i := range 600 {
		topic := "orders"
		if i%2 == 1 {
			topic = "payments"
		}
		cons.consumer.miss(kid(i), missing{topic: topic, start: uint64(i), why: abi.StatusUnreadable, final: i == 104})
	}
	none := func(abi.Kid) bool { return false }
	got := cons.consumer.Requestable([]abi.Kid{kid(100)}, func(k abi.Kid) bool { return k == kid(102) })
	if want := []abi.Kid{kid(100), kid(106), kid(108)}; !slices.Equal(got[:3], want) || len(got) != 248 {
		t.Errorf("%d kids, first %x, want 248 and %x", len(got), got[:3], want)
	}
	got = cons.consumer.Requestable(nil, none)
	if len(got) != wire.MaxRequested || got[0] != kid(599) || got[255] != kid(344) {
		t.Errorf("%d kids from %x to %x, want the newest", len(got), got[0], got[len(got)-1])
	}
	if _, err := cons.consumer.EpochRequest("billing", got, w.now); err != nil {
		t.Error(err)
	}
	for name, err := range map[string]error{
		"no kids":       func() error { _, err := cons.consumer.EpochRequest("billing", nil, w.now); return err }(),
		"another group": func() error { _, err := cons.consumer.EpochRequest("audit", got, w.now); return err }(),
		"after the credential's end": func() error {
			_, err := cons.consumer.EpochRequest("billing", got, w.now.Add(10*24*time.Hour))
			return err
		}(),
	} {
		if err == nil {
			t.Errorf("a request with %s is made", name)
		}
	}
}

// TestHistoryIsToldAfterARestart: the headers are read once more, and nothing comes back by it.
func TestHistoryIsToldAfterARestart(t *testing.T) {
	_, holder, late, kid := group(t)
	late, holder = late.restart(), holder.restart()
	if err := late.consumer.Unreadable("orders", kid, false); !errors.Is(err, abi.StatusUnreadable) {
		t.Errorf("before the headers are read again: %v", err)
	}
	for _, p := range []*party{late, holder} {
		p.sync()
		part := p.state.Node().GrantPartition()
		held := len(p.state.secrets)
		for i, rec := range p.world.grants[part] {
			if err := p.consumer.Recall(part, int64(i), rec.Key, rec.Value, p.roster, p.now); err != nil {
				t.Fatal(err)
			}
		}
		if len(p.state.secrets) != held {
			t.Errorf("%d secrets are held, and %d were before", len(p.state.secrets), held)
		}
	}
	if err := late.consumer.Unreadable("orders", kid, false); !errors.Is(err, abi.StatusHistory) {
		t.Errorf("after it: %v", err)
	}
}
