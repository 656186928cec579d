package keyring

import (
	"io"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

// A State is everything that a node keeps across restarts (PROTOCOL.md §2.13): its
// identity, credential chain, prekeys, topic secrets, erased kids, high-water marks and
// its place in the grants topic. Never a producer's sending state.
//
// A Roster and a Consumer made from a State work on it, so Marshal at any moment holds
// what they have decided. The agent writes it whenever Version has moved on.
type State struct {
	node    Node
	version uint64
}

// NewState draws a new identity. It has no credential until Node().Install.
func NewState(rand io.Reader) (*State, error) { return &State{}, nil }

// ParseState reads exactly one encoded state. It copies: the caller wipes b.
func ParseState(b []byte) (*State, error) { return &State{}, nil }

// Marshal encodes the state into one fresh slice. It holds secrets: the caller wipes it
// with clear once it is written (mode 0600).
func (s *State) Marshal() []byte { return nil }

// Version grows with every change that must reach the disk.
func (s *State) Version() uint64 { return s.version }

// Node is the identity in the state.
func (s *State) Node() *Node { return &s.node }

// Wipe overwrites every secret in memory. The state is of no use after it.
func (s *State) Wipe() {}

// View shows what is held, without secrets.
func (s *State) View() View { return View{} }

// A View is what may be printed of a State.
type View struct {
	Realm       wire.RealmID
	Node        wire.NodeID
	Credential  *wire.Credential // nil before enrolment
	GrantsNext  int64            // next offset of the own grants partition, -1 before the first
	Prekeys     []PrekeyView     // oldest first
	Kids        []KidView        // held topic secrets, by start
	ErasedKids  int              // remembered
	ErasedTotal uint64           // topic secrets erased in the life of the state
}

// A PrekeyView describes one prekey whose seed is held.
type PrekeyView struct {
	ID         wire.PrekeyID
	Generation uint64
	Created    time.Time
	NotAfter   time.Time
	ReadBack   bool // seen on the roster
	Superseded bool // a newer one was seen on the roster
}

// A KidView describes one topic secret that is held.
type KidView struct {
	Kid       abi.Kid
	Topic     string
	Producer  wire.NodeID
	Instance  wire.InstanceID
	Epoch     uint32
	Start     time.Time
	UseBy     time.Time
	FirstSeen time.Time
	EndsNoted bool // its end offsets are known
	Past      bool // every group is past it; erased Window later
}
