package keyring

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"reflect"
	"testing"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

// fullState holds at least one of everything.
func fullState(t testing.TB) *State {
	t.Helper()
	w := newFixedWorld(t)
	prod := w.node(produce, []string{"*"}, nil)
	cons := w.node(consume, []string{"*"}, []string{"billing"})
	cons.publish()
	prod.grant("a", "b")
	cons.follow()
	w.pass(w.timing.Epoch + w.timing.Lead + w.timing.Skew + w.timing.Settle)
	cons.consumer.NoteEnds("a", map[int32]int64{0: 5, 1: 0}, w.now)
	cons.consumer.NoteProgress("a", Progress{LogStart: map[int32]int64{0: 5}, Groups: map[string]map[int32]int64{"billing": {}}, Known: billing}, w.now)
	w.pass(w.timing.Window)
	cons.consumer.Tick(w.now)
	cons.publish()
	prod.grant("c")
	cons.follow()
	s := cons.state
	s.authority = authorityMark{7, wire.Digest{8}}
	s.renewal = &renewal{seed: secretKey{9}}
	s.renewal.request.Subject = publicOf(&s.renewal.seed)
	return s
}

func TestStateReadsBackWhole(t *testing.T) {
	s := fullState(t)
	if len(s.secrets) != 2 || len(s.erased) != 1 || len(s.prekeys) != 2 || len(s.marks) != 1 || s.grantsNext < 1 {
		t.Fatalf("the state is not full: %+v", s.View())
	}
	b := s.Marshal()
	got, err := ParseState(b)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got.View(), s.View()) || !bytes.Equal(got.Marshal(), b) {
		t.Errorf("got %+v, want %+v", got.View(), s.View())
	}
	for kid, x := range s.secrets {
		y := got.secrets[kid]
		if y == nil || y.ts != x.ts || y.context() != x.context() || !reflect.DeepEqual(y.ends, x.ends) {
			t.Errorf("kid %x differs", kid)
		}
	}
	if got.authority != s.authority || got.firstBundle != s.firstBundle || *got.renewal != *s.renewal {
		t.Errorf("got %+v, %d and %+v", got.authority, got.firstBundle, got.renewal.request)
	}
	if got.node.seed != s.node.seed || got.prekeys[0].seed != s.prekeys[0].seed || got.prekeys[1].id != s.prekeys[1].id {
		t.Error("a seed differs")
	}
}

func TestStateBeforeEnrolmentReadsBack(t *testing.T) {
	s, err := NewState(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseState(s.Marshal())
	if err != nil {
		t.Fatal(err)
	}
	if got.Node().ID() != s.Node().ID() || got.Node().Credential() != nil || got.View().GrantsNext != -1 {
		t.Errorf("got %+v", got.View())
	}
}

func TestDamagedStateIsRefused(t *testing.T) {
	b := fullState(t).Marshal()
	for i := range b {
		b[i] ^= 1
		if _, err := ParseState(b); err == nil {
			t.Fatalf("byte %d changed and accepted", i)
		}
		b[i] ^= 1
	}
	for n := range b {
		if _, err := ParseState(b[:n]); err == nil {
			t.Fatalf("cut to %d bytes and accepted", n)
		}
	}
	if _, err := ParseState(append(b, 0)); err == nil {
		t.Error("a byte after it was accepted")
	}
}

// TestStateIsWrittenWithoutMoving: a slice that grows leaves copies of seeds behind.
func TestStateIsWrittenWithoutMoving(t *testing.T) {
	b := fullState(t).Marshal()
	if len(b) != cap(b) {
		t.Errorf("%d bytes in a slice of %d", len(b), cap(b))
	}
}

func TestNoSendStateIsInTheState(t *testing.T) {
	w := newWorld(t)
	node := w.node(produce|consume, []string{"*"}, nil)
	node.publish()
	node.grant("a")
	before := node.state.Marshal()
	node.lease("a")
	if !bytes.Equal(before, node.state.Marshal()) {
		t.Error("a lease shows in the state")
	}
	instance := node.producer.Instance()
	if bytes.Contains(before, instance[:]) {
		t.Error("the instance id is in the state before a grant was read")
	}
}

func TestWipedStateHoldsNoSecret(t *testing.T) {
	s := fullState(t)
	s.Wipe()
	if s.node.seed != (secretKey{}) || s.renewal.seed != (secretKey{}) || s.prekeys[0].seed != (secretKey{}) {
		t.Error("a seed is left")
	}
	for kid, x := range s.secrets {
		if x.ts != (secretKey{}) {
			t.Errorf("the secret of %x is left", kid)
		}
	}
}

func TestViewShowsNoSecret(t *testing.T) {
	s := fullState(t)
	text := fmt.Sprintf("%+v", s.View())
	for _, secret := range []secretKey{s.node.seed, s.renewal.seed, s.prekeys[0].seed, s.prekeys[1].seed} {
		if bytes.Contains([]byte(text), fmt.Appendf(nil, "%x", secret[:])) || bytes.Contains([]byte(text), fmt.Appendf(nil, "%v", secret[:])) {
			t.Fatal("a seed is shown")
		}
	}
}

func TestLeakedStateOpensWhatItHoldsAndNothingElse(t *testing.T) {
	w := newWorld(t)
	prod := w.node(produce, []string{"*"}, nil)
	cons := w.node(consume, []string{"a"}, nil)
	other := w.node(consume, []string{"b"}, nil)
	cons.publish()
	other.publish()
	prod.grant("a", "b")
	var log []*wire.Grant
	for _, part := range w.grants {
		for _, rec := range part {
			g, err := wire.ParseGrant(rec.Value)
			if err != nil {
				t.Fatal(err)
			}
			log = append(log, g)
		}
	}
	kid := prod.lease("a").Kid
	for _, via := range []Via{ViaPrekey, ViaTopicSecret} {
		leaked := cons.state.Marshal()
		roots, err := UnsafeRoots(leaked, log)
		if err != nil || len(roots) == 0 || roots[0].Via != via {
			t.Fatalf("%v: %v %v", via, roots, err)
		}
		for _, r := range roots {
			if r.Kid != kid || r.Topic != "a" {
				t.Errorf("%v: opened kid %x of topic %s", via, r.Kid, r.Topic)
			}
		}
		cons.follow()
		root, err := cons.consumer.Root("a", kid, w.now)
		if err != nil || root.Root != roots[0].Root {
			t.Errorf("%v: another root than the consumer's; %v", via, err)
		}
	}
}

func FuzzState(f *testing.F) {
	f.Add(fullState(f).Marshal())
	s, err := NewState(rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(s.Marshal())
	f.Fuzz(func(t *testing.T, b []byte) {
		// The fuzzer cannot guess a digest, so it is given one.
		if len(b) >= sha256.Size {
			sum := sha256.Sum256(b[:len(b)-sha256.Size])
			b = append(bytes.Clone(b[:len(b)-sha256.Size]), sum[:]...)
		}
		s, err := ParseState(b)
		if err == nil && !bytes.Equal(s.Marshal(), b) {
			t.Fatalf("%x encodes as %x", b, s.Marshal())
		}
		if err != nil && !errors.Is(err, wire.ErrMalformed) && !errors.Is(err, ErrUnauthentic) {
			t.Fatalf("unexpected error: %v", err)
		}
	})
}
