package main

import (
	"bytes"
	"log"

	"github.com/wasm-e2ee/wasm-e2ee/tests/vectors"
)

// replays is a corpus of batches that come again, by name.
type replays map[string]vectors.Replay

// all are what whoever delivers batches does not deliver, though they open.
func (c replays) all() {
	kid := vectors.Bytes(bytes.Repeat([]byte{0x0B}, 8))
	other := vectors.Bytes(bytes.Repeat([]byte{0x0C}, 8))
	opened := func(leaf uint32, partition int32, offset int64, want vectors.Kind) vectors.ReplayStep {
		return vectors.ReplayStep{Kid: kid, Leaf: leaf, Partition: partition, Offset: offset, Want: want}
	}
	of := func(kid vectors.Bytes, s vectors.ReplayStep) vectors.ReplayStep { s.Kid = kid; return s }
	ends := vectors.ReplayStep{Kid: kid, Ends: map[int32]int64{3: 100}}
	erased := vectors.ReplayStep{Kid: kid, Erase: true}
	restart := vectors.ReplayStep{Restart: true}
	add := func(name, refusal, comment string, steps ...vectors.ReplayStep) {
		if _, ok := c[name]; ok {
			log.Fatalf("replay %s is there twice", name)
		}
		c[name] = vectors.Replay{Comment: comment, Refusal: refusal, Steps: steps}
	}
	first := opened(7, 3, 20, vectors.Taken)
	add("seek-back", "", "The same batch at its offset, as after a seek back.", first, first)
	add("backwards", "", "A leaf below one that was seen: workers own disjoint subtrees.", first, opened(6, 3, 21, vectors.Taken))
	add("partitions", "", "One leaf seals one batch, yet only the partition that opened counts.", first, opened(7, 4, 21, vectors.Taken))
	add("replay-offset", "replay-offset", "A batch that opened at another offset before.", first, opened(7, 3, 21, vectors.Replayed), first)
	add("replay-earlier", "replay-offset", "The same at an offset below its first.", first, opened(7, 3, 19, vectors.Replayed))
	add("replay-restart", "replay-offset", "The same after a restart.", first, restart, opened(7, 3, 21, vectors.Replayed), first)
	add("replay-end", "replay-end", "A batch at or after E_p of its epoch that was never seen.", ends, opened(8, 3, 99, vectors.Taken), opened(9, 3, 100, vectors.Replayed), opened(10, 3, 1000, vectors.Replayed))
	add("replay-end-other", "", "E_p of one partition says nothing of another one.", ends, opened(8, 4, 100, vectors.Taken))
	add("replay-full", "replay-end", "When there is no room, the oldest kid keeps only the rule of E_p.",
		first, of(other, opened(0, 3, 30, vectors.Taken)), of(other, opened(1, 3, 31, vectors.Taken)), of(other, opened(0, 3, 32, vectors.Replayed)),
		opened(7, 3, 33, vectors.Taken), ends, opened(7, 3, 100, vectors.Replayed))
	full := c["replay-full"]
	full.Room = 4
	c["replay-full"] = full
	add("replay-erased", "replay-erased", "A batch whose key was erased between the opening and the delivery.", erased, opened(7, 3, 20, vectors.Erased))
}
