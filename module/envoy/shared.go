package envoy

import (
	"encoding/binary"
	"hash/fnv"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
)

// Shared is what all workers of one proxy see: Proxy-Wasm's shared data. Nothing secret may be
// put there. A key is never deleted again, so that keys are of a fixed number.
type Shared interface {
	// Get returns a value, which is the caller's, and the number of its last change.
	Get(key string) (value []byte, cas uint32, ok bool)

	// Set replaces a value if its last change has this number; 0 is any, and is for a value
	// that is not there yet. It returns false where somebody else was faster. The value stays
	// the caller's.
	Set(key string, value []byte, cas uint32) bool
}

// maxRaces is how often a change is tried while other workers change the same value.
const maxRaces = 32

// slots spread entries over values of the shared data by a hash of what they are about.
//
// Shared data cannot make a value unless it is there already: of two workers that make one at a
// time, the later wipes out what the earlier wrote. So all are made by prepare, before there is
// any traffic: Envoy configures one virtual machine on its main thread before it clones those
// of the workers. Whatever is not there afterwards cannot be relied on, and is not made again.
type slots struct {
	shared Shared
	keys   []string
}

// newSlots names n values and makes those that are not there yet.
func newSlots(shared Shared, n int, prefix byte) slots {
	s := slots{shared: shared, keys: make([]string, n)}
	for i := range s.keys {
		s.keys[i] = string([]byte{'e', '2', 'e', 'e', '.', prefix, byte(i >> 8), byte(i)})
		if _, _, ok := shared.Get(s.keys[i]); !ok {
			shared.Set(s.keys[i], nil, 0)
		}
	}
	return s
}

// key is the value that what is about this subject stands in.
func (s *slots) key(subject []byte) string {
	h := fnv.New64a()
	h.Write(subject)
	sum := h.Sum64()
	return s.keys[(sum^sum>>32)%uint64(len(s.keys))]
}

// get returns the value for a subject; ok is false where the shared data does not work.
func (s *slots) get(subject []byte) (value []byte, ok bool) {
	value, _, ok = s.shared.Get(s.key(subject))
	return value, ok
}

// change replaces the value for a subject by what edit makes of it, which is asked again
// wherever another worker was faster. nil leaves the value. It returns false where the value
// could not be changed.
func (s *slots) change(subject []byte, edit func(value []byte) []byte) bool {
	key := s.key(subject)
	for range maxRaces {
		value, cas, ok := s.shared.Get(key)
		if !ok {
			return false
		}
		changed := edit(value)
		if changed == nil || s.shared.Set(key, changed, cas) {
			return true
		}
	}
	return false
}

// alone is the Shared of a worker that shares nothing.
type alone map[string]*aloneValue

type aloneValue struct {
	value []byte
	cas   uint32
}

func (a alone) Get(key string) ([]byte, uint32, bool) {
	v := a[key]
	if v == nil {
		return nil, 0, false
	}
	return append([]byte(nil), v.value...), v.cas, true
}

func (a alone) Set(key string, value []byte, cas uint32) bool {
	v := a[key]
	if v == nil {
		v = &aloneValue{}
		a[key] = v
	} else if cas != 0 && cas != v.cas {
		return false
	}
	v.value, v.cas = append(v.value[:0:0], value...), v.cas+1
	return true
}

// replaySlots and replayEntries bound the batches that all workers remember: 2^18, in 6 MiB.
const (
	replaySlots   = 1 << 12
	replayEntries = 64
	replaySize    = 24
)

// sharedReplays remembers across workers at which offset each batch was opened first. Each value
// is a list of entries, the oldest first, which gives way (PROTOCOL.md §2.8.6):
//
//	8b: kid
//	4b: leaf
//	4b: partition
//	8b: offset; 2^64-1 where the batch stood elsewhere before: it opens no more
type sharedReplays struct{ slots }

// sharedID is the front of a batch's entry.
func sharedID(kid abi.Kid, leaf uint32, partition int32) (id [16]byte) {
	b := binary.BigEndian.AppendUint32(append(id[:0], kid[:]...), leaf)
	binary.BigEndian.AppendUint32(b, uint32(partition))
	return id
}

// A noted is what the shared data says of a batch.
type noted uint8

const (
	notedHere      noted = iota // it stands at this offset, and is noted there
	notedElsewhere              // it stood at another
	notNoted                    // it could not be noted: nobody may have it
)

// note notes a batch at an offset, or forever at none where it is barred.
func (r *sharedReplays) note(id [16]byte, offset uint64, barred bool) (result noted) {
	result = notNoted
	done := r.change(id[:], func(value []byte) []byte {
		at := 0
		for at+replaySize <= len(value) && [16]byte(value[at:]) != id {
			at += replaySize
		}
		if at+replaySize <= len(value) {
			before := value[at+16:][:8]
			switch {
			case barred:
				binary.BigEndian.PutUint64(before, ^uint64(0))
				result = notedHere
				return value
			case binary.BigEndian.Uint64(before) != offset:
				result = notedElsewhere
			default:
				result = notedHere
			}
			return nil
		}
		if barred {
			offset = ^uint64(0)
		}
		value = append(value[:at], id[:]...)
		value = binary.BigEndian.AppendUint64(value, offset)
		result = notedHere
		return value[max(0, len(value)-replayEntries*replaySize):]
	})
	if !done {
		return notNoted
	}
	return result
}
