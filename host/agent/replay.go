package agent

import (
	"fmt"
	"slices"
	"sync"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
)

const (
	// maxReplayEntries bounds what is remembered, kids included (PROTOCOL.md §2.8.6). Measured,
	// an entry takes 25 to 57 bytes of memory, the more the fewer batches a kid has.
	maxReplayEntries = 1 << 22
	// replaySlack is how many entries of kids that are gone may stand in the file before it
	// is written anew, beyond as many as there are of others.
	replaySlack = 4096
)

// A replayGuard remembers at which offset each sealed batch was opened first, as long as its
// key lives (PROTOCOL.md §2.8.6): a broker that appends a batch once more does so at another
// offset. It is safe for concurrent use.
type replayGuard struct {
	mu   sync.Mutex
	max  int
	kids map[abi.Kid]*opened
	age  []abi.Kid // of kids that have entries, the first opened first
	n    int       // entries, one for each kid and each batch

	numbers uint32 // of kids, that the file has seen
	pending []byte // entries to append to the file
}

// opened is what is known of one kid's batches.
type opened struct {
	number uint32          // in the file
	seen   map[place]int64 // base offsets; nil where only ends counts, for want of room
	ends   map[int32]int64 // E_p by partition, nil until it is noted
}

// A place is what the authentic bytes of a batch say of where it belongs: leaf and partition,
// 24 bits each. A kid is of one topic, and a leaf seals one batch.
type place uint64

// An endsOf is asked about a kid: its E_p by partition, or nil before they are noted, and whether its key is held at all.
type endsOf func(abi.Kid) (ends map[int32]int64, held bool)

func newReplayGuard(max int) *replayGuard {
	return &replayGuard{max: max, kids: make(map[abi.Kid]*opened)}
}

// first notes one batch. It returns false where the batch stood at another offset before, or
// at its epoch's end or after. known is asked about a kid that is opened for
// the first time. full is a kid for whose batches there was no room any more.
func (g *replayGuard) first(kid abi.Kid, leaf uint32, partition int32, offset int64, known endsOf) (first bool, full *abi.Kid, err error) {
	if leaf >= 1<<24 || partition < 0 || partition >= 1<<24 || offset < 0 || offset >= 1<<56 {
		return false, nil, fmt.Errorf("leaf %d, partition %d, offset %d: %w", leaf, partition, offset, abi.StatusMalformed)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	o := g.kids[kid]
	if o == nil {
		ends, held := known(kid)
		if !held {
			return false, nil, abi.StatusErased // between the opening and now
		}
		o = g.addLocked(kid, ends)
		g.pending = appendKidEntry(g.pending, o.number, kid)
	}
	if end, ok := o.ends[partition]; ok && offset >= end {
		return false, nil, nil
	}
	at := place(leaf)<<24 | place(partition)
	if before, ok := o.seen[at]; ok {
		return before == offset, nil, nil
	}
	for g.n >= g.max && len(g.age) > 0 {
		oldest := g.age[0]
		g.emptyLocked(oldest)
		g.age = g.age[1:]
		full = &oldest
	}
	if o.seen != nil {
		o.seen[at] = offset
		g.n++
		g.pending = appendBatchEntry(g.pending, o.number, at, offset)
	}
	return true, full, nil
}

func (g *replayGuard) addLocked(kid abi.Kid, ends map[int32]int64) *opened {
	g.numbers++
	o := &opened{number: g.numbers, seen: make(map[place]int64), ends: ends}
	g.kids[kid] = o
	g.age = append(g.age, kid)
	g.n++
	return o
}

// restore takes what a file holds of kids whose keys are held. More than there is room for
// goes with the next batch.
func (g *replayGuard) restore(from replayEntries, known endsOf) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, kid := range from.kids {
		if ends, held := known(kid); held && g.kids[kid] == nil {
			o := g.addLocked(kid, ends)
			o.seen = from.batches[kid]
			g.n += len(o.seen)
		}
	}
}

// take returns what is to be written to the file, which has this many entries, and how many
// entries that is: what came since the last call, or all of it anew.
func (g *replayGuard) take(anew bool, inFile int) (all bool, entries []byte, n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	entries, n = g.pending, len(g.pending)/replayEntry
	g.pending = nil
	if !anew && inFile+n <= 2*g.n+replaySlack && g.numbers <= maxNumber {
		return false, entries, n
	}
	entries = make([]byte, 0, (g.n+1)*replayEntry)
	g.numbers = 0
	for _, kid := range g.age {
		o := g.kids[kid]
		g.numbers++
		o.number = g.numbers
		entries = appendKidEntry(entries, o.number, kid)
		for at, offset := range o.seen {
			entries = appendBatchEntry(entries, o.number, at, offset)
		}
	}
	return true, entries, len(entries) / replayEntry
}

// noteEnds takes the end offsets that have been noted since.
func (g *replayGuard) noteEnds(known endsOf) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for kid, o := range g.kids {
		if o.ends != nil {
			continue
		}
		if ends, held := known(kid); held {
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
	g.age = slices.DeleteFunc(g.age, func(kid abi.Kid) bool { return g.kids[kid] == nil })
}

// emptyLocked drops the entries of one kid, but for its place in age. What is left of it is
// its end offsets.
func (g *replayGuard) emptyLocked(kid abi.Kid) {
	if o := g.kids[kid]; o != nil && o.seen != nil {
		g.n -= len(o.seen) + 1
		o.seen = nil
	}
}

// Opened implements engine.Keys (PROTOCOL.md §2.8.6).
func (a *Agent) Opened(topic string, kid abi.Kid, leaf uint32, partition int32, offset int64) error {
	if a.ctx.Err() != nil {
		return fmt.Errorf("topic %s: %w", topic, abi.StatusShuttingDown) // it could not be noted any more
	}
	first, full, err := a.replays.first(kid, leaf, partition, offset, a.endsOf)
	if err != nil {
		return err
	}
	if full != nil && a.quiet.allow("replays full", 1) {
		a.log.Warn("too many batches are remembered: of the oldest epoch, one that comes twice is detected only from the epoch's end offsets on",
			"kid", fmt.Sprintf("%x", *full), "hint", "shorten the window, or spread the topics over more sidecars")
	}
	if !first {
		a.alarm(AlarmReplay, "a sealed batch came once more, at another offset: it is not delivered", fmt.Sprint(topic, partition),
			"topic", topic, "partition", partition, "offset", offset, "kid", fmt.Sprintf("%x", kid), "leaf", leaf,
			"hint", "the cluster, or somebody who may write to the topic, repeats records")
		return abi.StatusReplayed
	}
	return nil
}

// endsOf is an endsOf. The caller does not hold a.mu.
func (a *Agent) endsOf(kid abi.Kid) (ends map[int32]int64, held bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.consumer.Ends(kid)
}

// openReplays reads what was opened before this process started. A file that is missing or
// damaged is said, and what it could have told is lost (PROTOCOL.md §3, C10).
func (a *Agent) openReplays() error {
	file, held, missing, err := openReplayFile(a.store.replayPath())
	if err != nil {
		return err
	}
	a.replayFile = file
	if keys := len(a.state.View().Kids); (missing && keys > 0) || held.damaged {
		a.log.Error("the replay state is missing or damaged: a batch that was opened before this start is delivered once more if the cluster repeats it",
			"file", file.path, "missing", missing, "kept", len(held.kids), "keys", keys,
			"hint", "find out who removed or changed the file; it ends with the keys that are held now")
	}
	a.replays.restore(held, a.endsOf)
	return file.flush(a.replays)
}

// flushReplays brings to disk what was opened since the last call.
func (a *Agent) flushReplays() {
	if err := a.replayFile.flush(a.replays); err != nil && a.quiet.allow(err.Error(), 1) {
		a.log.Error("the replay state is not on disk: after a restart, batches that were opened since are not known", "err", err)
	}
}
