package keyring

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/iotest"
	"time"
	"unsafe"

	"pgregory.net/rapid"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/module/ratchet"
)

func TestNothingIsLeasedWithoutAnAcknowledgedGrant(t *testing.T) {
	w, prod, _ := pair(t)
	if _, err := prod.producer.Lease("orders", w.now); !errors.Is(err, abi.StatusNeedLease) {
		t.Errorf("before any grant: %v", err)
	}
	prod.sync()
	drafts, _, err := prod.producer.Prepare([]string{"orders"}, prod.roster, w.now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := prod.producer.Lease("orders", w.now); !errors.Is(err, abi.StatusNeedLease) {
		t.Errorf("before its acknowledgement: %v", err)
	}
	if err := prod.producer.Activate(drafts[0], w.now, w.now); err != nil {
		t.Fatal(err)
	}
	prod.lease("orders")
	if _, err := prod.producer.Lease("payments", w.now); !errors.Is(err, abi.StatusNotEntitled) {
		t.Errorf("a topic outside the credential: %v", err)
	}
}

// TestLateAcknowledgementStartsNothing: a recipient that rotated after the roster was read
// keeps the old prekey for its grace, and no longer.
func TestLateAcknowledgementStartsNothing(t *testing.T) {
	for late, want := range map[time.Duration]bool{-time.Millisecond: true, 0: false} {
		w, prod, _ := pair(t)
		prod.sync()
		drafts, _, err := prod.producer.Prepare([]string{"orders"}, prod.roster, w.now)
		if err != nil {
			t.Fatal(err)
		}
		w.pass(w.timing.PrekeyGrace + late)
		if err := prod.producer.Activate(drafts[0], w.now, w.now); (err == nil) != want || err != nil && !errors.Is(err, abi.StatusUnavailable) {
			t.Errorf("acknowledged %v after the grace: %v", late, err)
		}
	}
}

func TestNothingIsLeasedAfterUseBy(t *testing.T) {
	w, prod, _ := pair(t)
	w.pass(2 * time.Hour)
	d := prod.grant("orders")[0]
	l := prod.lease("orders")
	if want := d.Start.Add(w.timing.Epoch + w.timing.Lead); d.UseBy != want || l.UseBy != unixMs(want) {
		t.Errorf("use by %v, lease %d, want %v", d.UseBy, l.UseBy, want)
	}
	w.pass(w.timing.Epoch + w.timing.Lead - time.Millisecond)
	prod.lease("orders")
	w.pass(time.Millisecond)
	if _, err := prod.producer.Lease("orders", w.now); !errors.Is(err, abi.StatusNeedLease) {
		t.Errorf("at use_by: %v", err)
	}
	if kids := prod.producer.Retire(w.now); !slices.Equal(kids, []abi.Kid{l.Kid}) {
		t.Errorf("retired %x", kids)
	}
	prod.grant("orders")
	prod.lease("orders")
	w.pass(-time.Hour)
	if _, err := prod.producer.Lease("orders", w.now); !errors.Is(err, abi.StatusNeedLease) {
		t.Error("a clock set back revives an epoch")
	}
}

func TestLeasesOfAnEpochAreDisjoint(t *testing.T) {
	_, prod, _ := pair(t)
	prod.grant("orders")
	next := uint32(0)
	for range 1 << leaseLevel {
		l := prod.lease("orders")
		if l.Start != next || l.Level != leaseLevel {
			t.Fatalf("lease at %d, level %d; want %d", l.Start, l.Level, next)
		}
		next += 1 << (ratchet.Depth - leaseLevel)
	}
	if _, err := prod.producer.Lease("orders", prod.now); !errors.Is(err, abi.StatusNeedLease) {
		t.Errorf("after the last leaf: %v", err)
	}
	if due := prod.producer.Due(prod.roster, prod.now); !slices.Equal(due, []string{"orders"}) {
		t.Errorf("due: %v", due)
	}
}

func TestEpochsRotateWhileRecordsFlow(t *testing.T) {
	w, prod, cons := pair(t)
	prod.grant("orders")
	first := prod.lease("orders")
	w.pass(w.timing.Epoch - time.Second)
	if due := prod.producer.Due(prod.roster, w.now); len(due) != 0 {
		t.Errorf("due too early: %v", due)
	}
	w.pass(time.Second)
	if due := prod.producer.Due(prod.roster, w.now); !slices.Equal(due, []string{"orders"}) {
		t.Fatalf("due: %v", due)
	}
	prod.grant("orders")
	if kids := prod.producer.Retire(w.now); !slices.Equal(kids, []abi.Kid{first.Kid}) {
		t.Errorf("retired %x, want the first epoch", kids)
	}
	if second := prod.lease("orders"); second.Kid == first.Kid || second.Node == first.Node {
		t.Error("the second epoch is the first again")
	}
	if got := len(cons.follow()); got != 2 {
		t.Errorf("the consumer opened %d epochs", got)
	}
}

func TestTopicsThatBeganApartComeToShareAGrant(t *testing.T) {
	w := newWorld(t)
	topics := []string{"clicks", "orders", "payments", "returns"}
	prod := w.node(produce, append(topics, "secret"), nil)
	w.node(consume, topics, []string{"billing"}).publish()
	w.node(consume, []string{"secret"}, []string{"audit"}).publish()
	drafts := 0
	for _, topic := range append(topics, "secret") {
		prod.grant(topic)
		prod.lease(topic)
		w.pass(w.timing.Epoch / 5)
	}
	for begun := w.now; w.now.Sub(begun) < 10*w.timing.Epoch; w.pass(time.Second) {
		if due := prod.producer.Due(prod.roster, w.now); len(due) > 0 {
			made := prod.grant(due...)
			for _, topic := range due {
				prod.lease(topic)
			}
			if w.now.Sub(begun) >= 2*w.timing.Epoch {
				drafts += len(made)
			}
		}
	}
	// Eight epochs follow the first two, of two sets of recipients.
	if drafts > 2*8 {
		t.Errorf("%d grants in 8 epochs for topics of two sets of recipients, want at most 16", drafts)
	}
}

func TestIdleTopicsPublishNothing(t *testing.T) {
	w, prod, _ := pair(t)
	prod.grant("orders")
	for range 100 {
		w.pass(10 * time.Second)
		if due := prod.producer.Due(prod.roster, w.now); len(due) != 0 {
			t.Fatalf("due: %v", due)
		}
	}
	if n := len(prod.producer.Epochs()); n != 0 {
		t.Errorf("%d unused epochs are still there", n)
	}
}

func TestRemovedRecipientEndsTheEpochAtOnce(t *testing.T) {
	w := newWorld(t)
	prod := w.node(produce, []string{"orders"}, nil)
	stays := w.node(consume, []string{"orders"}, nil)
	leaves := w.nodeUntil(consume, []string{"orders"}, nil, Validity{NotBefore: w.now, NotAfter: w.now.Add(time.Minute)})
	stays.publish()
	leaves.publish()
	prod.grant("orders")
	prod.lease("orders")
	w.pass(time.Minute)
	if due := prod.producer.Due(prod.roster, w.now); len(due) != 0 {
		t.Fatalf("due at its last moment: %v", due)
	}
	w.pass(time.Second)
	if due := prod.producer.Due(prod.roster, w.now); !slices.Equal(due, []string{"orders"}) {
		t.Fatalf("due: %v", due)
	}
	d := prod.grant("orders")[0]
	if len(d.Recipients) != 1 || d.Recipients[0].Node != stays.state.Node().ID() {
		t.Errorf("recipients %v", d.Recipients)
	}
	if kids := leaves.follow(); len(kids) != 1 {
		t.Errorf("the removed one opened %d epochs, want the first only", len(kids))
	}
}

func TestLastRecipientGoneStopsProduction(t *testing.T) {
	w := newWorld(t)
	prod := w.node(produce, []string{"orders"}, nil)
	cons := w.nodeUntil(consume, []string{"orders"}, nil, Validity{NotBefore: w.now, NotAfter: w.now.Add(time.Minute)})
	cons.publish()
	prod.grant("orders")
	kid := prod.lease("orders").Kid
	w.pass(time.Minute + time.Second)
	_, refused, err := prod.producer.Prepare(prod.producer.Due(prod.roster, w.now), prod.roster, w.now)
	if err != nil || !errors.Is(refused["orders"], abi.StatusNoRecipient) {
		t.Fatalf("refused %v, %v", refused, err)
	}
	if _, err := prod.producer.Lease("orders", w.now); !errors.Is(err, abi.StatusNeedLease) {
		t.Errorf("the old epoch is still leased: %v", err)
	}
	if kids := prod.producer.Retire(w.now); !slices.Equal(kids, []abi.Kid{kid}) {
		t.Errorf("retired %x", kids)
	}
}

func TestNewRecipientIsLetInAfterTheDebounce(t *testing.T) {
	w, prod, _ := pair(t)
	prod.grant("orders")
	prod.lease("orders")
	w.pass(5 * time.Second)
	late := w.node(consume, []string{"orders"}, nil)
	late.publish()
	prod.sync()
	at := map[time.Duration]bool{0: false, 15 * time.Second: false, 24 * time.Second: false, 25 * time.Second: true}
	for _, d := range []time.Duration{0, 15 * time.Second, 24 * time.Second, 25 * time.Second} {
		if due := prod.producer.Due(prod.roster, w.now.Add(d)); (len(due) != 0) != at[d] {
			t.Errorf("%v after it came: due %v", d, due)
		}
	}
}

func TestNewRecipientsAreGathered(t *testing.T) {
	w, prod, _ := pair(t)
	prod.grant("orders")
	prod.lease("orders")
	w.pass(newcomerSpacer)
	late := w.node(consume, []string{"orders"}, nil)
	late.publish()
	prod.sync()
	for _, d := range []time.Duration{0, newcomerWait - time.Millisecond} {
		if due := prod.producer.Due(prod.roster, w.now.Add(d)); len(due) != 0 {
			t.Errorf("%v after it came: due %v", d, due)
		}
	}
	if due := prod.producer.Due(prod.roster, w.now.Add(newcomerWait)); len(due) != 1 {
		t.Error("not due after the debounce")
	}
}

func TestUnusedEpochOfARemovedRecipientIsDropped(t *testing.T) {
	w := newWorld(t)
	prod := w.node(produce, []string{"orders"}, nil)
	cons := w.node(consume, []string{"orders"}, nil)
	brief := w.nodeUntil(consume, []string{"orders"}, nil, Validity{NotBefore: w.now, NotAfter: w.now.Add(time.Minute)})
	cons.publish()
	brief.publish()
	prod.grant("orders")
	w.pass(time.Minute + time.Second)
	if due := prod.producer.Due(prod.roster, w.now); len(due) != 0 {
		t.Errorf("an idle topic is due: %v", due)
	}
	if _, err := prod.producer.Lease("orders", w.now); !errors.Is(err, abi.StatusNeedLease) {
		t.Errorf("leased to a removed recipient: %v", err)
	}
}

func TestUnusedEpochDoesNotOutliveItsRoster(t *testing.T) {
	w, prod, _ := pair(t)
	prod.grant("orders")
	late := w.node(consume, []string{"orders"}, nil)
	late.publish()
	prod.sync()
	if due := prod.producer.Due(prod.roster, w.now); len(due) != 0 {
		t.Errorf("an idle topic is due: %v", due)
	}
	if _, err := prod.producer.Lease("orders", w.now); !errors.Is(err, abi.StatusNeedLease) {
		t.Errorf("leased without the newcomer: %v", err)
	}
}

func TestRestartEndsDraftsAndEpochs(t *testing.T) {
	w, prod, _ := pair(t)
	prod.grant("orders")
	kid := prod.lease("orders").Kid
	drafts, _, err := prod.producer.Prepare([]string{"orders"}, prod.roster, w.now)
	if err != nil {
		t.Fatal(err)
	}
	before := prod.producer.Instance()
	kids, err := prod.producer.Restart()
	if err != nil || !slices.Equal(kids, []abi.Kid{kid}) {
		t.Errorf("%x %v", kids, err)
	}
	if err := prod.producer.Activate(drafts[0], w.now, w.now); !errors.Is(err, abi.StatusUnavailable) {
		t.Errorf("a draft of the instance before: %v", err)
	}
	if prod.producer.Instance() == before {
		t.Error("the instance is the same")
	}
	if d := prod.grant("orders")[0]; d.Epoch != 0 {
		t.Errorf("the new instance starts at epoch %d", d.Epoch)
	}
}

func TestForeignClockIsRefused(t *testing.T) {
	w, prod, _ := pair(t)
	prod.sync()
	for _, tt := range []struct {
		off time.Duration
		ok  bool
	}{{0, true}, {59 * time.Second, true}, {-59 * time.Second, true}, {61 * time.Second, false}, {-61 * time.Second, false}} {
		drafts, _, err := prod.producer.Prepare([]string{"orders"}, prod.roster, w.now)
		if err != nil {
			t.Fatal(err)
		}
		err = prod.producer.Activate(drafts[0], w.now.Add(tt.off), w.now)
		if tt.ok != (err == nil) || err != nil && !errors.Is(err, abi.StatusClockSkew) {
			t.Errorf("broker off by %v: %v", tt.off, err)
		}
	}
}

func TestFailedDrawLeavesNothingBehind(t *testing.T) {
	w, prod, cons := pair(t)
	prod.grant("orders")
	kid := prod.lease("orders").Kid
	prod.producer.rand = iotest.ErrReader(io.ErrUnexpectedEOF)
	if _, _, err := prod.producer.Prepare([]string{"orders"}, prod.roster, w.now); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("got %v", err)
	}
	if prod.lease("orders").Kid != kid || len(prod.producer.pending) != 0 {
		t.Error("the running epoch changed")
	}
	prod.producer.rand = rand.Reader
	prod.grant("orders")
	if got := len(cons.follow()); got != 2 {
		t.Errorf("the consumer opened %d", got)
	}
}

// TestSecretsOfADraftAreGoneBeforeTheFirstLease takes es from the random source and the
// topic secret from the consumer, and searches for both, and for the root of what was
// leased, in what the producer holds.
func TestSecretsOfADraftAreGoneBeforeTheFirstLease(t *testing.T) {
	_, prod, cons := pair(t)
	var drawn bytes.Buffer
	prod.producer.rand = io.TeeReader(rand.Reader, &drawn)
	prod.grant("orders")
	l := prod.lease("orders")
	cons.follow()
	x := cons.state.secrets[l.Kid]
	root, err := cons.consumer.Root("orders", l.Kid, cons.now)
	if err != nil {
		t.Fatal(err)
	}
	e := prod.producer.live["orders"]
	memory := unsafe.Slice((*byte)(unsafe.Pointer(e)), unsafe.Sizeof(*e))
	for name, secret := range map[string][]byte{"es": drawn.Bytes(), "topic secret": x.ts[:], "root": root.Root[:], "leased node": l.Node[:]} {
		if len(secret) != 32 {
			t.Fatalf("%s has %d bytes", name, len(secret))
		}
		if bytes.Contains(memory, secret) {
			t.Errorf("the epoch still holds its %s", name)
		}
	}
	prod.producer.Wipe()
	if e.stack.Remaining() != 0 {
		t.Error("Wipe left a tree")
	}
}

// TestNoTwoLeasesShareALeaf runs a producer through random leases, rotations, restarts and
// pauses, and never sees a (kid, leaf) twice.
func TestNoTwoLeasesShareALeaf(t *testing.T) {
	w, prod, cons := pair(t)
	prod.sync()
	type span struct {
		kid   abi.Kid
		start uint32
	}
	seen := map[span]bool{}
	last := map[abi.Kid]uint64{}
	rapid.Check(t, func(rt *rapid.T) {
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			switch rapid.IntRange(0, 5).Draw(rt, "step") {
			case 0:
				w.pass(time.Duration(rapid.IntRange(1, 100).Draw(rt, "seconds")) * time.Second)
				if cons.consumer.PrekeyDue(w.now) && w.now.Before(fromMs(cons.state.Node().Credential().NotAfter)) {
					cons.publish()
				}
				prod.sync()
			case 1:
				if _, err := prod.producer.Restart(); err != nil {
					rt.Fatal(err)
				}
			case 2:
				prod.producer.Retire(w.now)
			default:
				l, err := prod.producer.Lease("orders", w.now)
				if errors.Is(err, abi.StatusNeedLease) {
					drafts, _, err := prod.producer.Prepare([]string{"orders"}, prod.roster, w.now)
					if err != nil {
						rt.Fatal(err)
					}
					for _, d := range drafts {
						if err := prod.producer.Activate(d, w.now, w.now); err != nil {
							rt.Fatal(err)
						}
					}
					continue
				}
				if err != nil {
					return // the credential has run out
				}
				s := span{l.Kid, l.Start}
				if seen[s] || l.UseBy <= unixMs(w.now) || last[l.Kid] != 0 && last[l.Kid] != l.UseBy {
					rt.Fatalf("lease %x at %d again, or past its end", l.Kid, l.Start)
				}
				seen[s], last[l.Kid] = true, l.UseBy
			}
		}
	})
	if len(last) < 10 {
		t.Fatalf("only %d epochs were seen", len(last))
	}
}
