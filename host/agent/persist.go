package agent

import "time"

// saveAlways writes the state as it is now, whether or not it changed.
func (a *Agent) saveAlways() error {
	a.saves.Lock()
	defer a.saves.Unlock()
	return a.saveLocked()
}

// saveChanged writes the state if it changed since it was last written, and returns once
// it is on disk.
func (a *Agent) saveChanged() error {
	a.saves.Lock()
	defer a.saves.Unlock()
	a.mu.Lock()
	changed := a.state.Version() != a.saved
	a.mu.Unlock()
	if !changed {
		return nil
	}
	return a.saveLocked()
}

func (a *Agent) saveLocked() error {
	a.mu.Lock()
	b, version := a.state.Marshal(), a.state.Version()
	a.mu.Unlock()
	defer clear(b)
	if err := a.store.Save(b); err != nil {
		return err
	}
	a.saved = version
	return nil
}

// saving groups the writes for grants: one each period, with the reader's offset and what
// was read in the same file (PROTOCOL.md §2.8.2). A file is written as a whole, so that a large
// one waits longer: a node that comes back after a day has a hundred thousand keys to take, and
// would do little but write. What an earlier file lacks is read again. Topic secrets that are
// erased do not wait: tick writes the file itself.
func (a *Agent) saving(period time.Duration) {
	const share = 10 // at most a tenth of the time
	for a.ctx.Err() == nil {
		begun := time.Now()
		a.save()
		select {
		case <-time.After(max(period, (share-1)*time.Since(begun))):
		case <-a.ctx.Done():
		}
	}
}

// save writes what has changed.
func (a *Agent) save() {
	if err := a.saveChanged(); err != nil && a.quiet.allow(err.Error(), 1) {
		a.log.Error("the state is not on disk: keys that should be erased stay in the file", "err", err)
	}
}
