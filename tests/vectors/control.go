package vectors

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

//go:embed control/*.json
var controlData embed.FS

// A Control is one record of a control topic as one node reads it, and what becomes of it
// (PROTOCOL.md §2.19). The corpus says for every refusal what it refuses. Byte strings are
// hexadecimal, times Unix ms.
type Control struct {
	Name    string `json:"-"` // of the file, without .json
	Comment string `json:"comment"`
	Refusal string `json:"refusal,omitempty"` // of PROTOCOL.md §2.19; empty where the record is taken

	// The node that reads, a consumer. It made one prekey, at PrekeyAt.
	Identity   Bytes   `json:"identity"` // Ed25519 seed
	Root       Bytes   `json:"root"`     // the realm's root public key
	Chain      []Bytes `json:"chain"`    // its Credential, then its issuer's
	PrekeySeed Bytes   `json:"prekeySeed"`
	PrekeyAt   uint64  `json:"prekeyAt"`

	// What it read before, without an error, what the broker said of its groups then, and at
	// last the record.
	Before   []ControlRecord   `json:"before,omitempty"`
	Progress []ControlProgress `json:"progress,omitempty"`
	Record   ControlRecord     `json:"record"`

	Want ControlWant `json:"want"`
}

// A ControlRecord is one record and when it is read.
type ControlRecord struct {
	Topic     string `json:"topic"` // "roster" or "grants"
	Partition int32  `json:"partition,omitempty"`
	Key       Bytes  `json:"key"`
	Value     Bytes  `json:"value"`
	Now       uint64 `json:"now"`
}

// A ControlProgress is the end offsets of "orders" by partition, and those that the group
// "billing" has committed, at a time (PROTOCOL.md §2.8.4).
type ControlProgress struct {
	Ends      map[int32]int64 `json:"ends"`
	Committed map[int32]int64 `json:"committed"`
	Now       uint64          `json:"now"`
}

// A ControlWant is an outcome: a kind of failure, and what holds afterwards.
type ControlWant struct {
	Kind       Kind    `json:"kind"`
	Recipients []Bytes `json:"recipients,omitempty"` // node ids of those that a grant of "orders" would be wrapped for
	Kids       []Bytes `json:"kids,omitempty"`       // that the node can open
	Shares     []Bytes `json:"shares,omitempty"`     // kids that it gives to whoever asks by the record
	Findings   []Kind  `json:"findings,omitempty"`   // alarms of comparing grants (PROTOCOL.md §2.14)
}

// A Kind says in one word why a record was refused.
type Kind string

// Kinds of outcomes (PROTOCOL.md §2.19).
const (
	Taken             Kind = "taken"              // nothing wrong, whatever it changed
	Malformed         Kind = "malformed"          // the bytes are not an encoding, or stand under another key
	Unauthentic       Kind = "unauthentic"        // a signature, commitment, wrap or chain does not verify
	OtherRealm        Kind = "other realm"        // a grant of another realm: passed over
	UnknownCredential Kind = "unknown credential" // the signer is not on the roster yet
	NotEntitled       Kind = "not entitled"       // the signer may not do that, or not then
	Clock             Kind = "clock"              // from the future
	Rollback          Kind = "rollback"           // older than what was seen
	Conflict          Kind = "conflict"           // contradicts what was seen first
	Erased            Kind = "erased"             // the key is gone and stays gone
	Omitted           Kind = "omitted"            // a finding only: no wrap for a node that should have one
)

var kinds = []Kind{Taken, Malformed, Unauthentic, OtherRealm, UnknownCredential, NotEntitled, Clock, Rollback, Conflict, Erased, Omitted}

// Controls returns the corpus of control records in the order of its names, under the same
// rules as All.
func Controls() ([]Control, error) {
	return loadFolder(controlData, "control", func(v *Control, name string) error {
		v.Name = name
		return v.check()
	})
}

// loadFolder decodes the vectors of a folder. done names and checks each.
func loadFolder[V any](files fs.FS, folder string, done func(v *V, name string) error) ([]V, error) {
	names, err := fs.Glob(files, folder+"/*.json")
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("the corpus %s is empty", folder)
	}
	all := make([]V, len(names))
	for i, name := range names {
		b, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, err
		}
		d := json.NewDecoder(bytes.NewReader(b))
		d.DisallowUnknownFields()
		if err = d.Decode(&all[i]); err == nil {
			err = done(&all[i], strings.TrimSuffix(path.Base(name), ".json"))
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return all, nil
}

func (v *Control) check() error {
	for _, k := range append(v.Want.Findings, v.Want.Kind) {
		if !slices.Contains(kinds, k) {
			return fmt.Errorf("unknown kind %q", k)
		}
	}
	switch {
	case v.Comment == "":
		return errors.New("no comment")
	case len(v.Identity) != 32 || len(v.Root) != 32 || len(v.PrekeySeed) != 32 || len(v.Chain) == 0:
		return errors.New("the reading node is not complete")
	}
	for _, r := range append(v.Before, v.Record) {
		if r.Topic != "roster" && r.Topic != "grants" {
			return fmt.Errorf("unknown topic %q", r.Topic)
		}
	}
	return nil
}
