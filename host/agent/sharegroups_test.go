package agent

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

// share fetches orders for a share group until there is a record of partition 0, and answers
// it with status.
func (w *world) share(group string, status kgo.AckStatus) {
	w.t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.ShareGroup(group), kgo.ConsumeTopics("orders"), kgo.FetchMaxWait(100 * time.Millisecond)}, w.kafka...)...)
	if err != nil {
		w.t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	for done := false; !done; {
		for _, r := range cl.PollFetches(ctx).Records() {
			r.Ack(status)
			done = done || r.Partition == 0
		}
		if ctx.Err() != nil {
			w.t.Fatal("the share group gets no record")
		}
	}
	if err := cl.FlushAcks(ctx); err != nil {
		w.t.Fatal(err)
	}
}

func TestShareGroupHoldsKeysUntilItHasAcknowledged(t *testing.T) {
	w := newWorld(t)
	w.c.SetGroupConfigs("billing", map[string]string{"share.auto.offset.reset": "earliest"})
	consumer := w.start(w.enrol(wire.RoleConsume, orders, billing), brief).ready()
	l := w.held(consumer, brief)
	w.send(0, sealed(l.Kid))
	w.share("billing", kgo.AckRelease) // seen, and to be delivered again
	eventually(t, "end offsets noted", func() bool {
		held := consumer.Snapshot().Held
		return len(held) == 1 && held[0].EndsNoted
	})
	for end := time.Now().Add(2*brief.Window + time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		consumer.opens(l)
	}
	w.share("billing", kgo.AckAccept)
	eventually(t, "erased once it was acknowledged", func() bool { return consumer.hasErased(l.Kid) })
}

func TestClusterWithoutShareGroupsErasesAsBefore(t *testing.T) {
	w := newWorld(t, kfake.MaxVersions(kversion.V3_9_0()))
	consumer := w.start(w.enrol(wire.RoleConsume, orders, billing), brief).ready()
	l := w.held(consumer, brief)
	w.commit("billing", map[int32]int64{0: w.send(0, sealed(l.Kid))})
	eventually(t, "erased", func() bool { return consumer.hasErased(l.Kid) })
}

// An answer that is missing says nothing about what a group has read.
func TestShareGroupThatCannotBeAskedHoldsKeys(t *testing.T) {
	w := newWorld(t)
	consumer := w.start(w.enrol(wire.RoleConsume, orders, billing), brief).ready()
	w.c.ControlKey(int16(kmsg.ShareGroupDescribe), func(req kmsg.Request) (kmsg.Response, error, bool) {
		w.c.KeepControl()
		resp := req.ResponseKind().(*kmsg.ShareGroupDescribeResponse)
		for _, group := range req.(*kmsg.ShareGroupDescribeRequest).GroupIDs {
			g := kmsg.NewShareGroupDescribeResponseGroup()
			g.GroupID, g.ErrorCode = group, kerr.InvalidRequest.Code
			resp.Groups = append(resp.Groups, g)
		}
		return resp, nil, true
	})
	if _, err := consumer.shareOffsets(t.Context(), billing); !errors.Is(err, kerr.InvalidRequest) {
		t.Errorf("error %v, want the broker's", err)
	}
}
