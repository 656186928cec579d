package keyring

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
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
	node        Node
	grantsNext  int64 // next offset of the own grants partition to apply; -1: its start
	prekeys     []*prekey
	secrets     map[abi.Kid]*secret
	erased      map[abi.Kid]uint64 // remembered until, Unix ms
	erasedTotal uint64
	marks       map[wire.NodeID]mark
	authority   authorityMark
	renewal     *renewal // under way, nil for none
	firstBundle uint64   // created of the node's first bundle, Unix ms; 0 before it

	version uint64
}

// An authorityMark is the highest AuthorityState seen, zeros before the first. It is part of
// the State, so that a broker cannot roll revocations back across a restart.
type authorityMark struct {
	seq    uint64
	digest wire.Digest
}

// A renewal is a request for the next credential, and the key it is for. Both reach the disk
// before the request is sent, so that a retry sends the same bytes (PROTOCOL.md §2.12).
type renewal struct {
	seed    secretKey
	request wire.Renewal
}

// A prekey is an X-Wing key pair (PROTOCOL.md §2.2). Times are Unix ms, 0 for not yet.
type prekey struct {
	seed       secretKey
	pub        []byte        // 1216 bytes, derived from seed
	id         wire.PrekeyID // derived from pub
	credential wire.Serial   // that the bundle was signed under
	generation uint64
	created    uint64
	notAfter   uint64
	readBack   uint64 // when its bundle was first seen on the roster
	superseded uint64 // when a newer one was
	mark       int64  // offset that the grants reader must reach; -1: not known yet
}

// A secret is one topic secret and what decides about its end. Times are Unix ms, 0 for
// not yet.
type secret struct {
	kid       abi.Kid
	ts        secretKey
	realm     wire.RealmID
	producer  wire.NodeID
	instance  wire.InstanceID
	epoch     uint32
	start     uint64
	useBy     uint64
	header    wire.Digest // of the header that brought it; a second one is refused
	source    int64       // offset in the own grants partition of the record with that header; -1: not known
	topic     string
	firstSeen uint64
	endsAt    uint64          // when ends was noted
	ends      map[int32]int64 // E_p by partition; shared with other secrets, never changed
	pastAt    uint64          // when every group was first found past it

	scans map[int32]scanned // what is known of the records below E_p, in memory only
	past  map[string]bool   // groups that are known to have read all of it, in memory only
}

// NewState draws a new identity. It has no credential until Node().Install.
func NewState(rand io.Reader) (*State, error) {
	s := emptyState()
	if err := readAll(rand, s.node.seed[:]); err != nil {
		return nil, fmt.Errorf("identity key: %w", err)
	}
	return s, nil
}

func emptyState() *State {
	return &State{
		grantsNext: -1,
		secrets:    map[abi.Kid]*secret{},
		erased:     map[abi.Kid]uint64{},
		marks:      map[wire.NodeID]mark{},
	}
}

// Version grows with every change that must reach the disk.
func (s *State) Version() uint64 { return s.version }

// Node is the identity in the state.
func (s *State) Node() *Node { return &s.node }

// Wipe overwrites every secret in memory. The state is of no use after it.
func (s *State) Wipe() {
	clear(s.node.seed[:])
	if s.renewal != nil {
		clear(s.renewal.seed[:])
	}
	for _, p := range s.prekeys {
		clear(p.seed[:])
	}
	for _, x := range s.secrets {
		clear(x.ts[:])
	}
}

// context is ctx(topic) of the secret's epoch.
func (x *secret) context() string {
	return topicContext(&wire.GrantHeader{Realm: x.realm, Producer: x.producer, Instance: x.instance, Epoch: x.epoch}, x.topic)
}

func (s *State) sortedSecrets() []*secret {
	out := make([]*secret, 0, len(s.secrets))
	for _, x := range s.secrets {
		out = append(out, x)
	}
	slices.SortFunc(out, func(a, b *secret) int { return bytes.Compare(a.kid[:], b.kid[:]) })
	return out
}

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

	FirstBundle     time.Time     // when the node's first bundle was made, zero before it
	AuthoritySeq    uint64        // of the highest AuthorityState seen, 0 before the first
	AuthorityDigest wire.Digest   // of its body
	Renewal         *wire.Renewal // the request that is under way, nil for none
	Marks           int           // nodes whose generations are remembered
}

// A PrekeyView describes one prekey whose seed is held.
type PrekeyView struct {
	ID           wire.PrekeyID
	Generation   uint64
	Created      time.Time
	NotAfter     time.Time
	ReadBack     bool      // seen on the roster
	Superseded   bool      // a newer one was seen on the roster
	SupersededAt time.Time // when it was, zero before
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
	EndsNoted bool            // its end offsets are known
	Ends      map[int32]int64 // E_p by partition, once they are: every value of the epoch is below
	Past      bool            // every group is past it; erased Window later
	PastAt    time.Time       // when that was first found, zero before
	Source    int64           // offset in the own grants partition of the record that brought it, -1 unknown
}

// noted converts a time that is 0 for not yet.
func noted(ms uint64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return fromMs(ms)
}

// View shows what is held, without secrets.
func (s *State) View() View {
	v := View{
		Realm:       s.node.Realm(),
		Node:        s.node.ID(),
		Credential:  s.node.Credential(),
		GrantsNext:  s.grantsNext,
		ErasedKids:  len(s.erased),
		ErasedTotal: s.erasedTotal,
		FirstBundle: noted(s.firstBundle), AuthoritySeq: s.authority.seq, AuthorityDigest: s.authority.digest, Marks: len(s.marks),
	}
	if s.renewal != nil {
		request := s.renewal.request
		v.Renewal = &request
	}
	for _, p := range s.prekeys {
		v.Prekeys = append(v.Prekeys, PrekeyView{
			ID: p.id, Generation: p.generation, Created: fromMs(p.created), NotAfter: fromMs(p.notAfter),
			ReadBack: p.readBack != 0, Superseded: p.superseded != 0, SupersededAt: noted(p.superseded),
		})
	}
	for _, x := range s.secrets {
		v.Kids = append(v.Kids, KidView{
			Kid: x.kid, Topic: x.topic, Producer: x.producer, Instance: x.instance, Epoch: x.epoch,
			Start: fromMs(x.start), UseBy: fromMs(x.useBy), FirstSeen: fromMs(x.firstSeen),
			EndsNoted: x.endsAt != 0, Ends: maps.Clone(x.ends), Past: x.pastAt != 0, PastAt: noted(x.pastAt), Source: x.source,
		})
	}
	slices.SortFunc(v.Kids, func(a, b KidView) int {
		return cmp.Or(a.Start.Compare(b.Start), cmp.Compare(a.Topic, b.Topic), bytes.Compare(a.Kid[:], b.Kid[:]))
	})
	return v
}
