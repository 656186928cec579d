package lease

import (
	"crypto/rand"
	"sync"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi/channel"
)

// maxChannels bounds the channels that are open (PROTOCOL.md §2.12).
const maxChannels = 1024

// A table holds the channels that are open. It is safe for concurrent use.
type table struct {
	mu   sync.Mutex
	open map[channel.ID]*session
}

// add opens a channel for s. Where there are too many, one gives way: of those on which no call
// came yet, or else of all, the one that is unused for longest. So whoever repeats handshakes
// that he has seen drives out nothing but his own.
func (t *table) add(s *session, at time.Time) channel.ID {
	var id channel.ID
	rand.Read(id[:]) // never fails
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expireLocked(at)
	if len(t.open) >= maxChannels {
		t.evictLocked()
	}
	if t.open == nil {
		t.open = make(map[channel.ID]*session)
	}
	s.last = at
	t.open[id] = s
	return id
}

func (t *table) evictLocked() {
	var victim channel.ID
	var worst *session
	for id, s := range t.open {
		if worst == nil || worst.used && !s.used || worst.used == s.used && s.last.Before(worst.last) {
			victim, worst = id, s
		}
	}
	delete(t.open, victim)
}

// get returns a channel that is open, or nil.
func (t *table) get(id channel.ID, at time.Time) *session {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expireLocked(at)
	return t.open[id]
}

// use notes a call that authenticated.
func (t *table) use(s *session, at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s.last, s.used = at, true
}

// drop ends a channel.
func (t *table) drop(id channel.ID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.open, id)
}

// dropAll ends all channels.
func (t *table) dropAll() {
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.open)
}

// expire ends the channels that are unused for too long.
func (t *table) expire(at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expireLocked(at)
}

func (t *table) expireLocked(at time.Time) {
	for id, s := range t.open {
		if at.Sub(s.last) >= channel.IdleLimit {
			delete(t.open, id)
		}
	}
}

func (t *table) len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.open)
}
