package vectors

import (
	"bytes"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// A judge is a vector's reading node.
type judge struct {
	state    *keyring.State
	roster   *keyring.Roster
	consumer *keyring.Consumer
	before   []ControlRecord
	shares   []Bytes // kids that the last request got
}

func newJudge(t *testing.T, v *Control) *judge {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	state, err := keyring.NewState(bytes.NewReader(v.Identity))
	must(err)
	chain := append(bytes.Clone(v.Root), byte(len(v.Chain)))
	for _, c := range v.Chain {
		chain = append(binary.BigEndian.AppendUint16(chain, uint16(len(c))), c...)
	}
	at := time.UnixMilli(int64(v.PrekeyAt))
	must(state.Node().Install(pem.EncodeToMemory(&pem.Block{Type: "KX1 CREDENTIAL", Bytes: chain}), at))
	j := &judge{state: state, roster: keyring.NewRoster(state, keyring.DefaultTiming()), before: v.Before}
	j.consumer = keyring.NewConsumer(state, keyring.DefaultTiming(), bytes.NewReader(v.PrekeySeed))
	_, err = j.consumer.NewPrekey(at)
	must(err)
	return j
}

// read gives the node one record.
func (j *judge) read(r *ControlRecord, offset int64) error {
	now := time.UnixMilli(int64(r.Now))
	var err error
	switch t := wire.Type(r.Key[0]); {
	case r.Topic == "roster":
		if err = j.roster.Apply(r.Key, r.Value, now); err == nil {
			_, err = j.consumer.NoteRoster(r.Key, r.Value, now)
		}
		if err == nil && t == wire.TypeEpochRequest {
			err = j.share(r, now)
		}
	case t == wire.TypeKeyShare:
		_, err = j.consumer.ApplyShare(r.Partition, offset, r.Key, r.Value, j.roster, now)
	default:
		_, err = j.consumer.ApplyGrant(r.Partition, offset, r.Key, r.Value, j.roster, now)
	}
	return err
}

// share decides on a request, and makes what it grants.
func (j *judge) share(r *ControlRecord, now time.Time) error {
	tasks, err := j.consumer.Share(r.Key, r.Value, j.roster, now)
	j.shares = nil
	for _, t := range tasks {
		rec, err := j.consumer.MakeShare(t, j.before[t.Source].Value, now)
		if err != nil {
			return err
		}
		if k, err := wire.ParseKeyShare(rec.Value); err != nil || keyring.KidOf(k.Commit()) != t.Kid || k.Recipient != t.Recipient {
			return fmt.Errorf("share of kid %x: %v", t.Kid, err)
		}
		j.shares = append(j.shares, Bytes(t.Kid[:]))
	}
	return err
}

// progress tells the node how far its group has read, and has it erase what is due.
func (j *judge) progress(p *ControlProgress) {
	now := time.UnixMilli(int64(p.Now))
	j.consumer.NoteEnds("orders", p.Ends, now)
	j.consumer.NoteProgress("orders", keyring.Progress{Groups: map[string]map[int32]int64{"billing": p.Committed}, Known: []string{"billing"}}, now)
	j.consumer.Tick(now)
}

// kindOf is the kind that an error of the keyring is.
func kindOf(err error) Kind {
	if err == nil {
		return Taken
	}
	for _, k := range []struct {
		is   error
		kind Kind
	}{
		{keyring.ErrOtherRealm, OtherRealm},
		{keyring.ErrUnknownCredential, UnknownCredential},
		{keyring.ErrUnauthentic, Unauthentic},
		{keyring.ErrRollback, Rollback},
		{keyring.ErrOldLineage, Rollback},
		{keyring.ErrDuplicateNode, Conflict},
		{keyring.ErrKidConflict, Conflict},
		{keyring.ErrConflict, Conflict},
		{keyring.ErrFork, Conflict},
		{keyring.ErrSecondUse, Conflict},
		{keyring.ErrOmitted, Omitted},
		{wire.ErrMalformed, Malformed},
		{abi.StatusNotEntitled, NotEntitled},
		{keyring.ErrNoTicket, NotEntitled},
		{abi.StatusClockSkew, Clock},
		{abi.StatusErased, Erased},
	} {
		if errors.Is(err, k.is) {
			return k.kind
		}
	}
	return Kind("no kind: " + err.Error())
}

func equal(a, b []Bytes) bool {
	return slices.EqualFunc(a, b, func(a, b Bytes) bool { return bytes.Equal(a, b) })
}

func TestControlRecordsAreJudgedAsPublished(t *testing.T) {
	all, err := Controls()
	if err != nil {
		t.Fatal(err)
	}
	for i := range all {
		v := &all[i]
		t.Run(v.Name, func(t *testing.T) {
			j := newJudge(t, v)
			for i := range v.Before {
				if err := j.read(&v.Before[i], int64(i)); err != nil {
					t.Fatalf("record %d before: %v", i, err)
				}
			}
			for i := range v.Progress {
				j.progress(&v.Progress[i])
			}
			j.shares = nil
			err := j.read(&v.Record, int64(len(v.Before)))
			if kind := kindOf(err); kind != v.Want.Kind {
				t.Errorf("%s (%v), want %s", kind, err, v.Want.Kind)
			}
			now := time.UnixMilli(int64(v.Record.Now))
			if v.Want.Recipients != nil {
				recipients, err := j.roster.Recipients("orders", nil, now)
				got := []Bytes{}
				for _, r := range recipients {
					got = append(got, Bytes(r.Node[:]))
				}
				if err != nil || !equal(got, v.Want.Recipients) {
					t.Errorf("recipients %x (%v), want %x", got, err, v.Want.Recipients)
				}
			}
			if !equal(j.shares, v.Want.Shares) {
				t.Errorf("shares kids %x, want %x", j.shares, v.Want.Shares)
			}
			var findings []Kind
			// What is ahead of this node's roster is found when that had time to follow.
			for _, err := range j.consumer.Findings(j.roster, now.Add(2*time.Hour)) {
				findings = append(findings, kindOf(err))
			}
			if !slices.Equal(findings, v.Want.Findings) {
				t.Errorf("findings %q, want %q", findings, v.Want.Findings)
			}
			held := []Bytes{}
			for _, k := range j.state.View().Kids {
				held = append(held, Bytes(k.Kid[:]))
			}
			if !equal(held, v.Want.Kids) {
				t.Errorf("holds kids %x, want %x", held, v.Want.Kids)
			}
		})
	}
}
