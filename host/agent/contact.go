package agent

import (
	"context"
	"errors"
	"time"
)

const (
	// contactPeriod is how often the agent makes sure that it has read the control topics
	// to their ends.
	contactPeriod = 10 * time.Second
	// contactTimeout bounds one such look: a longer backlog is told as lost contact.
	contactTimeout = 30 * time.Second
)

// keepContact notes when the control topics' ends were last asked for, if all that stood
// below them has been applied. A node without contact serves on with the keys it has, and
// gets no new ones: Snapshot.Contact is how anybody can tell.
func (a *Agent) keepContact() {
	began := a.now()
	ctx, cancel := context.WithTimeoutCause(a.ctx, contactTimeout, errors.New("not read to the end within 30s"))
	defer cancel()
	for _, r := range []*reader{a.rosterLog, a.grantsLog} {
		if err := r.catchUp(ctx); err != nil {
			a.warn("no contact with the control topics", a.refusedOr(err), "since", a.contactAt())
			return
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.contact = began
}

// contactAt is when keepContact last succeeded, zero before.
func (a *Agent) contactAt() time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.contact
}
