package engine

import (
	"log/slog"
	"slices"
	"sync"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
)

// maxSeen bounds the batches that are remembered, about 50 bytes each.
const maxSeen = 1 << 20

// A replayGuard remembers at which offset each sealed batch was opened first, as long as its
// key lives (PROTOCOL.md §2.8.6): a broker that appends a batch once more does so at another
// offset. It remembers for this process only, and is safe for concurrent use.
type replayGuard struct {
	mu   sync.Mutex
	log  *slog.Logger
	max  int
	seen map[abi.Kid]map[place]int64 // base offsets
	kids []abi.Kid                   // of seen, the oldest first
	n    int                         // entries of seen
}

// A place is what the authentic bytes of a batch say of where it belongs. A kid is of one
// topic, and a leaf seals one batch.
type place struct {
	leaf      uint32
	partition int32
}

func newReplayGuard(log *slog.Logger, max int) *replayGuard {
	return &replayGuard{log: log, max: max, seen: map[abi.Kid]map[place]int64{}}
}

// first reports whether the batch was not opened at another offset before.
func (g *replayGuard) first(kid abi.Kid, leaf uint32, partition int32, offset int64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	at := place{leaf, partition}
	if before, ok := g.seen[kid][at]; ok {
		return before == offset
	}
	if g.n >= g.max {
		oldest := g.kids[0]
		g.log.Warn("replay of the oldest epoch's batches is no longer detected: too many batches are remembered",
			"batches", g.n, "hint", "shorten the window, or spread the topics over more sidecars")
		g.forgetLocked(oldest)
	}
	if g.seen[kid] == nil {
		g.seen[kid] = map[place]int64{}
		g.kids = append(g.kids, kid)
	}
	g.seen[kid][at] = offset
	g.n++
	return true
}

// forget drops what is known of kids whose keys are gone: nothing of them opens again.
func (g *replayGuard) forget(kids []abi.Kid) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, kid := range kids {
		g.forgetLocked(kid)
	}
}

func (g *replayGuard) forgetLocked(kid abi.Kid) {
	if places, ok := g.seen[kid]; ok {
		g.n -= len(places)
		delete(g.seen, kid)
		g.kids = slices.DeleteFunc(g.kids, func(k abi.Kid) bool { return k == kid })
	}
}
