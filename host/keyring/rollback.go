package keyring

import (
	"fmt"
	"slices"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

// Lost lists what the roster lacks, now that it was read to its end, of what was seen on it
// before, by this process or an earlier one (PROTOCOL.md §2.14). Compaction keeps the newest
// record of each key, so that an honest roster lacks nothing; only what is older than the
// hard cap may have been removed for good. Each error wraps ErrRollback.
func (r *Roster) Lost(now time.Time) []error {
	var out []error
	if r.RolledBack() {
		out = append(out, fmt.Errorf("authority state %d, where %d was seen before: %w", r.authoritySeq(), r.state.authority.seq, ErrRollback))
	}
	var nodes []wire.NodeID
	for id, seen := range r.state.marks {
		// A generation is the time at which it was made, or later.
		if seen.generation+ms(r.timing.HardCap) > unixMs(now) && r.position(id).compare(seen) < 0 && !r.discounted(id, seen, now) {
			nodes = append(nodes, id)
		}
	}
	slices.SortFunc(nodes, func(a, b wire.NodeID) int { return slices.Compare(a[:], b[:]) })
	for _, id := range nodes {
		out = append(out, fmt.Errorf("prekey bundle of node %v, generation %d: %w", id, r.state.marks[id].generation, ErrRollback))
	}
	return out
}

// position is where a node's bundle stands, zeros for none.
func (r *Roster) position(id wire.NodeID) mark {
	n := r.nodes[id]
	if n == nil || n.bundle == nil {
		return mark{}
	}
	c := r.creds[n.bundle.Credential]
	if c == nil {
		return mark{}
	}
	return mark{c.Lineage, n.bundle.Generation}
}

// discounted reports whether a bundle that counted once says nothing any more: its credential was
// revoked from before it, so that it would be refused today, or since, and then whoever has the
// key may have put one in its place that is refused.
func (r *Roster) discounted(id wire.NodeID, m mark, now time.Time) bool {
	n := r.nodes[id]
	return n != nil && slices.ContainsFunc(n.creds, func(c *wire.Credential) bool {
		return c.Lineage == m.lineage && (!r.valid(c, m.generation) || r.revoked(c.Serial, unixMs(now)))
	})
}
