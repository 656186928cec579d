package proxy

import (
	"sync/atomic"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
)

// Stats counts what the proxy has done since it started.
type Stats struct {
	Connections   uint64                // accepted
	Open          int                   // connections now
	Sealed        uint64                // partitions of Produce requests that were forwarded
	SealRefused   map[abi.Status]uint64 // partitions of Produce requests that were not, by reason
	Opened        uint64                // partitions of Fetch and ShareFetch responses delivered whole
	OpenRefused   map[abi.Status]uint64 // partitions cut at a batch that could not be opened, by reason
	Skipped       map[abi.Status]uint64 // batches that were passed over instead, by reason
	Held          uint64                // responses that waited for a grant in vain
	GroupsRefused uint64                // requests for a group that the credential does not list
}

// numStatuses is above every number that abi gives a status.
const numStatuses = 64

type byStatus [numStatuses]atomic.Uint64

func (b *byStatus) add(s abi.Status) { b[min(s, numStatuses-1)].Add(1) }

func (b *byStatus) snapshot() map[abi.Status]uint64 {
	m := map[abi.Status]uint64{}
	for s := range b {
		if n := b[s].Load(); n > 0 {
			m[abi.Status(s)] = n
		}
	}
	return m
}

type counters struct {
	connections, sealed, opened, held, groupsRefused atomic.Uint64
	sealRefused, openRefused                         byStatus
}

// Stats returns the counters as they are now.
func (p *Proxy) Stats() Stats {
	p.mu.Lock()
	open := len(p.conns)
	p.mu.Unlock()
	return Stats{
		Connections:   p.stats.connections.Load(),
		Open:          open,
		Sealed:        p.stats.sealed.Load(),
		SealRefused:   p.stats.sealRefused.snapshot(),
		Opened:        p.stats.opened.Load(),
		OpenRefused:   p.stats.openRefused.snapshot(),
		Skipped:       p.filter.Skipped(),
		Held:          p.stats.held.Load(),
		GroupsRefused: p.stats.groupsRefused.Load(),
	}
}
