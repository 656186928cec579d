package agent

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// recreate deletes a control topic and makes it again, as an administrator would.
func (w *world) recreate(topic string) {
	w.t.Helper()
	cl := client(w.t, w.c)
	if _, err := kadm.NewClient(cl).DeleteTopics(w.t.Context(), topic); err != nil {
		w.t.Fatal(err)
	}
	for _, c := range controlTopics(time.Hour) {
		if c.name == topic {
			if err := w.c.CreateTopic(topic, c.partitions, c.configs); err != nil {
				w.t.Fatal(err)
			}
		}
	}
}

// watchful is slow with logs that are watched often.
var watchful = func() keyring.Timing {
	t := slow
	t.Window = 1200 * time.Millisecond
	return t
}()

func (r *running) rollbacks() uint64 { return r.Snapshot().Alarms[AlarmRollback] }

func TestGrantsTopicMadeAnewIsNoticedAndFilledAgain(t *testing.T) {
	for name, opts := range map[string][]kfake.Opt{
		"with topic ids": nil,
		"without":        {kfake.MaxVersions(kversion.V2_7_0())}, // as a log that was cut
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, opts...)
			w.topic("payments", nil)
			both := []string{"orders", "payments"}
			away := w.enrol(wire.RoleConsume, orders, billing)
			w.start(away, watchful).ready().stop()
			consumer := w.start(w.enrol(wire.RoleConsume, both, billing), watchful).ready()
			producer := w.start(w.enrol(wire.RoleProduce, both, nil), watchful).ready()
			l := producer.lease("orders")
			consumer.opens(l)
			w.recreate(grantsTopic)
			eventually(t, "alarms", func() bool { return producer.rollbacks() == 1 && consumer.rollbacks() == 1 })
			eventually(t, "the grant in every partition", func() bool {
				parts := 0
				for _, p := range w.c.PartitionInfos(grantsTopic) {
					if p.HighWatermark == 1 {
						parts++
					}
				}
				return parts == grantPartitions
			})
			w.start(away, watchful).opens(l) // it has read nothing of the log that is gone
			consumer.opens(l)
			consumer.opens(producer.lease("payments")) // and the topic is of use again
			if p, c := producer.rollbacks(), consumer.rollbacks(); p != 1 || c != 1 {
				t.Errorf("%d and %d alarms, want one each", p, c)
			}
		})
	}
}

func TestRosterMadeAnewWhileRunningIsNoticedAndHealed(t *testing.T) {
	w := newWorld(t)
	consumer := w.start(w.enrol(wire.RoleConsume, orders, billing), watchful).ready()
	producer := w.start(w.enrol(wire.RoleProduce, orders, nil), watchful).ready()
	consumer.opens(producer.lease("orders"))
	w.recreate(rosterTopic)
	eventually(t, "alarms", func() bool { return producer.rollbacks() == 1 && consumer.rollbacks() == 1 })
	// Somebody who knows nothing of before finds everybody on it.
	late := w.start(w.enrol(wire.RoleProduce, orders, nil), watchful).ready()
	eventually(t, "the consumer on the new roster", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		l, err := late.Lease(ctx, "orders")
		if err == nil {
			consumer.opens(l)
		}
		return err == nil
	})
	if late.rollbacks() != 0 {
		t.Error("an alarm about a log that was never read")
	}
}

func TestRosterThatLostRecordsIsNoticedAtStart(t *testing.T) {
	w := newWorld(t)
	one := w.enrol(wire.RoleConsume, orders, billing)
	two := w.enrol(wire.RoleProduce, orders, nil)
	w.start(one, watchful).ready().stop()
	for range 2 { // a first start, and one that finds what it knows
		r := w.start(two, watchful).ready()
		if n := r.rollbacks(); n != 0 {
			t.Errorf("%d alarms on an honest roster", n)
		}
		r.stop()
	}
	w.recreate(rosterTopic)
	for name, state := range map[string]string{"producer": two, "consumer": one} {
		r := w.start(state, watchful).ready()
		if n := r.rollbacks(); n != 1 {
			t.Errorf("%s: %d alarms, want 1", name, n)
		}
		r.stop()
		w.recreate(rosterTopic)
	}
}
