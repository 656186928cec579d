// Package keyring holds KX1's state machines (abi/PROTOCOL.md §2): the realm and its
// issuers, a node and its credential, the verified view of the roster, a producer's
// epochs and a consumer's prekeys and topic secrets.
//
// It does no I/O and reads no clock: bytes and a time in, records and errors out;
// randomness is passed in as an io.Reader. The agent moves the records. Nothing here is
// safe for concurrent use: the agent holds one lock over a State and what was made of it.
//
// Secrets live in fixed arrays that are overwritten in place when their time is over. The
// producer's sending state (es, topic secrets, tree nodes) is never part of a State.
package keyring

import (
	"errors"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

// Control topics (PROTOCOL.md §2.2).
const (
	RosterTopic     = "_e2ee.roster" // compacted, one partition
	GrantsTopic     = "_e2ee.grants" // delete, LogAppendTime
	GrantPartitions = 16             // of GrantsTopic, fixed
)

// A Record is one record of a control topic, for the agent to write.
type Record struct {
	Partition int32
	Key       []byte
	Value     []byte
}

// Errors that the agent acts on. Everything else it logs.
var (
	// ErrUnknownCredential says that a signer's credential is not on the roster as far as
	// it was read. The agent reads the roster to its present end and tries once more.
	ErrUnknownCredential = errors.New("signer's credential is not on the roster")
	// ErrUnauthentic says that a signature, commitment or wrap does not verify.
	ErrUnauthentic = errors.New("authentication failed")
	// ErrOtherRealm says that a grant is made in another realm. Realms that share a cluster
	// share its control topics, so that this is ordinary.
	ErrOtherRealm = errors.New("made in another realm")
	// ErrRollback says that a record is older than one seen before it. That is ordinary
	// while the roster is read from its start, because the high-water marks outlive the
	// process, and worth a warning after that.
	ErrRollback = errors.New("older than what was seen before")
	// ErrDuplicateNode says that somebody else signs with this node's identity: the state
	// file was copied, or stolen.
	ErrDuplicateNode = errors.New("another process uses this node's identity")
	// ErrConflict says that two signed records contradict each other. The first counts, unless
	// the error says otherwise.
	ErrConflict = errors.New("two signed records contradict each other")
	// ErrKidConflict says that a second epoch claims a kid that is taken. The first wins.
	ErrKidConflict = errors.New("a second header claims a known kid")
)

// GrantPartition is the partition of GrantsTopic that holds the wraps for node
// (PROTOCOL.md §2.2).
func GrantPartition(node wire.NodeID) int32 {
	return int32(node[3] % GrantPartitions)
}

// unixMs converts to protocol time. Times before 1970 become 0.
func unixMs(t time.Time) uint64 {
	if ms := t.UnixMilli(); ms > 0 {
		return uint64(ms)
	}
	return 0
}

func fromMs(ms uint64) time.Time { return time.UnixMilli(int64(ms)) }
