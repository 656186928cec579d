package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

// member is a consumer that helps its peers.
const member = wire.RoleConsume | wire.RoleShare

// refusesAt is refuses for a batch in a partition.
func (r *running) refusesAt(topic string, partition int32, kid abi.Kid, want abi.Status) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	if _, err := r.Root(ctx, topic, partition, kid); !errors.Is(err, want) {
		r.t.Fatalf("root of kid %x in partition %d: %v, want %q", kid, partition, err, want)
	}
}

// written counts the records of a type in a partition of a control topic.
func (w *world) written(topic string, partition int32, kind wire.Type) (n int) {
	w.t.Helper()
	cl, err := kgo.NewClient(append(w.kafka, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: kgo.NewOffset().AtStart()}}))...)
	if err != nil {
		w.t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	end, err := listOffset(ctx, cl, topic, partition, listEnd)
	if err != nil {
		w.t.Fatal(err)
	}
	for next := int64(0); next < end && ctx.Err() == nil; {
		cl.PollFetches(ctx).EachRecord(func(rec *kgo.Record) {
			if next = rec.Offset + 1; len(rec.Key) > 0 && wire.Type(rec.Key[0]) == kind {
				n++
			}
		})
	}
	return n
}

// TestMemberThatLostItsDiskReadsOnThroughAPeer: it enrols anew, and its group's backlog is
// readable all the same. The peer it reads from may itself have the keys from a peer, and have
// restarted since.
func TestMemberThatLostItsDiskReadsOnThroughAPeer(t *testing.T) {
	w := newWorld(t)
	peer := w.start(w.enrol(member, orders, billing), slow).ready()
	lost := w.enrol(member, orders, billing)
	gone := w.start(lost, slow).ready()
	producer := w.start(w.enrol(wire.RoleProduce, orders, nil), slow).ready()
	l := producer.lease("orders")
	peer.opens(l)
	gone.opens(l)
	gone.stop()
	if err := os.Remove(lost); err != nil {
		t.Fatal(err)
	}

	state := w.enrol(member, orders, billing)
	again := w.start(state, slow).ready()
	peer.stop() // whoever is ready has what it lacked: the next one may restart
	again.opens(l)
	again.stop()
	w.start(state, slow).ready()
	w.start(w.enrol(member, orders, billing), slow).ready().opens(l)
}

// TestEverythingThatIsMissingIsAskedForAtOnce: what a late member lacks is one request, made
// when it starts, not one for each batch that is fetched.
func TestEverythingThatIsMissingIsAskedForAtOnce(t *testing.T) {
	w := newWorld(t)
	var topics []string
	for i := range 20 {
		topics = append(topics, fmt.Sprintf("t%02d", i))
		w.topic(topics[i], nil)
	}
	peer := w.start(w.enrol(member, topics, billing), slow).ready()
	producer := w.start(w.enrol(wire.RoleProduce, topics, nil), slow).ready()
	var leases []abi.Lease
	for _, topic := range topics {
		l := producer.lease(topic)
		peer.opens(l)
		leases = append(leases, l)
	}
	late := w.start(w.enrol(member, topics, billing), slow).ready()
	for _, l := range leases {
		late.opens(l)
	}
	if n := w.written(rosterTopic, 0, wire.TypeEpochRequest); n != 1 {
		t.Errorf("%d requests for %d kids, want one", n, len(leases))
	}
	if n := w.written(grantsTopic, late.node.GrantPartition(), wire.TypeKeyShare); n != len(leases) {
		t.Errorf("%d shares, want one for each of %d kids", n, len(leases))
	}
}

// TestWithoutAPeerWhatCameBeforeIsHistory: but not where the group has read before, and not
// for ever after: what is sealed from now on must open.
func TestWithoutAPeerWhatCameBeforeIsHistory(t *testing.T) {
	w := newWorld(t)
	first := w.start(w.enrol(wire.RoleConsume, orders, billing), slow).ready()
	producer := w.start(w.enrol(wire.RoleProduce, orders, nil), slow).ready()
	l := producer.lease("orders")
	first.opens(l)
	first.stop()
	w.commit("billing", map[int32]int64{1: 0})

	state := w.enrol(wire.RoleConsume, orders, billing)
	late := w.start(state, slow).ready()
	began := time.Now()
	late.refusesAt("orders", 0, l.Kid, abi.StatusHistory)
	late.refusesAt("orders", 1, l.Kid, abi.StatusUnreadable)
	if took := time.Since(began); took > lateness/2 {
		t.Errorf("took %v although there is nobody to wait for", took)
	}
	// The client commits as it passes over it, and the answer was for all of it.
	w.commit("billing", map[int32]int64{0: 1})
	late.classified.mu.Lock()
	clear(late.classified.committed)
	late.classified.mu.Unlock()
	late.refusesAt("orders", 0, l.Kid, abi.StatusHistory)
	late.stop()

	again := w.start(state, slow).ready()
	again.refusesAt("orders", 1, l.Kid, abi.StatusUnreadable)
	again.refusesAt("orders", 0, l.Kid, abi.StatusUnreadable) // committed meanwhile
	again.refuses("orders", abi.Kid{7}, abi.StatusUnreadable)
}

// TestHistoryIsHistoryAfterARestart: the headers that say so were read by the process before.
func TestHistoryIsHistoryAfterARestart(t *testing.T) {
	w := newWorld(t)
	first := w.start(w.enrol(wire.RoleConsume, orders, billing), slow).ready()
	producer := w.start(w.enrol(wire.RoleProduce, orders, nil), slow).ready()
	l := producer.lease("orders")
	first.opens(l)
	state := w.enrol(wire.RoleConsume, orders, billing)
	late := w.start(state, slow).ready()
	late.refuses("orders", l.Kid, abi.StatusHistory)
	late.stop()
	late = w.start(state, slow).ready()
	late.refuses("orders", l.Kid, abi.StatusHistory)
	first.opens(l)
}

// TestWhatMayBeHistoryWaitsForTheGroupsOffsets: passing over a batch cannot be taken back.
func TestWhatMayBeHistoryWaitsForTheGroupsOffsets(t *testing.T) {
	w := newWorld(t)
	first := w.start(w.enrol(wire.RoleConsume, orders, billing), slow).ready()
	producer := w.start(w.enrol(wire.RoleProduce, orders, nil), slow).ready()
	l := producer.lease("orders")
	first.stop()
	var answered atomic.Bool
	w.c.ControlKey(int16(kmsg.OffsetFetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
		w.c.KeepControl()
		if answered.Load() {
			return nil, nil, false
		}
		resp := req.ResponseKind().(*kmsg.OffsetFetchResponse)
		resp.ErrorCode = 30 // GROUP_AUTHORIZATION_FAILED
		for _, g := range req.(*kmsg.OffsetFetchRequest).Groups {
			resp.Groups = append(resp.Groups, kmsg.OffsetFetchResponseGroup{Group: g.Group, ErrorCode: 30})
		}
		return resp, nil, true
	})
	late := w.start(w.enrol(wire.RoleConsume, orders, billing), slow).ready()
	late.refuses("orders", l.Kid, abi.StatusUnavailable)
	answered.Store(true)
	late.refuses("orders", l.Kid, abi.StatusHistory)
}

// TestPeerThatDoesNotAnswerIsWaitedForInTime: a member that is enrolled but down.
func TestPeerThatDoesNotAnswerIsWaitedForInTime(t *testing.T) {
	w := newWorld(t)
	peer := w.start(w.enrol(member, orders, billing), slow).ready()
	producer := w.start(w.enrol(wire.RoleProduce, orders, nil), slow).ready()
	l := producer.lease("orders")
	peer.stop()
	late := w.start(w.enrol(member, orders, billing), slow).ready()
	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := late.Root(short, "orders", 0, l.Kid); !errors.Is(err, abi.StatusPending) {
		t.Errorf("at first: %v, want pending", err)
	}
	began := time.Now()
	late.refuses("orders", l.Kid, abi.StatusHistory)
	if took := time.Since(began); took > lateness+2*time.Second {
		t.Errorf("took %v", took)
	}
	began = time.Now()
	late.refuses("orders", l.Kid, abi.StatusHistory)
	if took := time.Since(began); took > lateness/2 {
		t.Errorf("the same took %v again", took)
	}
}

func TestInquiryAsksForAKidOnceAMinute(t *testing.T) {
	var q inquiry
	left, changed, err := q.left("orders", abi.Kid{1}, true)
	if left <= 0 || err != nil {
		t.Fatalf("before the question: %v, %v", left, err)
	}
	q.left("orders", abi.Kid{1}, true)
	q.left("payments", abi.Kid{2}, true)
	kids := q.take()
	if len(kids) != 2 || kids[abi.Kid{2}] != "payments" {
		t.Fatalf("would ask for %v", kids)
	}
	q.sent([]abi.Kid{{1}}, false, nil)
	q.sent([]abi.Kid{{2}}, true, nil)
	select {
	case <-changed:
	default:
		t.Error("who waits is not told")
	}
	if left, _, _ := q.left("orders", abi.Kid{1}, true); left <= 0 || left > lateness {
		t.Errorf("after the question: %v", left)
	}
	if left, _, _ := q.left("payments", abi.Kid{2}, true); left > 0 {
		t.Errorf("without a peer: %v", left)
	}
	if left, _, _ := q.left("payments", abi.Kid{2}, false); left <= 0 {
		t.Error("a kid that no header names is not waited for")
	}
	if kids := q.take(); len(kids) != 0 || !q.lately(abi.Kid{1}) {
		t.Errorf("asked for again at once: %v", kids)
	}
	q.kids[abi.Kid{1}].at = time.Now().Add(-askAgain)
	if q.left("orders", abi.Kid{1}, true); len(q.take()) != 1 {
		t.Error("not asked for again after a minute")
	}
	q.sent([]abi.Kid{{1}}, false, errors.New("down"))
	if _, _, err := q.left("orders", abi.Kid{1}, true); err == nil {
		t.Error("a question that could not be sent is not told")
	}
	q.kids[abi.Kid{1}].at = time.Now().Add(-askRetry)
	if _, _, err := q.left("orders", abi.Kid{1}, true); err != nil || len(q.take()) != 1 {
		t.Errorf("not asked for again after a failure: %v", err)
	}
	for i := range maxAsked + 10 {
		q.left("orders", abi.Kid{0, byte(i >> 16), byte(i >> 8), byte(i)}, true)
	}
	if len(q.kids) > maxAsked {
		t.Errorf("%d kids are remembered", len(q.kids))
	}
}
