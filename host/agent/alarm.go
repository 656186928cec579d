package agent

import (
	"maps"
	"sync"
)

// An Alarm is a kind of event that an honest cluster does not cause. Each is logged as an
// error with its next step, counted in Snapshot, and served as a metric.
type Alarm string

// A kind's name is the value of a metric's label: it does not change.
const (
	AlarmReplay    Alarm = "replay"         // a sealed batch came at another offset (PROTOCOL.md §2.8.6)
	AlarmRollback  Alarm = "rollback"       // a control topic lost what was read from it before, or serves older records
	AlarmDuplicate Alarm = "duplicate_node" // somebody else signs with this node's identity
	AlarmConflict  Alarm = "conflict"       // two signed records contradict each other
	AlarmOmitted   Alarm = "omitted"        // this node is missing from a grant that it should be in (PROTOCOL.md §2.14)
	AlarmRate      Alarm = "rate"           // a credential exceeds what it may write (PROTOCOL.md §2.15)
)

// Alarms lists every kind, so that each can be counted from 0 on.
func Alarms() []Alarm {
	return []Alarm{AlarmReplay, AlarmRollback, AlarmDuplicate, AlarmConflict, AlarmOmitted, AlarmRate}
}

// alarms counts by kind.
type alarms struct {
	mu sync.Mutex
	by map[Alarm]uint64
}

// alarm counts an event, and logs it unless the same was just said. subject tells events of
// one kind apart; args are slog's.
func (a *Agent) alarm(kind Alarm, message, subject string, args ...any) {
	a.alarms.mu.Lock()
	if a.alarms.by == nil {
		a.alarms.by = make(map[Alarm]uint64)
	}
	a.alarms.by[kind]++
	a.alarms.mu.Unlock()
	if a.ctx.Err() == nil && a.quiet.allow(string(kind)+" "+subject, 1) {
		a.log.Error(message, append([]any{"alarm", string(kind)}, args...)...)
	}
}

func (a *alarms) snapshot() map[Alarm]uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.by)
}
