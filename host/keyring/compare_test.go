package keyring

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

// found reads the grants partition to its end and fails unless comparing them has shown
// exactly want, in order.
func (p *party) found(want ...error) {
	p.t.Helper()
	p.follow()
	got := p.consumer.Findings(p.roster, p.now)
	if !slices.EqualFunc(got, want, errors.Is) {
		p.t.Errorf("found %v, want %v", got, want)
	}
}

// rewrite signs a header of prod anew after change, for cons, without a wrap for it.
func rewrite(t *testing.T, prod, cons *party, d *Draft, change func(h *wire.GrantHeader)) Record {
	t.Helper()
	part := cons.state.Node().GrantPartition()
	g, err := wire.ParseGrant(d.Records[part].Value)
	if err != nil {
		t.Fatal(err)
	}
	change(&g.Header)
	g.Wraps = nil
	g.Signature = sign(&prod.state.node.seed, wire.TypeEpochGrant, g.Header.Realm, g.AppendBody(nil))
	return Record{Partition: part, Key: g.Header.Key(), Value: g.Append(nil)}
}

// TestHonestNodesCauseNoFinding: rotation, newcomers, restarts, a grant that is written
// again, revocation and renewed states, with the clocks apart.
func TestHonestNodesCauseNoFinding(t *testing.T) {
	w := newWorld(t)
	var state *wire.AuthorityState
	one := w.node(produce, []string{"*"}, nil)
	two := w.node(produce, []string{"orders"}, nil)
	cons := w.node(consume, []string{"orders"}, []string{"billing"})
	cons.publish()
	prods := []*party{one, two}
	late := []*party{}
	for i := range 200 {
		w.pass(time.Minute)
		if i%20 == 10 {
			state = w.revoke(state)
		}
		if i%3 == 0 {
			cons.publish()
		}
		for j, p := range prods {
			p.grant("orders")
			if i%7 == 3 { // its newest grant once more, and the one before
				for part := range w.grants {
					w.grants[part] = append(w.grants[part], w.grants[part][max(0, len(w.grants[part])-2):]...)
				}
			}
			if i%50 == 25 {
				prods[j] = p.restart()
			}
		}
		switch i {
		case 40:
			n := w.node(consume, []string{"orders"}, []string{"audit"})
			n.publish()
			late = append(late, n)
		case 80:
			cons = cons.restart()
			cons.publish()
		case 120:
			state = w.revoke(state, late[0])
			late = nil
		case 150: // three hours offline
			cons.found()
			for range 60 {
				w.pass(3 * time.Minute)
				if w.now.Minute() < 3 {
					state = w.revoke(state)
				}
				prods[0].grant("orders")
			}
		}
		for _, n := range append(late, cons) {
			n.found()
		}
	}
}

func TestOmittedNodeNotices(t *testing.T) {
	for _, tt := range []struct {
		name string
		wait time.Duration // from the bundle to the grant
		want []error
	}{
		{"well after its bundle", 3 * time.Minute, []error{ErrOmitted}},
		{"around its first bundle", time.Minute, nil},
		{"after its bundle has ended", 72 * time.Hour, nil},
	} {
		w, prod, cons := pair(t)
		other := w.node(consume, []string{"orders"}, nil)
		other.publish()
		w.pass(tt.wait)
		other.publish()
		hidden := w.roster
		w.roster = slices.DeleteFunc(slices.Clone(w.roster), func(r Record) bool { // what the broker shows the producer
			b, err := wire.ParsePrekeyBundle(r.Value)
			return err == nil && b.Node == cons.state.Node().ID()
		})
		prod.grant("orders")
		w.roster = hidden
		t.Log(tt.name)
		cons.found(tt.want...)
		cons.found() // once
	}
}

func TestNodeWithoutTheTopicIsNotOmitted(t *testing.T) {
	w, prod, _ := pair(t)
	bystander := w.node(consume, []string{"payments"}, nil)
	embargo := w.nodeUntil(consume, []string{"orders"}, nil, Validity{NotBefore: w.now, NotAfter: w.now.Add(99 * time.Hour), DataNotBefore: w.now.Add(time.Hour)})
	leaves := w.node(consume, []string{"orders"}, nil)
	unaware := w.node(consume, []string{"orders"}, nil)
	all := []*party{bystander, embargo, leaves, unaware}
	for _, p := range all {
		p.publish()
	}
	w.pass(time.Hour - time.Second)
	w.revoke(nil, leaves, unaware)
	unaware.read = len(w.roster) // the producer knows first
	w.pass(2 * time.Second)
	prod.grant("orders")
	bystander.found()
	leaves.found()
	unaware.found()
	w.grants = [GrantPartitions][]Record{}
	prod.sync()
	drafts, _, err := prod.producer.Prepare([]string{"orders"}, prod.roster, w.now)
	if err != nil {
		t.Fatal(err)
	}
	rec := rewrite(t, prod, embargo, drafts[0], func(h *wire.GrantHeader) {})
	embargo.world.grants[rec.Partition] = []Record{rec}
	embargo.found() // a second after its data begins, the clocks decide
}

// TestHeadersThatDoNotFollowAreNoticed, whatever a dishonest producer or broker does.
func TestHeadersThatDoNotFollowAreNoticed(t *testing.T) {
	for name, tt := range map[string]struct {
		show []int // of four grants, which the broker shows
		last func(h *wire.GrantHeader)
		want []error
	}{
		"all":                           {show: []int{0, 1, 2, 3}},
		"from the middle, by retention": {show: []int{2, 3}},
		"again":                         {show: []int{0, 1, 1, 0, 2, 1, 3, 2}},
		"one is missing":                {show: []int{0, 2, 3}, want: []error{ErrRollback}},
		"another predecessor":           {show: []int{0, 1, 2}, last: func(h *wire.GrantHeader) { h.Prev[0] ^= 1 }, want: []error{ErrConflict}},
		"two of one epoch":              {show: []int{0, 1, 2, 3}, last: func(h *wire.GrantHeader) { h.UseBy++ }, want: []error{ErrConflict}},
		"the first has a predecessor":   {last: func(h *wire.GrantHeader) { h.Epoch = 0 }, want: []error{ErrConflict}},
		"an older authority state":      {show: []int{0, 1, 2}, last: func(h *wire.GrantHeader) { h.AuthoritySeq = 0 }, want: []error{ErrRollback}},
	} {
		t.Run(name, func(t *testing.T) {
			w, prod, cons := pair(t)
			w.revoke(nil)
			var drafts []*Draft
			for range 4 {
				drafts = append(drafts, prod.grant("orders")...)
				w.pass(time.Second)
			}
			part := cons.state.Node().GrantPartition()
			w.grants[part] = nil
			for _, i := range tt.show {
				w.grants[part] = append(w.grants[part], drafts[i].Records[part])
			}
			if tt.last != nil {
				w.grants[part] = append(w.grants[part], rewrite(t, prod, cons, drafts[3], tt.last))
			}
			cons.found(tt.want...)
		})
	}
}

// TestHeaderRefusedForItsClockLeavesNoGap: an honest producer whose clock was wrong goes on
// with its next epoch.
func TestHeaderRefusedForItsClockLeavesNoGap(t *testing.T) {
	w, prod, cons := pair(t)
	prod.grant("orders")
	cons.found()
	w.pass(time.Minute)
	prod.grant("orders")
	w.pass(-5 * time.Minute) // it is the consumer that sees it too early
	part := cons.state.Node().GrantPartition()
	rec := w.grants[part][1]
	if _, err := cons.consumer.ApplyGrant(part, 1, rec.Key, rec.Value, cons.roster, w.now); err == nil {
		t.Fatal("a grant from the future is taken")
	}
	cons.consumer.NoteGrants(2)
	w.pass(6 * time.Minute)
	prod.grant("orders")
	cons.found()
}

func TestProducerWithAnOldRosterIsNoticed(t *testing.T) {
	w, prod, cons := pair(t)
	first := w.revoke(nil)
	prod.grant("orders")
	cons.found()
	for i, tt := range []struct {
		after time.Duration // from the end of the second state
		want  []error
	}{
		{-time.Hour, nil}, {-time.Minute, nil}, {w.timing.Skew - time.Second, nil}, {w.timing.Skew, []error{ErrRollback}},
	} {
		t.Log(i)
		if i == 0 {
			w.revoke(first)
			w.revoke(first) // not looked at: the same
		}
		w.now = fromMs(first.NextUpdate).Add(tt.after)
		cons.publish()
		part := cons.state.Node().GrantPartition()
		drafts, _, err := prod.producer.Prepare([]string{"orders"}, prod.roster, w.now) // it reads no further
		if err != nil {
			t.Fatal(err)
		}
		w.grants[part] = append(w.grants[part], drafts[0].Records[part])
		cons.found(tt.want...)
	}
}

func TestOwnOldRosterIsNoticed(t *testing.T) {
	w, prod, cons := pair(t)
	first := w.revoke(nil)
	cons.follow()
	second := w.authority(first)
	read := w.roster
	w.roster = append(slices.Clone(w.roster), recordOf(second)) // what the broker shows others
	prod.grant("orders")
	start := w.now
	w.roster = read
	cons.found()
	w.now = start.Add(StateValidity + w.timing.Skew - time.Millisecond)
	cons.found()
	w.pass(time.Millisecond)
	cons.found(ErrRollback)
	cons.found()
	w.roster = append(w.roster, recordOf(second))
	prod.read++
	prod.grant("orders")
	w.pass(2 * StateValidity)
	cons.found()
}

func TestFloodOfGrantsIsRefused(t *testing.T) {
	w, prod, cons := pair(t)
	d := prod.grant("orders")[0]
	part := cons.state.Node().GrantPartition()
	cons.sync()
	apply := func(rec Record) error {
		_, err := cons.consumer.ApplyGrant(part, 0, rec.Key, rec.Value, cons.roster, w.now)
		return err
	}
	flood := func(n int, change func(i int, h *wire.GrantHeader)) (refused int) {
		for i := range n {
			rec := rewrite(t, prod, cons, d, func(h *wire.GrantHeader) {
				change(i, h)
				h.Topics[0].Commit = wire.Digest{1, byte(i >> 8), byte(i), h.Instance[0], byte(h.Epoch >> 8)}
			})
			err := apply(rec)
			if err != nil && !errors.Is(err, ErrRate) {
				t.Fatal(err)
			}
			if err != nil {
				refused++
			}
			if again := apply(rec); (again == nil) != (err == nil) {
				t.Fatalf("header %d: first %v, then %v", i, err, again)
			}
		}
		return refused
	}
	if got := flood(headerBurst+50, func(i int, h *wire.GrantHeader) { h.Epoch = uint32(i) }); got != 50 {
		t.Errorf("%d of one instance refused, want 50", got)
	}
	w.pass(time.Minute)
	if got := flood(100, func(i int, h *wire.GrantHeader) {
		h.Epoch, h.Start = 9999+uint32(i), unixMs(w.now)
		h.UseBy = h.Start + 1
	}); got != 40 {
		t.Errorf("a minute later %d of 100 refused, want 40", got)
	}
	live := maxInstances - 1 // and the one above
	if got := flood(maxInstances+9, func(i int, h *wire.GrantHeader) { h.Instance = wire.InstanceID{7, byte(i), byte(i >> 8)} }); got != maxInstances+9-live {
		t.Errorf("%d instances refused, want %d", got, maxInstances+9-live)
	}
	w.pass(time.Hour)
	if got := flood(9, func(i int, h *wire.GrantHeader) {
		h.Instance = wire.InstanceID{8, byte(i)}
		h.Start, h.UseBy = unixMs(w.now), unixMs(w.now)+1
	}); got != 0 {
		t.Errorf("after the others' end %d instances refused", got)
	}
}

// TestManySetsOfRecipientsStayUnderTheRate: an honest producer's grants are never those that
// consumers refuse.
func TestManySetsOfRecipientsStayUnderTheRate(t *testing.T) {
	w := newWorld(t)
	prod := w.node(produce, []string{"*"}, nil)
	var topics []string
	for i := range 8 {
		n := w.node(consume, []string{fmt.Sprintf("t%d", i)}, nil)
		n.publish()
		topics = append(topics, fmt.Sprintf("t%d", i))
	}
	watcher := w.node(consume, []string{"t0"}, nil)
	watcher.publish()
	held := 0
	for range 150 { // four each second
		prod.sync()
		drafts, refused, err := prod.producer.Prepare(topics, prod.roster, w.now)
		if err != nil || len(drafts)+len(refused) != len(topics) {
			t.Fatalf("%d drafts, %v, %v", len(drafts), refused, err)
		}
		held += len(refused)
		for _, d := range drafts {
			part := watcher.state.Node().GrantPartition()
			w.grants[part] = append(w.grants[part], d.Records[part])
		}
		w.pass(2 * time.Second)
		watcher.found()
	}
	if want := 150*8 - headerBurst - 298; held != want {
		t.Errorf("%d grants held back", held)
	}
}

func TestOneProducerCannotFillAConsumer(t *testing.T) {
	w, prod, cons := pair(t)
	other := w.node(produce, []string{"orders"}, nil)
	greedy, honest := &secret{producer: prod.state.Node().ID()}, &secret{producer: other.state.Node().ID()}
	kid := func(i int) (k [8]byte) {
		for j := range 8 {
			k[j] = byte(i >> (8 * j))
		}
		return k
	}
	for i := range ampleSecrets - 1 {
		cons.state.secrets[kid(i)] = greedy
	}
	put := func(x *secret, n int) (kept int) {
		for range n {
			if cons.consumer.room(x.producer, w.now) == nil {
				cons.state.secrets[kid(len(cons.state.secrets))] = x
				kept++
			}
		}
		return kept
	}
	if got := put(greedy, 9); got != 1 {
		t.Errorf("who has half holds %d more, want 1", got)
	}
	if got := put(honest, fairSecrets+9); got != fairSecrets {
		t.Errorf("another holds %d, want its part, %d", got, fairSecrets)
	}
	w.pass(time.Second)
	if err := cons.consumer.room(greedy.producer, w.now); !errors.Is(err, ErrRate) {
		t.Errorf("counted anew: %v", err)
	}
	clear(cons.state.secrets)
}
