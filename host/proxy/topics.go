package proxy

import (
	"context"
	"sync"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
)

// maxTopics bounds the topic ids remembered. Beyond it an id stays unknown, which is refused.
const maxTopics = 1 << 18

// unknownHold is how long a Fetch waits for Metadata to tell what its topic ids stand for.
// After a restart of the sidecar clients fetch first: franz-go asks for Metadata once in 5 s,
// and hands the sixth such answer to the application.
const unknownHold = time.Second

// topics remembers which name a client was told for each topic id, from the Metadata
// responses that passed. Ids come instead of names from Produce 13 and Fetch 13 on (KIP-516).
//
// A broker must not be able to move an encrypted topic's id under a plain topic's name: an
// id keeps the name that clients were told, a second name for it makes the id useless, and
// the broker is never asked about an id on its own. What clients were told by a sidecar
// before this one is not known, though: where any topic is plain, see Config.NamesOnly.
type topics struct {
	mu    sync.RWMutex
	names map[[16]byte]string // "" where two names were told
	told  chan struct{}       // closed and replaced when an id gets its name; nil while nobody waits
}

// learn notes a topic of a Metadata response and reports whether the id still has one name.
func (t *topics) learn(id [16]byte, name string) bool {
	if id == [16]byte{} || name == "" {
		return true
	}
	t.mu.RLock()
	known, ok := t.names[id]
	t.mu.RUnlock()
	if ok && known == name {
		return true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	known, ok = t.names[id]
	switch {
	case ok && known == name:
	case ok:
		t.names[id] = ""
		return false
	case len(name) > abi.MaxTopicLen: // no topic of Kafka's, and nothing to remember
	case len(t.names) < maxTopics:
		if t.names == nil {
			t.names = map[[16]byte]string{}
		}
		t.names[id] = name
		if t.told != nil {
			close(t.told)
			t.told = nil
		}
	}
	return true
}

// name returns the topic's name; ok is false for an id that no client was told.
func (t *topics) name(id [16]byte) (name string, ok bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	name = t.names[id]
	return name, name != ""
}

// await returns the topic's name as soon as clients are told it, "" where that does not
// happen before ctx ends.
func (t *topics) await(ctx context.Context, id [16]byte) string {
	if name, ok := t.name(id); ok {
		return name
	}
	for {
		t.mu.Lock()
		name, ok := t.names[id]
		if !ok && t.told == nil {
			t.told = make(chan struct{})
		}
		told := t.told
		t.mu.Unlock()
		if ok {
			return name
		}
		select {
		case <-told:
		case <-ctx.Done():
			return ""
		}
	}
}

// lastWithNames is the last version of both Produce and Fetch in which topics have names.
const lastWithNames = 12

// passed returns the versions of an API that clients may use. With NamesOnly, Produce and
// Fetch end where ids begin: a client may bring an id along that it was told before this
// process began, and a broker that now gives it to a plain topic would get its records as
// they are. Only ShareFetch has no version with names.
func (p *Proxy) passed(key int16) (low, high int16, ok bool) {
	low, high, ok = kafka.Supported(key)
	if p.cfg.NamesOnly && (key == kafka.KeyProduce || key == kafka.KeyFetch) {
		high = lastWithNames
	}
	return low, high, ok
}
