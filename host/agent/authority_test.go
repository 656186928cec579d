package agent

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// write puts a record on the roster.
func (w *world) write(rec keyring.Record) {
	w.t.Helper()
	cl, err := newClient(w.kafka)
	if err != nil {
		w.t.Fatal(err)
	}
	defer cl.Close()
	if err := cl.ProduceSync(w.t.Context(), &kgo.Record{Topic: rosterTopic, Key: rec.Key, Value: rec.Value}).FirstErr(); err != nil {
		w.t.Fatal(err)
	}
}

// authority writes the state that follows prev and revokes nodes.
func (w *world) authority(prev *wire.AuthorityState, fresh time.Duration, revoke ...*running) *wire.AuthorityState {
	w.t.Helper()
	at := time.Now()
	var list []wire.Revocation
	for _, r := range revoke {
		list = append(list, wire.Revocation{Serial: r.node.Credential().Serial, At: uint64(at.UnixMilli())})
	}
	a, err := w.issuer.NextState(prev, list, at, fresh)
	if err != nil {
		w.t.Fatal(err)
	}
	w.write(keyring.Record{Key: a.Key(), Value: a.Append(nil)})
	return a
}

// TestRevokedConsumerIsLeftOutWithinSeconds: not when the epoch ends, which under this
// timing is in minutes.
func TestRevokedConsumerIsLeftOutWithinSeconds(t *testing.T) {
	w := newWorld(t)
	stays := w.start(w.enrol(wire.RoleConsume, orders, billing), slow).ready()
	leaves := w.start(w.enrol(wire.RoleConsume, orders, billing), slow).ready()
	producer := w.start(w.enrol(wire.RoleProduce, orders, nil), slow).ready()
	before := producer.lease("orders")
	stays.opens(before)
	leaves.opens(before)

	began := time.Now()
	w.authority(nil, time.Hour, leaves)
	eventually(t, "the epoch that the revoked node reads, taken from the data plane", func() bool { return producer.hasErased(before.Kid) })
	eventually(t, "an epoch without it", func() bool { return producer.lease("orders").Kid != before.Kid })
	t.Logf("after %v", time.Since(began))
	after := producer.lease("orders")
	stays.opens(after)
	eventually(t, "the revoked node noticing", func() bool { return leaves.checkRevoked() != nil })
	leaves.refuses("orders", after.Kid, abi.StatusNotEntitled)
	leaves.opens(before)
	for name, r := range map[string]*running{"producer": producer, "who stays": stays, "who leaves": leaves} {
		if n := r.Snapshot().Alarms; len(n) != 0 {
			t.Errorf("%s: alarms %v", name, n)
		}
	}
}

func TestRevokedProducerStops(t *testing.T) {
	w := newWorld(t)
	consumer := w.start(w.enrol(wire.RoleConsume, orders, billing), slow).ready()
	producer := w.start(w.enrol(wire.RoleProduce, orders, nil), slow).ready()
	l := producer.lease("orders")
	w.authority(nil, time.Hour, producer)
	eventually(t, "its epoch taken from its data plane", func() bool { return producer.hasErased(l.Kid) })
	if _, err := producer.Lease(t.Context(), "orders"); !errors.Is(err, abi.StatusNotEntitled) {
		t.Errorf("lease: %v", err)
	}
	consumer.opens(l)
}

func TestFreshStateIsRequiredBeforeAGrant(t *testing.T) {
	w := newWorld(t)
	w.start(w.enrol(wire.RoleConsume, orders, billing), slow).ready()
	relaxed := w.start(w.enrol(wire.RoleProduce, orders, nil), slow).ready()
	strict := w.start(w.enrol(wire.RoleProduce, orders, nil), slow, func(c *Config) { c.RequireFresh = true }).ready()
	relaxed.lease("orders")
	if _, err := strict.Lease(t.Context(), "orders"); !errors.Is(err, abi.StatusUnavailable) {
		t.Errorf("without a state: %v", err)
	}
	w.authority(nil, time.Hour)
	strict.lease("orders")
}

// TestOlderAuthorityStateIsAnAlarm, and changes nothing.
func TestOlderAuthorityStateIsAnAlarm(t *testing.T) {
	w := newWorld(t)
	consumer := w.start(w.enrol(wire.RoleConsume, orders, billing), slow).ready()
	first := w.authority(nil, time.Hour)
	second := w.authority(first, time.Hour)
	w.write(keyring.Record{Key: first.Key(), Value: first.Append(nil)})
	eventually(t, "the alarm", func() bool { return consumer.Snapshot().Alarms[AlarmRollback] == 1 })
	consumer.Agent.mu.Lock()
	defer consumer.Agent.mu.Unlock()
	if got := consumer.roster.Authority().Seq; got != second.Seq {
		t.Errorf("state %d holds", got)
	}
}

// TestTwoWhoSignAtOnceBothCount: a rival's state is on the roster before this one's.
func TestTwoWhoSignAtOnceBothCount(t *testing.T) {
	w := newWorld(t)
	log, err := OpenRosterLog(t.Context(), w.kafka, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	roster := w.issuer.Roster(slow)
	one, two := wire.Serial{1}, wire.Serial{2}
	signed := 0
	next := func() (*wire.AuthorityState, error) {
		at := time.Now()
		if signed++; signed == 1 {
			rival, err := w.issuer.NextState(nil, []wire.Revocation{{Serial: one}}, at, time.Hour)
			if err != nil {
				return nil, err
			}
			w.write(keyring.Record{Key: rival.Key(), Value: rival.Append(nil)})
		}
		return w.issuer.NextState(roster.Authority(), []wire.Revocation{{Serial: two}}, at, time.Hour)
	}
	state, err := WriteAuthority(t.Context(), log, roster, next, func(key, value []byte) error { return roster.Apply(key, value, time.Now()) })
	if err != nil {
		t.Fatal(err)
	}
	if signed != 2 || state.Seq != 2 || len(state.Revoked) != 2 {
		t.Errorf("signed %d times: state %d with %d revoked", signed, state.Seq, len(state.Revoked))
	}
}
