// Package exposure says what would be readable if a node's state leaked: which epochs of
// which topics, until when each stays so, what its prekeys open of what is still to come,
// and why the promise of abi/PROTOCOL.md §1 does not hold where it does not. It goes by the
// rules of PROTOCOL.md §2.8 and the bounds of §2.17.
//
// It does no I/O and reads no clock: a view of a state, periods and a time in, a report
// out. It sees no secret.
package exposure

import (
	"cmp"
	"encoding/hex"
	"iter"
	"slices"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// A Report is what a thief of one state file could read. Times are UTC; identifiers are
// hexadecimal.
type Report struct {
	AsOf  time.Time `json:"as_of"`
	Realm string    `json:"realm,omitempty"` // empty before enrolment
	Node  string    `json:"node,omitempty"`

	P          Seconds     `json:"p_s"`        // the window that the timing promises
	Backward   Seconds     `json:"backward_s"` // its part before the oldest record in flight
	Forward    Seconds     `json:"forward_s"`  // its part after the leak
	Holds      bool        `json:"holds"`      // there are no conditions
	Conditions []Condition `json:"conditions"` // why more than P is exposed

	From    time.Time `json:"from,omitzero"`  // the earliest start of what is readable; zero: nothing is
	Until   time.Time `json:"until,omitzero"` // the latest end of what is or will be readable, with the next prekey delivered
	Epochs  []Epoch   `json:"epochs"`         // by topic secrets, by topic and start
	Prekeys []Prekey  `json:"prekeys"`        // oldest first

	// Sending are the epochs in which a running node seals, or is ready to: its memory opens
	// what it seals in them from AsOf on, and nothing that it sealed before.
	Sending []Epoch `json:"sending,omitempty"`

	Erased     uint64 `json:"erased"`     // topic secrets gone in the life of the state
	Remembered int    `json:"remembered"` // of them, those whose kid is remembered, so that no grant brings it back
	Grants     bool   `json:"grants"`     // grants were looked at, so Prekey.Epochs is complete as far as they go
	Offsets    bool   `json:"offsets"`    // the topics were looked at, so Epoch.Offsets is complete
	Produces   bool   `json:"produces"`   // the node also seals: none of that state is in the file
	Running    bool   `json:"running"`    // a running node was looked at, its memory too, so Sending is complete
}

// Seconds is a duration as JSON has it.
type Seconds float64

// String is the duration as Go writes it.
func (s Seconds) String() string {
	return time.Duration(float64(s) * float64(time.Second)).Round(time.Millisecond).String()
}

// A Condition is a reason why more than P is exposed, or for longer.
type Condition struct {
	Name string `json:"name"` // one of the constants below
	Text string `json:"text"`
}

// Names of conditions.
const (
	NoGroups   = "no groups"   // nothing but the hard cap erases (PROTOCOL.md §2.8.7)
	Replay     = "replay"      // P is over 10 minutes because the window is wide
	LongPeriod = "long period" // P is over 10 minutes for another reason
	Offline    = "offline"     // prekeys and erasures that are due did not happen
	Unconsumed = "unconsumed"  // groups lag, have yet to start, or commit nothing
)

// An Epoch is one topic's epoch that the leak opens.
type Epoch struct {
	Kid      string    `json:"kid"`
	Topic    string    `json:"topic"`
	Producer string    `json:"producer"`
	Instance string    `json:"instance"`
	Epoch    uint32    `json:"epoch"`
	Start    time.Time `json:"start"`
	UseBy    time.Time `json:"use_by"`

	// Below is, by partition, the offset below which all of the epoch's records are. Absent
	// until it is noted, and for epochs by a prekey.
	Below map[int32]int64 `json:"below,omitempty"`

	// Offsets is, by partition, exactly where the epoch's records are, where the topics were
	// looked at: see Report.Offsets.
	Offsets map[int32]Range `json:"offsets,omitempty"`

	Stays *Stay `json:"stays,omitempty"` // of the topic secret; nil for epochs by a prekey
}

// A Stay says when a topic secret goes.
type Stay struct {
	Rule     string    `json:"rule"`     // one of the constants below
	Earliest time.Time `json:"earliest"` // when it may go
	Latest   time.Time `json:"latest"`   // when it must; sooner where the topic's retention is shorter than the hard cap
	Overdue  bool      `json:"overdue"`  // a running node would have erased it before AsOf
}

// Rules of Stay (PROTOCOL.md §2.8.4).
const (
	RuleWindow     = "window"     // every group is past it: W later
	RuleConsumed   = "consumed"   // W after every group is past it, at most the hard cap
	RuleHardCap    = "hard cap"   // the credential names no group
	RuleCredential = "credential" // the credential covers it no more: at once
)

// A Range is where an epoch's records are in one partition.
type Range struct {
	First   int64 `json:"first"` // offset of the first
	Last    int64 `json:"last"`  // and of the last
	Records int64 `json:"records"`
}

// A Prekey is a held key to grants, of before and after the leak.
type Prekey struct {
	ID         string    `json:"id"`
	Generation uint64    `json:"generation"`
	Created    time.Time `json:"created"`
	Superseded time.Time `json:"superseded,omitzero"` // when a newer one was read back; zero: it is in use

	// Until is the end of the last epoch whose grant it opens when bundles are delivered
	// (PROTOCOL.md §3, C4) and producers use the same timing, Worst the same when they are
	// not, or this node stays away (C4'). Records sealed between Created and Until may be
	// readable.
	Until time.Time `json:"until"`
	Worst time.Time `json:"worst"`

	// ErasedFrom is when the seed may be erased, once the reader of grants passed a point
	// written after that.
	ErasedFrom time.Time `json:"erased_from"`
	Overdue    bool      `json:"overdue"` // a running node would have erased it, or superseded it, before AsOf

	Epochs []Epoch `json:"epochs,omitempty"` // those whose grants were looked at
}

// patience is how long a running node may take for what is due: to write and read back a
// bundle, or to ask for offsets.
const patience = time.Minute

// Of reports on a state as of a time. grants are parts of EpochGrants as the broker has them,
// whoever they are for; nil is that none were looked at, and then epochs by prekeys are known
// by their times only. Their signatures are not checked, as a thief would not.
func Of(v keyring.View, t keyring.Timing, grants []*wire.Grant, asOf time.Time) (*Report, error) {
	if err := t.Validate(); err != nil {
		return nil, err
	}
	r := &Report{
		AsOf: asOf.UTC(), P: Seconds(t.P().Seconds()), Backward: Seconds(t.Backward().Seconds()), Forward: Seconds(t.Forward().Seconds()),
		Conditions: []Condition{}, Epochs: []Epoch{}, Prekeys: []Prekey{},
		Erased: v.ErasedTotal, Remembered: v.ErasedKids, Grants: grants != nil,
	}
	if v.Credential != nil {
		r.Realm, r.Node = v.Realm.String(), v.Node.String()
		r.Produces = v.Credential.Roles.Has(wire.RoleProduce)
	}
	for _, k := range v.Kids {
		e := Epoch{
			Kid: kidText(k.Kid), Topic: k.Topic, Producer: k.Producer.String(), Instance: k.Instance.String(), Epoch: k.Epoch,
			Start: k.Start.UTC(), UseBy: k.UseBy.UTC(), Below: k.Ends, Stays: stay(&k, v.Credential, t, asOf),
		}
		r.Epochs = append(r.Epochs, e)
		r.widen(e.Start, e.UseBy)
	}
	sortEpochs(r.Epochs)
	for i := range v.Prekeys {
		p := prekey(v.Prekeys, i, v.Credential, t, asOf)
		p.Epochs = wrapped(grants, v.Prekeys[i].ID)
		r.Prekeys = append(r.Prekeys, p)
		r.widen(p.Created, p.Until)
		for _, e := range p.Epochs {
			r.widen(e.Start, e.UseBy)
		}
	}
	r.conditions(v, t)
	r.Holds = len(r.Conditions) == 0
	return r, nil
}

// AddShares adds the epochs of KeyShares to the prekeys that open them, whoever they are for.
// They may be older than the prekey (PROTOCOL.md §2.10). Signatures are not checked, as a
// thief would not.
func (r *Report) AddShares(shares []*wire.KeyShare) {
	for i := range r.Prekeys {
		p := &r.Prekeys[i]
		for _, share := range shares {
			kid := kidText(keyring.KidOf(share.Commit()))
			if share.Prekey.String() != p.ID || slices.ContainsFunc(p.Epochs, func(e Epoch) bool { return e.Kid == kid }) {
				continue
			}
			h := &share.Proof.Header
			e := Epoch{
				Kid: kid, Topic: share.Topic, Producer: h.Producer.String(), Instance: h.Instance.String(), Epoch: h.Epoch,
				Start: time.UnixMilli(int64(h.Start)).UTC(), UseBy: time.UnixMilli(int64(h.UseBy)).UTC(),
			}
			p.Epochs = append(p.Epochs, e)
			r.widen(e.Start, e.UseBy)
		}
		sortEpochs(p.Epochs)
	}
}

// AddOffsets adds where the records of each epoch are, by kid and partition.
func (r *Report) AddOffsets(of func(kid string) map[int32]Range) {
	r.Offsets = true
	for e := range r.epochs() {
		e.Offsets = of(e.Kid)
	}
}

// Topics lists those of all epochs in the report, sorted.
func (r *Report) Topics() []string {
	var names []string
	for e := range r.epochs() {
		names = append(names, e.Topic)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// epochs goes through all in the report, whatever opens them.
func (r *Report) epochs() iter.Seq[*Epoch] {
	return func(yield func(*Epoch) bool) {
		lists := [][]Epoch{r.Epochs, r.Sending}
		for i := range r.Prekeys {
			lists = append(lists, r.Prekeys[i].Epochs)
		}
		for _, list := range lists {
			for i := range list {
				if !yield(&list[i]) {
					return
				}
			}
		}
	}
}

// AddSending adds the epochs that a running node has in memory (PROTOCOL.md §3, C2).
func (r *Report) AddSending(live []keyring.EpochView) {
	r.Running = true
	for i := range live {
		v := &live[i]
		if !v.UseBy.After(r.AsOf) {
			continue
		}
		r.Sending = append(r.Sending, Epoch{
			Kid: kidText(v.Kid), Topic: v.Topic, Producer: r.Node, Instance: v.Instance.String(), Epoch: v.Epoch,
			Start: v.Start.UTC(), UseBy: v.UseBy.UTC(),
		})
		r.widen(later(r.AsOf, v.Start.UTC()), v.UseBy.UTC())
	}
	sortEpochs(r.Sending)
}

func (r *Report) widen(from, until time.Time) {
	if r.From.IsZero() || from.Before(r.From) {
		r.From = from
	}
	if until.After(r.Until) {
		r.Until = until
	}
}

// wrapped lists the epochs of the grants with a wrap for a prekey.
func wrapped(grants []*wire.Grant, id wire.PrekeyID) []Epoch {
	var out []Epoch
	seen := map[abi.Kid]bool{}
	for _, g := range grants {
		if !slices.ContainsFunc(g.Wraps, func(w wire.Wrap) bool { return w.Prekey == id }) {
			continue
		}
		h := &g.Header
		for _, t := range h.Topics {
			kid := keyring.KidOf(t.Commit)
			if seen[kid] {
				continue
			}
			seen[kid] = true
			out = append(out, Epoch{
				Kid: kidText(kid), Topic: t.Name, Producer: h.Producer.String(), Instance: h.Instance.String(), Epoch: h.Epoch,
				Start: time.UnixMilli(int64(h.Start)).UTC(), UseBy: time.UnixMilli(int64(h.UseBy)).UTC(),
			})
		}
	}
	sortEpochs(out)
	return out
}

func sortEpochs(list []Epoch) {
	slices.SortFunc(list, func(a, b Epoch) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), a.Start.Compare(b.Start), cmp.Compare(a.Kid, b.Kid))
	})
}

func kidText(kid abi.Kid) string { return hex.EncodeToString(kid[:]) }
