package simulation

import (
	"slices"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// How long the broker keeps things: data for longer than the hard cap, so that a group may come
// to what nobody holds a key for any more; the grants for a day longer (PROTOCOL.md §2.2).
const (
	dataRetention   = 10 * 24 * time.Hour
	grantsRetention = dataRetention + 24*time.Hour
)

// A stored record of a control topic, and the broker's time when it was appended.
type stored struct {
	keyring.Record
	offset int64
	at     time.Time
	again  bool // the broker wrote it again
}

// A log is one partition of a control topic. Offsets ascend, and compaction leaves gaps.
type log struct {
	records []stored
	next    int64
	newest  map[string]int64 // by key, where the topic compacts
}

func (l *log) append(rec keyring.Record, at time.Time) {
	l.records = append(l.records, stored{Record: rec, offset: l.next, at: at})
	if l.newest != nil {
		l.newest[string(rec.Key)] = l.next
	}
	l.next++
}

// from is what stands at offset and after it.
func (l *log) from(offset int64) []stored {
	i, _ := slices.BinarySearchFunc(l.records, offset, func(s stored, o int64) int { return int(s.offset - o) })
	return l.records[i:]
}

// at is the record at offset, where it is still there.
func (l *log) at(offset int64) (stored, bool) {
	if s := l.from(offset); len(s) > 0 && s[0].offset == offset {
		return s[0], true
	}
	return stored{}, false
}

// superseded reports whether a newer record of the same key stands behind s.
func (l *log) superseded(s stored) bool { return l.newest[string(s.Key)] != s.offset }

// compact removes what is superseded, except for the newest hour, and old tombstones.
func (l *log) compact(now time.Time) {
	l.records = slices.DeleteFunc(l.records, func(s stored) bool {
		age := now.Sub(s.at)
		return l.superseded(s) && age > time.Hour || s.Value == nil && age > 24*time.Hour
	})
}

// expire removes what is older than the retention.
func (l *log) expire(now time.Time, retention time.Duration) {
	i := slices.IndexFunc(l.records, func(s stored) bool { return now.Sub(s.at) < retention })
	if i > 0 {
		l.records = slices.Delete(l.records, 0, i)
	}
}

// A place is one partition of one data topic.
type place struct {
	topic     string
	partition int32
}

// A value is one sealed batch as the broker stores it.
type value struct {
	place
	base    int64
	records int64
	seq     int // in its partition, from 0
	kid     abi.Kid
	batch   []byte
	at      time.Time
	from    *node
}

// A partition is what a data partition stores.
type partition struct {
	values []*value
	end    int64
	sealed int // values ever
}

// start is the offset of the oldest value that retention has left.
func (p *partition) start() int64 {
	if len(p.values) == 0 {
		return p.end
	}
	return p.values[0].base
}

// from is the values that end behind offset.
func (p *partition) from(offset int64) []*value {
	i, _ := slices.BinarySearchFunc(p.values, offset, func(v *value, o int64) int { return int(v.base + v.records - 1 - o) })
	return p.values[i:]
}

// An epoch is what the fleet knows of one topic's epoch: its header, and who it was wrapped for.
type epoch struct {
	header   *wire.GrantHeader
	topic    string
	kid      abi.Kid
	from     *node
	at       time.Time // when it was written
	wrapped  map[wire.NodeID]bool
	accepted bool // its producer was not revoked when it was written
}

// A broker is honest, except that it writes old grants again now and then.
type broker struct {
	roster     log
	grants     [keyring.GrantPartitions]log
	partitions map[place]*partition
	epochs     map[abi.Kid]*epoch
	up         bool
}

func newBroker() broker {
	return broker{roster: log{newest: map[string]int64{}}, partitions: map[place]*partition{}, epochs: map[abi.Kid]*epoch{}, up: true}
}

func (b *broker) at(topic string, i int32) *partition {
	p := place{topic, i}
	if b.partitions[p] == nil {
		b.partitions[p] = &partition{}
	}
	return b.partitions[p]
}

// tidy does what a cluster does to its logs.
func (b *broker) tidy(now time.Time) {
	b.roster.compact(now)
	for i := range b.grants {
		b.grants[i].expire(now, grantsRetention)
	}
	for _, p := range b.partitions {
		i := slices.IndexFunc(p.values, func(v *value) bool { return now.Sub(v.at) < dataRetention })
		if i > 0 {
			p.values = slices.Delete(p.values, 0, i)
		}
	}
}

// repeat appends again what stands in the grants topic, long after its time (C13).
func (b *broker) repeat(pick func(n int) int, now time.Time) {
	for i := range b.grants {
		l := &b.grants[i]
		for range min(5, len(l.records)) {
			l.append(l.records[pick(len(l.records))].Record, now)
			l.records[len(l.records)-1].again = true
		}
	}
}
