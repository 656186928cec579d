package envoy

import "github.com/wasm-e2ee/wasm-e2ee/abi"

// maxReplayEntries bounds the batches that one worker remembers (PROTOCOL.md §2.8.6).
const maxReplayEntries = 1 << 18

// replays remembers at which offset each sealed batch was opened first, as long as its root is
// held: a broker that appends a batch once more does so at another offset. What other workers
// opened the shared data holds, and what was opened before they began the agent remembers.
type replays struct {
	kids map[abi.Kid]map[batchID]int64 // base offsets; -1 is none, ever
	age  []abi.Kid                     // the first opened first
	n    int
}

// A batchID is what the authentic bytes of a batch say of where it belongs, under its kid.
type batchID struct {
	leaf      uint32
	partition int32
}

// note notes a batch at an offset. It returns StatusReplayed where it stood at another before;
// fresh is false where it stood at this one.
func (r *replays) note(kid abi.Kid, leaf uint32, partition int32, offset int64) (fresh bool, s abi.Status) {
	if offset < 0 {
		return false, abi.StatusMalformed
	}
	seen := r.kids[kid]
	id := batchID{leaf, partition}
	if before, ok := seen[id]; ok {
		if before != offset {
			return false, abi.StatusReplayed
		}
		return false, abi.StatusOK
	}
	for r.n >= maxReplayEntries {
		r.forget(r.age[0])
	}
	if seen = r.kids[kid]; seen == nil {
		seen = map[batchID]int64{}
		if r.kids == nil {
			r.kids = map[abi.Kid]map[batchID]int64{}
		}
		r.kids[kid] = seen
		r.age = append(r.age, kid)
	}
	seen[id] = offset
	r.n++
	return true, abi.StatusOK
}

// allows reports whether a batch may stand at an offset, as far as this worker knows.
func (r *replays) allows(kid abi.Kid, leaf uint32, partition int32, offset int64) bool {
	before, ok := r.kids[kid][batchID{leaf, partition}]
	return offset >= 0 && (!ok || before == offset)
}

// bar says that a batch stood elsewhere before this worker saw it: it opens no more.
func (r *replays) bar(kid abi.Kid, leaf uint32, partition int32) {
	if seen := r.kids[kid]; seen != nil {
		seen[batchID{leaf, partition}] = -1
	}
}

// forget drops what is known of a kid whose root is gone.
func (r *replays) forget(kid abi.Kid) {
	r.n -= len(r.kids[kid])
	delete(r.kids, kid)
	for i, k := range r.age {
		if k == kid {
			r.age = append(r.age[:i], r.age[i+1:]...)
			break
		}
	}
}
