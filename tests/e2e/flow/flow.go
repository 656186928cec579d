// Package flow is records that carry their number, the book of where each was stored and which
// groups have read it, and members of these groups: what shows that nothing is lost, doubled or
// changed while something else goes on.
package flow

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/nodes"
)

// A Flow is one topic of records that carry their number, and the book of where each was stored
// and which groups have read it.
type Flow struct {
	Topic      string
	Producers  int // clients that Produce uses in turn; 0 means 1
	partitions int32
	seed       uint64

	mu       sync.Mutex
	stored   map[place]uint64         // by where the broker put it, the record's number
	read     map[string]map[place]int // by group, how often each was delivered
	trouble  []string
	Produced uint64 // records sent; read it when Produce has returned
}

// A place is a partition and an offset of the flow's topic.
type place struct {
	partition int32
	offset    int64
}

// New begins a flow over so many partitions of a topic. What its records carry comes from seed.
func New(topic string, partitions int32, seed uint64) *Flow {
	return &Flow{Topic: topic, partitions: partitions, seed: seed, stored: map[place]uint64{}, read: map[string]map[place]int{}}
}

// value is what record n carries: its number, and up to 2 KB that follow from it.
func (f *Flow) value(n uint64) []byte {
	rng := rand.New(rand.NewPCG(f.seed, n))
	b := binary.BigEndian.AppendUint64(nil, n)
	for range rng.IntN(256) {
		b = binary.BigEndian.AppendUint64(b, rng.Uint64()>>32) // half of it compresses
	}
	return b
}

// Fail books trouble, which Check tells.
func (f *Flow) Fail(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.trouble) < 20 {
		f.trouble = append(f.trouble, fmt.Sprintf(format, args...))
	}
}

// Produce sends perSecond records a second, over all partitions in turn, until ctx ends, and
// returns when each was acknowledged. Nothing may be refused for good.
func (f *Flow) Produce(ctx context.Context, bootstrap string, perSecond int) error {
	var producers []*kgo.Client
	for range max(f.Producers, 1) {
		cl, err := kgo.NewClient(
			kgo.SeedBrokers(bootstrap),
			kgo.DefaultProduceTopic(f.Topic),
			kgo.RecordPartitioner(kgo.ManualPartitioner()),
			kgo.ProducerLinger(20*time.Millisecond),
			kgo.RetryBackoffFn(func(int) time.Duration { return 100 * time.Millisecond }),
		)
		if err != nil {
			return err
		}
		defer cl.Close()
		producers = append(producers, cl)
	}
	for tick := time.NewTicker(time.Second / time.Duration(perSecond)); ctx.Err() == nil; <-tick.C {
		n := f.Produced
		f.Produced++
		cl := producers[n/uint64(f.partitions)%uint64(len(producers))]
		cl.Produce(context.Background(), &kgo.Record{Partition: int32(n % uint64(f.partitions)), Value: f.value(n)}, func(r *kgo.Record, err error) {
			if err != nil {
				f.Fail("record %d is not acknowledged: %v", n, err)
				return
			}
			f.mu.Lock()
			defer f.mu.Unlock()
			f.stored[place{r.Partition, r.Offset}] = n
		})
	}
	flush, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, cl := range producers {
		if err := cl.Flush(flush); err != nil {
			return err
		}
	}
	return nil
}

// Delivered books one record that a member of group got.
func (f *Flow) Delivered(group string, r *kgo.Record) {
	if len(r.Value) < 8 || !bytes.Equal(r.Value, f.value(binary.BigEndian.Uint64(r.Value))) {
		f.Fail("group %s, partition %d, offset %d: %d bytes that nobody sent", group, r.Partition, r.Offset, len(r.Value))
		return
	}
	n, at := binary.BigEndian.Uint64(r.Value), place{r.Partition, r.Offset}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.read[group] == nil {
		f.read[group] = map[place]int{}
	}
	f.read[group][at]++
	// An acknowledgement may come later than its record; complete looks again.
	if sent, ok := f.stored[at]; ok && sent != n {
		f.trouble = append(f.trouble, fmt.Sprintf("group %s, partition %d, offset %d: record %d, want %d", group, at.partition, at.offset, n, sent))
	}
}

// Await returns when group has been given every stored record, or something went wrong that
// Check will tell.
func (f *Flow) Await(t testing.TB, group string) {
	t.Helper()
	nodes.Poll(t, time.Minute, "every record for group "+group, func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		missing := 0
		for at := range f.stored {
			if f.read[group][at] == 0 {
				missing++
			}
		}
		return missing == 0 || len(f.trouble) > 0
	})
}

// Check fails the test for what was booked as trouble, for a record that is stored twice or
// not at all, and for one that stands where nothing was acknowledged. It returns how many
// deliveries were repeated, which is what a group that commits afterwards may do.
func (f *Flow) Check(t testing.TB, groups ...string) (repeated int) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.trouble {
		t.Error(s)
	}
	seen := map[uint64]bool{}
	for at, n := range f.stored {
		if seen[n] {
			t.Errorf("partition %d, offset %d: record %d is stored twice", at.partition, at.offset, n)
		}
		seen[n] = true
	}
	if uint64(len(seen)) != f.Produced {
		t.Errorf("%d records are stored, %d were sent", len(seen), f.Produced)
	}
	for _, group := range groups {
		lost := 0
		for at := range f.stored {
			if f.read[group][at] == 0 {
				lost++
			}
		}
		if lost > 0 {
			t.Errorf("group %s: %d of %d records never came", group, lost, len(f.stored))
		}
		for at, times := range f.read[group] {
			if _, ok := f.stored[at]; !ok {
				t.Errorf("group %s, partition %d, offset %d: a record where none was acknowledged", group, at.partition, at.offset)
			}
			repeated += times - 1
		}
	}
	return repeated
}
