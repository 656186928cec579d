package broker

import (
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wasm-e2ee/wasm-e2ee/host/agent"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// logActions are done to a control topic as a whole, while agents and an issuer read it.
func logActions() []*action {
	return []*action{
		{name: "begin the grants topic anew", alarm: agent.AlarmRollback, script: func(tr *traffic, _ place) bool {
			return tr.w.recreate(keyring.GrantsTopic, keyring.GrantPartitions, map[string]string{"cleanup.policy": "delete", "message.timestamp.type": "LogAppendTime"})
		}},
		{name: "begin the roster anew", alarm: agent.AlarmRollback, script: func(tr *traffic, _ place) bool {
			return tr.w.recreate(keyring.RosterTopic, 1, map[string]string{"cleanup.policy": "compact"})
		}},
		{name: "say that the grants topic is shorter", alarm: agent.AlarmRollback,
			script: func(tr *traffic, _ place) bool { return tr.w.shorten(keyring.GrantsTopic) }},
		{name: "say that the roster is shorter", alarm: agent.AlarmRollback,
			script: func(tr *traffic, _ place) bool { return tr.w.shorten(keyring.RosterTopic) }},
	}
}

// recreate deletes a control topic and makes it again.
func (w *world) recreate(topic string, partitions int32, configs map[string]string) bool {
	raised := w.alarms(agent.AlarmRollback)
	configs["max.message.bytes"] = strconv.Itoa(1<<20 + 12)
	must(w.t, w.kafka.DeleteTopic(topic))
	must(w.t, w.kafka.CreateTopic(topic, partitions, configs))
	w.admin.PurgeTopicsFromProducing(topic)
	ok := eventually(10*time.Second, func() bool { return w.alarms(agent.AlarmRollback) > raised })
	if topic == keyring.RosterTopic { // what no agent writes again
		w.publish()
		w.heal()
	}
	return ok
}

// shorten says, until somebody notices, that a control topic ends after its first record.
func (w *world) shorten(topic string) bool {
	raised := w.alarms(agent.AlarmRollback)
	var done atomic.Bool
	w.kafka.ControlKey(int16(kmsg.ListOffsets), func(r kmsg.Request) (kmsg.Response, error, bool) {
		q := r.(*kmsg.ListOffsetsRequest)
		if done.Load() {
			return nil, nil, false
		}
		w.kafka.KeepControl()
		if len(q.Topics) != 1 || q.Topics[0].Topic != topic || len(q.Topics[0].Partitions) != 1 || q.Topics[0].Partitions[0].Timestamp != -1 {
			return nil, nil, false
		}
		resp := q.ResponseKind().(*kmsg.ListOffsetsResponse)
		p := kmsg.NewListOffsetsResponseTopicPartition()
		p.Partition, p.Offset, p.Timestamp, p.LeaderEpoch = q.Topics[0].Partitions[0].Partition, 1, -1, -1
		t := kmsg.NewListOffsetsResponseTopic()
		t.Topic, t.Partitions = topic, slices.Concat(t.Partitions, []kmsg.ListOffsetsResponseTopicPartition{p})
		resp.Topics = append(resp.Topics, t)
		return resp, nil, true
	})
	ok := eventually(10*time.Second, func() bool { return w.alarms(agent.AlarmRollback) > raised })
	done.Store(true)
	return ok
}
