package agent

import (
	"fmt"
	"slices"
	"sync"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
)

// maxReplayEntries bounds what is remembered, kids included (PROTOCOL.md §2.8.6).
const maxReplayEntries = 1 << 22

// A replayGuard remembers at which offset each sealed batch was opened first, as long as its
// key lives (PROTOCOL.md §2.8.6): a broker that appends a batch once more does so at another
// offset. It is safe for concurrent use.
type replayGuard struct {
	mu   sync.Mutex
	max  int
	kids map[abi.Kid]*opened
	age  []abi.Kid // of kids that have entries, the first opened first
	n    int       // entries, one for each kid and each batch
}

// opened is what is known of one kid's batches.
type opened struct {
	topic string
	seen  map[place]int64 // base offsets; nil where only ends counts, for want of room
	ends  map[int32]int64 // E_p by partition, nil until it is noted
}

// A place is what the authentic bytes of a batch say of where it belongs: leaf and partition,
// 24 bits each. A kid is of one topic, and a leaf seals one batch.
type place uint64

func newReplayGuard(max int) *replayGuard {
	return &replayGuard{max: max, kids: make(map[abi.Kid]*opened)}
}

// first notes one batch. It returns false where the batch stood at another offset before, or
// at its epoch's end or after. known is asked for a kid's end offsets when that is opened
// first; its error is returned. full is a kid for whose batches there was no room any more.
func (g *replayGuard) first(topic string, kid abi.Kid, leaf uint32, partition int32, offset int64, known func() (map[int32]int64, error)) (first bool, full *abi.Kid, err error) {
	if leaf >= 1<<24 || partition < 0 || partition >= 1<<24 || offset < 0 || offset >= 1<<56 {
		return false, nil, fmt.Errorf("leaf %d, partition %d, offset %d: %w", leaf, partition, offset, abi.StatusMalformed)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	o := g.kids[kid]
	if o == nil {
		ends, err := known()
		if err != nil {
			return false, nil, err
		}
		o = &opened{topic: topic, seen: make(map[place]int64), ends: ends}
		g.kids[kid] = o
		g.age = append(g.age, kid)
		g.n++
	}
	if end, ok := o.ends[partition]; ok && offset >= end {
		return false, nil, nil
	}
	at := place(leaf)<<24 | place(partition)
	if before, ok := o.seen[at]; ok {
		return before == offset, nil, nil
	}
	if g.n >= g.max && len(g.age) > 0 {
		oldest := g.age[0]
		g.emptyLocked(oldest)
		full = &oldest
	}
	if o.seen != nil {
		o.seen[at] = offset
		g.n++
	}
	return true, full, nil
}

// noteEnds gives the end offsets of kids of topic, as far as they are known.
func (g *replayGuard) noteEnds(topic string, known func(abi.Kid) (map[int32]int64, error)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for kid, o := range g.kids {
		if o.topic != topic || o.ends != nil {
			continue
		}
		if ends, err := known(kid); err == nil {
			o.ends = ends
		}
	}
}

// forget drops what is known of kids whose keys are gone: nothing of them opens again.
func (g *replayGuard) forget(kids []abi.Kid) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, kid := range kids {
		g.emptyLocked(kid)
		delete(g.kids, kid)
	}
}

// emptyLocked drops the entries of one kid. What is left of it is its end offsets.
func (g *replayGuard) emptyLocked(kid abi.Kid) {
	o := g.kids[kid]
	if o == nil || o.seen == nil {
		return
	}
	g.n -= len(o.seen) + 1
	o.seen = nil
	g.age = slices.DeleteFunc(g.age, func(k abi.Kid) bool { return k == kid })
}

// Opened implements engine.Keys (PROTOCOL.md §2.8.6).
func (a *Agent) Opened(topic string, kid abi.Kid, leaf uint32, partition int32, offset int64) error {
	first, full, err := a.replays.first(topic, kid, leaf, partition, offset, func() (map[int32]int64, error) { return a.endsOf(kid) })
	if err != nil {
		return err
	}
	if full != nil && a.quiet.allow("replays full", 1) {
		a.log.Warn("a batch of the oldest epoch that comes twice is detected no more, until its end offsets are known: too many batches are remembered",
			"kid", fmt.Sprintf("%x", *full), "hint", "shorten the window, or spread the topics over more sidecars")
	}
	if !first {
		a.alarm(AlarmReplay, "a sealed batch came once more, at another offset: it is not delivered", fmt.Sprint(topic, partition),
			"topic", topic, "partition", partition, "offset", offset, "kid", fmt.Sprintf("%x", kid), "leaf", leaf,
			"hint", "somebody who can write to the topic, or the cluster itself, repeats records")
		return abi.StatusReplayed
	}
	return nil
}

// endsOf returns E_p of a kid whose key is held, nil while it is not noted. The caller does
// not hold a.mu.
func (a *Agent) endsOf(kid abi.Kid) (map[int32]int64, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	ends, held := a.consumer.Ends(kid)
	if !held {
		return nil, abi.StatusErased // between the opening and now
	}
	return ends, nil
}
