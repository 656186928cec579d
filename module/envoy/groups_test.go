package envoy

import (
	"errors"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/channel"
	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

func coordinatorOf(group string) *kmsg.FindCoordinatorRequest {
	req := kmsg.NewPtrFindCoordinatorRequest()
	req.Version, req.CoordinatorKeys = 4, []string{group}
	return req
}

// refusedWith has the broker say something, and returns what the client is told of its group.
func (w *world) refusedWith(id int32) int16 {
	w.Helper()
	gathered(w.stream.ToBroker)
	w.respond(id, kmsg.NewPtrApiVersionsResponse())
	return received(w, id, 4, kmsg.NewPtrFindCoordinatorResponse()).Coordinators[0].ErrorCode
}

func TestGroupThatTheCredentialDoesNotListIsRefused(t *testing.T) {
	var events []Event
	w := newWorld(t, recorded(&events))
	w.keys.groups.listed = []wire.Pattern{{Name: "billing"}, {Prefix: true, Name: "audit."}}
	for group, want := range map[string]bool{"billing": true, "audit.eu": true, "billing2": false, "": false} {
		events = nil
		id := w.request(coordinatorOf(group))
		frames := w.forwarded()
		if h, err := kafka.ParseRequestHeader(frames[0]); err != nil || (h.Key == kafka.KeyFindCoordinator) != want {
			t.Errorf("%q: forwarded %+v, %v", group, h, err)
		}
		if want {
			resp := kmsg.NewPtrFindCoordinatorResponse()
			resp.Version = 4
			w.respond(id, resp)
			gathered(w.stream.ToClient)
			continue
		}
		if code := w.refusedWith(id); code != kafka.CodeGroupAuthorizationFailed {
			t.Errorf("%q: code %d", group, code)
		}
		if want := []Event{{Kind: EventGroup, Group: group, API: "FindCoordinator"}}; !slices.Equal(events, want) {
			t.Errorf("%q: %+v", group, events)
		}
	}
	if n := w.worker.Stats().Groups; n != 2 {
		t.Errorf("%d are counted", n)
	}
	txn := coordinatorOf("my-transaction")
	txn.CoordinatorType = 1
	w.request(txn)
	if h, _ := kafka.ParseRequestHeader(w.forwarded()[0]); h.Key != kafka.KeyFindCoordinator {
		t.Error("a transaction is taken for a group")
	}
}

// TestGroupWithoutASimpleRefusalClosesItsConnection leaves nothing that passes.
func TestGroupWithoutASimpleRefusalClosesItsConnection(t *testing.T) {
	w := newWorld(t, Config{})
	w.keys.groups.listed = nil
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Version, req.Group = 8, "billing"
	frame := kmsg.NewRequestFormatter().AppendRequest(nil, req, 1)
	if err := w.stream.FromClient(frame, w.now); !errors.Is(err, abi.StatusNotEntitled) {
		t.Errorf("%v", err)
	}
	if b := gathered(w.stream.ToBroker); len(b) != 0 {
		t.Errorf("%d bytes were forwarded", len(b))
	}
}

func TestRequestForAGroupWaitsForTheListAndNotForEver(t *testing.T) {
	var events []Event
	w := newWorld(t, recorded(&events))
	w.keys.groups = groups{}
	id := w.request(coordinatorOf("billing"))
	if !w.stream.Waiting() || len(gathered(w.stream.ToBroker)) != 0 {
		t.Fatal("it does not wait")
	}
	w.now += DefaultProduceWait - 1
	w.exchange(func(q channel.Request) channel.Answer { return channel.Answer{Status: abi.StatusUnavailable} })
	if w.stream.Resume(w.now); !w.stream.Waiting() {
		t.Fatal("it waits too short")
	}
	w.now++
	w.stream.Resume(w.now)
	if code := w.refusedWith(id); code != kafka.CodeCoordinatorNotAvailable || w.stream.Waiting() {
		t.Errorf("code %d", code)
	}
	if w.worker.Stats().Groups != 0 || len(events) != 1 || events[0].Kind != EventGroupUnknown {
		t.Errorf("%+v", events)
	}

	w.request(coordinatorOf("billing"))
	w.now += aheadAgain
	w.exchange(generous(true))
	if err := w.stream.Resume(w.now); err != nil || w.stream.Waiting() {
		t.Fatalf("it waits on: %v", err)
	}
	if h, _ := kafka.ParseRequestHeader(w.forwarded()[0]); h.Key != kafka.KeyFindCoordinator {
		t.Error("it was not forwarded")
	}
}

func TestListOfGroupsIsAskedForAtStartAndRenewed(t *testing.T) {
	w := newWorld(t, Config{})
	w.keys.groups = groups{}
	asked := 0
	for range 600 {
		for _, q := range w.exchange(generous(true)) {
			if q.Op == channel.OpGroups {
				asked++
			}
		}
		w.now += 100
	}
	if asked != 3 {
		t.Errorf("asked %d times in a minute", asked)
	}
	if !w.keys.groups.due(w.now - 3_600_000) {
		t.Error("a clock that went back stops it")
	}
}
