package vectors

import (
	"bytes"
	"encoding/binary"
	"encoding/pem"
	"errors"
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
	j := &judge{state: state, roster: keyring.NewRoster(state, keyring.DefaultTiming())}
	j.consumer = keyring.NewConsumer(state, keyring.DefaultTiming(), bytes.NewReader(v.PrekeySeed))
	_, err = j.consumer.NewPrekey(at)
	must(err)
	return j
}

// read gives the node one record.
func (j *judge) read(r *ControlRecord, offset int64) error {
	now := time.UnixMilli(int64(r.Now))
	if r.Topic == "roster" {
		return j.roster.Apply(r.Key, r.Value, now)
	}
	_, err := j.consumer.ApplyGrant(r.Partition, offset, r.Key, r.Value, j.roster, now)
	return err
}

// kindOf is the kind that an error of the keyring is.
func kindOf(err error) Kind {
	for _, k := range []struct {
		is   error
		kind Kind
	}{
		{keyring.ErrOtherRealm, OtherRealm},
		{keyring.ErrUnknownCredential, UnknownCredential},
		{keyring.ErrRollback, Rollback},
		{keyring.ErrDuplicateNode, Conflict},
		{keyring.ErrKidConflict, Conflict},
		{keyring.ErrConflict, Conflict},
		{keyring.ErrUnauthentic, Unauthentic},
		{wire.ErrMalformed, Malformed},
		{abi.StatusNotEntitled, NotEntitled},
		{abi.StatusClockSkew, Clock},
		{abi.StatusErased, Erased},
	} {
		if errors.Is(err, k.is) {
			return k.kind
		}
	}
	return Kind("no kind: " + err.Error())
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
			kind := Taken
			err := j.read(&v.Record, int64(len(v.Before)))
			if err != nil {
				kind = kindOf(err)
			}
			if kind != v.Want.Kind {
				t.Errorf("%s (%v), want %s", kind, err, v.Want.Kind)
			}
			now := time.UnixMilli(int64(v.Record.Now))
			if v.Want.Recipients != nil {
				recipients, err := j.roster.Recipients("orders", nil, now)
				got := []Bytes{}
				for _, r := range recipients {
					got = append(got, Bytes(r.Node[:]))
				}
				if err != nil || !slices.EqualFunc(got, v.Want.Recipients, func(a, b Bytes) bool { return bytes.Equal(a, b) }) {
					t.Errorf("recipients %x (%v), want %x", got, err, v.Want.Recipients)
				}
			}
			held := []Bytes{}
			for _, k := range j.state.View().Kids {
				held = append(held, Bytes(k.Kid[:]))
			}
			if !slices.EqualFunc(held, v.Want.Kids, func(a, b Bytes) bool { return bytes.Equal(a, b) }) {
				t.Errorf("holds kids %x, want %x", held, v.Want.Kids)
			}
		})
	}
}
