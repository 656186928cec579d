// Package through measures a sidecar on a real Kafka beside no proxy at all and beside
// Kroxylicious: each round sends the same records each way, one way after the other.
package through

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/wasm-e2ee/wasm-e2ee/tests/bench/load"
	"github.com/wasm-e2ee/wasm-e2ee/tests/bench/report"
	"github.com/wasm-e2ee/wasm-e2ee/tests/bench/run"
	"github.com/wasm-e2ee/wasm-e2ee/tests/bench/stand"
)

// The ways from a client to the broker.
const (
	direct     = "direct"
	sealing    = "sidecar sealing"
	encrypting = "Kroxylicious encrypting"
	plain      = "sidecar, plain topic"
	passing    = "Kroxylicious passing"
)

// A way is one of them.
type way struct {
	name, bootstrap string
	prefix          string // of topics
	pid             int    // of the proxy; 0: there is none
}

// A cell is one size of values, number of partitions and size of batches.
type cell struct {
	size, partitions int
	batch            int32 // bytes at most
	bytes            int   // of values that a round sends each way
	rate             int   // records a second of the offered load
}

func (c cell) String() string {
	size := fmt.Sprintf("%d B", c.size)
	if c.size >= 1<<10 {
		size = fmt.Sprintf("%d KiB", c.size>>10)
	}
	partitions, batch := "1 partition", "16 KiB batches"
	if c.partitions > 1 {
		partitions = fmt.Sprintf("%d partitions", c.partitions)
	}
	if c.batch == load.LargeBatch {
		batch = "1 MB batches"
	}
	return size + ", " + partitions + ", " + batch
}

// cells are all of them. The offered loads are far below what each way can carry. Batches are
// Java's by default; a client that fills large ones makes a proxy's work for each request small
// beside that for each byte, which 1 KiB records show.
func cells(o run.Options) (all []cell) {
	small, large := run.Pick(o, 20_000_000, 1_000_000), run.Pick(o, 64_000_000, 4_000_000)
	for _, partitions := range []int{1, 6} {
		all = append(all,
			cell{100, partitions, load.JavaBatch, small, 5000},
			cell{1 << 10, partitions, load.JavaBatch, large, 2000},
			cell{1 << 10, partitions, load.LargeBatch, large, 2000},
			cell{10 << 10, partitions, load.JavaBatch, large, 500})
	}
	if o.Quick {
		all = []cell{all[1], all[2], all[4]}
	}
	return slices.DeleteFunc(all, func(c cell) bool { return !o.Wants(c.String()) })
}

// Rows starts a stand and measures every cell over every way.
func Rows(ctx context.Context, o run.Options) ([]report.Row, error) {
	s, err := stand.Start(ctx, o, true)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	ways := []way{
		{direct, s.Kafka.Bootstrap, "direct-", 0},
		{sealing, s.Sidecar.Addr, stand.SealedTopics, s.Sidecar.Pid()},
		{encrypting, s.Peer.Encrypting, "encrypted-", s.Peer.Pid()},
		{plain, s.Sidecar.Addr, stand.PlainTopics, s.Sidecar.Pid()},
		{passing, s.Peer.Passing, "passed-", s.Peer.Pid()},
	}
	// The JVM's compiler needs to have seen the code: the first figures would be unfair.
	for _, w := range ways {
		warm := cell{1 << 10, 6, load.JavaBatch, run.Pick(o, 256_000_000, 2_000_000), 500}
		o.Log("warming up: %s", w.name)
		if _, err := shoot(ctx, o, s, w, warm); err != nil {
			return nil, fmt.Errorf("%s: %w", w.name, err)
		}
	}
	var rows []report.Row
	for _, c := range cells(o) {
		found := map[string][]shot{}
		for round := -1; round < o.Rounds; round++ {
			for _, i := range rand.Perm(len(ways)) {
				shot, err := shoot(ctx, o, s, ways[i], c)
				if err != nil {
					return nil, fmt.Errorf("%s, %s: %w", ways[i].name, c, err)
				}
				if round >= 0 {
					found[ways[i].name] = append(found[ways[i].name], shot)
				}
			}
			o.Log("%s: round %d of %d", c, round+1, o.Rounds)
		}
		rows = append(rows, tabulate(c, found)...)
	}
	return rows, nil
}
