package keyring

import (
	"io"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

// A Consumer is a node's prekeys and the topic secrets that were opened with them
// (PROTOCOL.md §2.8). Its memory is the State.
type Consumer struct{}

// NewConsumer works on s. rand draws prekey seeds.
func NewConsumer(s *State, t Timing, rand io.Reader) *Consumer { return &Consumer{} }

// PrekeyDue reports whether a new prekey must be made: at start, and every
// PrekeyRotation.
func (c *Consumer) PrekeyDue(now time.Time) bool { return false }

// NewPrekey makes a prekey and returns its bundle's record for the roster. The state must
// reach the disk before the record is written. generation = max(previous + 1, now).
func (c *Consumer) NewPrekey(now time.Time) (Record, error) { return Record{}, nil }

// Bundle is the record of the newest prekey, to be written again while it is not read
// back or after somebody overwrote it. ok is false before the first NewPrekey.
func (c *Consumer) Bundle() (rec Record, ok bool) { return Record{}, false }

// NoteRoster sees every record that was read from the roster, after Roster.Apply: the own
// bundle marks its prekey as published. again asks to write Bundle once more, because
// somebody overwrote it. ErrDuplicateNode: another process publishes for this node.
func (c *Consumer) NoteRoster(key, value []byte, now time.Time) (again bool, err error) {
	return false, nil
}

// Published reports whether the newest prekey was read back from the roster.
func (c *Consumer) Published() bool { return false }

// ApplyGrant verifies one record of the own partition of GrantsTopic and keeps the topic
// secrets that it brings (PROTOCOL.md §2.8.2). kids are those that became readable.
// ErrUnknownCredential: read the roster to its end and apply once more. Other errors are
// logged; the state is as it was. The state must reach the disk before the consumer group
// position of the reader counts.
func (c *Consumer) ApplyGrant(partition int32, key, value []byte, r *Roster, now time.Time) (kids []abi.Kid, err error) {
	return nil, nil
}

// GrantsNext is the offset from which the own partition of GrantsTopic is read: -1 (its
// start) for a new state.
func (c *Consumer) GrantsNext() int64 { return -1 }

// NoteGrants says that every record below next was applied.
func (c *Consumer) NoteGrants(next int64) {}

// NoteGrantsEnd says that the own partition ended at end, by an answer to a question that
// was asked at asked. A superseded prekey goes when its grace is over and the reader has
// passed an end that was asked for after that: call it every PrekeyGrace/4 or so, while
// PrekeysWaiting.
func (c *Consumer) NoteGrantsEnd(end int64, asked time.Time) {}

// PrekeysWaiting reports whether superseded prekeys wait for NoteGrantsEnd.
func (c *Consumer) PrekeysWaiting(now time.Time) bool { return false }

// Root returns the root that opens topic's batches of kid. The error wraps
// abi.StatusErased; StatusUnreadable where a signed grant names the kid but not this node,
// or the kid belongs to another topic; StatusNotEntitled; or StatusPending where no grant
// that was read names it: once the grants reader has passed an end offset fetched after
// the batch arrived, that means StatusUnreadable.
func (c *Consumer) Root(topic string, kid abi.Kid, now time.Time) (abi.Root, error) {
	return abi.Root{}, nil
}

// EndsWanted lists the topics whose partitions' end offsets (high watermarks) must be
// noted now: an epoch of theirs is over for Skew + Settle (PROTOCOL.md §2.8.4).
func (c *Consumer) EndsWanted(now time.Time) []string { return nil }

// NoteEnds gives the end offset of every partition of topic, from an answer that is not
// older than now.
func (c *Consumer) NoteEnds(topic string, ends map[int32]int64, now time.Time) {}

// Watched lists the topics for which progress is wanted: secrets are held whose end
// offsets are known and that some group has not passed.
func (c *Consumer) Watched() []string { return nil }

// A Progress is what the broker says about one topic.
type Progress struct {
	LogStart map[int32]int64            // per partition
	Groups   map[string]map[int32]int64 // committed offsets of each group that exists and that AllowsGroup; a partition without a commit is absent
}

// A Scan asks for the kids of the values in [From, To) of a partition: transaction
// markers and empty partitions make plain comparison of offsets never true for most
// clients. At most 10,000 offsets.
type Scan struct {
	Topic     string
	Partition int32
	From, To  int64
}

// NoteProgress decides which groups are past which epochs of topic. The scans it returns
// settle the rest: read each, then NoteScan. warnings are for the log, each given once.
func (c *Consumer) NoteProgress(topic string, p Progress, now time.Time) (scans []Scan, warnings []string) {
	return nil, nil
}

// NoteScan says which kids the values in the scanned range carry. It counts for the groups
// that asked for it in the last NoteProgress.
func (c *Consumer) NoteScan(s Scan, kids map[abi.Kid]bool, now time.Time) {}

// Tick erases what is due: topic secrets that every group has passed for Window, those
// past the hard cap, those of topics or roles that the credential lost, and prekeys. It
// returns the erased kids, for the data planes. Call it every second or so.
func (c *Consumer) Tick(now time.Time) []abi.Kid { return nil }

var _ wire.NodeID
