package keyring

import (
	"io"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

// A Producer is one instance's epochs (PROTOCOL.md §2.7). All of it lives in memory only.
//
// The agent's loop: topics that Lease refused with StatusNeedLease, and those of Due, go
// to Prepare after the roster was read to an end offset fetched just then; each draft's
// records are written; when all are acknowledged Activate, else Restart; then erase the
// kids of Retire from the data planes.
type Producer struct{}

// NewProducer draws an instance id. requireGroups names, per topic, the groups that must
// have a recipient; it may be nil.
func NewProducer(n *Node, t Timing, requireGroups func(topic string) []string, rand io.Reader) (*Producer, error) {
	return &Producer{}, nil
}

// A Draft is an epoch that waits for its grant to be acknowledged. Its secrets are gone
// but for the tree roots.
type Draft struct {
	Topics     []string
	Epoch      uint32
	Start      time.Time
	UseBy      time.Time
	Recipients []Recipient
	Records    []Record // one for each partition of GrantsTopic
}

// Prepare makes one draft for each set of topics that have equal recipients. A topic that
// cannot be granted is in refused, with an error wrapping abi.StatusNoRecipient or
// StatusNotEntitled. err (randomness, encoding) leaves nothing behind.
func (p *Producer) Prepare(topics []string, r *Roster, now time.Time) (drafts []*Draft, refused map[string]error, err error) {
	return nil, nil, nil
}

// Activate starts the draft's epochs once all of its records are acknowledged; they
// replace what their topics had. appended is the broker's append time of one of the
// records (zero: not known); when it is off by more than the allowed skew the error wraps
// abi.StatusClockSkew and the draft is wiped. A draft of an earlier instance is refused.
func (p *Producer) Activate(d *Draft, appended, now time.Time) error { return nil }

// Restart ends the instance: a record was not acknowledged within 30 s, the clock jumped,
// or the process resumed. Everything is wiped and a new instance id drawn. It returns the
// kids to erase.
func (p *Producer) Restart() ([]abi.Kid, error) { return nil, nil }

// Lease cuts a subtree that nobody else has. The error wraps abi.StatusNeedLease when the
// topic has no epoch that can be used now: Prepare and Activate first.
func (p *Producer) Lease(topic string, now time.Time) (abi.Lease, error) { return abi.Lease{}, nil }

// NoteSealed counts bytes sealed under the topic's epoch, for the limit of 2^40.
func (p *Producer) NoteSealed(topic string, bytes uint64) {}

// Due returns the topics whose epoch must be replaced now: by age where records flowed
// since the last rotation, by use, by a change of the roster (PROTOCOL.md §2.7.4). It
// returns quickly and is called at least every Lead/4.
func (p *Producer) Due(r *Roster, now time.Time) []string { return nil }

// Retire wipes what was replaced and what is past its use_by, and returns the kids to
// erase from the data planes.
func (p *Producer) Retire(now time.Time) []abi.Kid { return nil }

// Wipe overwrites everything, at shutdown.
func (p *Producer) Wipe() {}

// Epochs shows the live epochs, by topic.
func (p *Producer) Epochs() []EpochView { return nil }

// An EpochView describes one live epoch of one topic.
type EpochView struct {
	Topic      string
	Instance   wire.InstanceID
	Epoch      uint32
	Kid        abi.Kid
	Start      time.Time
	UseBy      time.Time
	Recipients int
	Leases     int // cut so far
}
