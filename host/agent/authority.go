package agent

import (
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// authorityPeriod is how often the realm's AuthorityState is looked at.
const authorityPeriod = 15 * time.Second

// alarmOf is the kind of alarm that an error of host/keyring is, where an honest cluster
// with honest members does not cause it.
func alarmOf(err error) (Alarm, bool) {
	for _, k := range []struct {
		err  error
		kind Alarm
	}{
		{keyring.ErrOmitted, AlarmOmitted},
		{keyring.ErrRate, AlarmRate},
		{keyring.ErrConflict, AlarmConflict},
		{keyring.ErrKidConflict, AlarmConflict},
		{keyring.ErrDuplicateNode, AlarmDuplicate},
	} {
		if errors.Is(err, k.err) {
			return k.kind, true
		}
	}
	return "", false
}

var alarmHint = map[Alarm]string{
	AlarmOmitted:   "compare the clocks, and what this node and that producer read on " + rosterTopic + ": somebody shows them different logs",
	AlarmRate:      "find out what that node does; wasm-e2ee realm revoke --node ends it",
	AlarmConflict:  "a signing key is used twice, or stolen: compare the nodes and issuers that the records name",
	AlarmDuplicate: "was the state file copied or restored? Stop one of the two, and enrol it anew",
	AlarmRollback:  hintRollback,
}

// compared raises what comparing the grants has shown (PROTOCOL.md §2.14).
func (a *Agent) compared() {
	at := a.now()
	a.mu.Lock()
	findings := a.consumer.Findings(a.roster, at)
	a.mu.Unlock()
	for _, err := range findings {
		kind, ok := alarmOf(err)
		if !ok {
			kind = AlarmRollback
		}
		a.alarm(kind, "grants contradict each other, or the roster", "grants", "err", err, "hint", alarmHint[kind])
	}
}

// authorityChanged is what follows when another AuthorityState holds: revoked recipients end
// the epochs that they read, at once, and this node may be revoked itself.
func (a *Agent) authorityChanged() {
	at := a.now()
	a.mu.Lock()
	state := a.roster.Authority()
	own := a.node.CheckRevoked(at)
	told := a.told.revoked
	a.told.revoked = own != nil
	a.mu.Unlock()
	a.log.Debug("authority state", "seq", state.Seq, "revoked", len(state.Revoked), "next_update", time.UnixMilli(int64(state.NextUpdate)).UTC())
	if own != nil && !told {
		a.log.Error("this node is revoked: it is granted nothing more, and begins no epoch", "err", own)
	}
	a.kickRotation()
}

// checkRevoked says that this node is revoked, if it is: what it lacks is no history.
func (a *Agent) checkRevoked() error {
	at := a.now()
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.node.CheckRevoked(at)
}

// kickRotation has the epochs looked at now.
func (a *Agent) kickRotation() {
	select {
	case a.rotate <- struct{}{}:
	default: // about to be
	}
}

// toldOf is what was said of a lasting condition, so that it is said once. It is guarded by
// the agent's mu.
type toldOf struct {
	revoked bool
	stale   bool
}

// watchAuthority says when the realm's AuthorityState is out of date, and when it is fresh
// again. Where there never was one there is nothing to say (PROTOCOL.md §2.14).
func (a *Agent) watchAuthority() {
	a.compared()
	if !a.isReady() {
		return
	}
	at := a.now()
	a.mu.Lock()
	stale := a.roster.CheckFresh(at)
	used := a.roster.Authority() != nil || a.roster.RolledBack()
	told := a.told.stale
	a.told.stale = used && stale != nil
	a.mu.Unlock()
	switch {
	case used && stale != nil && !told:
		a.log.Warn("authority state", "err", stale, "required", a.cfg.RequireFresh)
	case stale == nil && told:
		a.log.Info("the authority state is fresh again")
	}
}

// refuseState raises what is wrong with an AuthorityState. While the roster is read from its
// start, older ones are what compaction has not removed yet.
func (a *Agent) refuseState(rec *kgo.Record, err error) bool {
	if len(rec.Key) == 0 || wire.Type(rec.Key[0]) != wire.TypeAuthorityState || !errors.Is(err, keyring.ErrRollback) {
		return false
	}
	if a.isReady() {
		a.alarm(AlarmRollback, "the roster serves an older authority state", "authority", "offset", rec.Offset, "err", err, "hint", hintRollback)
	}
	return true
}
