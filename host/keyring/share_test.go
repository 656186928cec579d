package keyring

import (
	"bytes"
	"errors"
	"slices"
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
