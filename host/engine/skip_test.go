package engine

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"maps"
	"strings"
	"testing"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
	"github.com/wasm-e2ee/wasm-e2ee/tests/artifact"
)

// newSkipping is an engine that passes over what will never open, or history alone, and what
// it logs.
func newSkipping(t *testing.T, keys Keys, unreadable bool) (*Engine, *bytes.Buffer) {
	t.Helper()
	logged := &bytes.Buffer{}
	e, err := New(t.Context(), Options{Module: artifact.Module(t), Config: abi.Config{MaxDecompressed: 1 << 20}, CacheDir: cacheDir,
		Instances: 1, Log: slog.New(slog.NewTextHandler(logged, nil)), SkipUnreadable: unreadable}, keys)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return e, logged
}

// marker is what takes the place of a batch.
func marker(t *testing.T, batch []byte) []byte {
	t.Helper()
	m, err := kafka.AppendSkip(nil, batch)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func seal(t *testing.T, e *Engine, topic string, offset int64, values ...string) []byte {
	t.Helper()
	var all [][]byte
	for _, v := range values {
		all = append(all, []byte(v))
	}
	sealed, err := e.Seal(t.Context(), topic, 0, batch(all...))
	if err != nil {
		t.Fatal(err)
	}
	return at(sealed, offset)
}

// damaged are batches that never open, by why, each of three records at offset 10.
func damaged(t *testing.T, e *Engine) map[abi.Status][]byte {
	t.Helper()
	edit := func(f func(b []byte)) []byte {
		b := seal(t, e, "orders", 10, "x", "y", "z")
		f(b)
		return b
	}
	checked := func(f func(b []byte)) []byte {
		b := edit(f)
		kafka.SetBatchCRC(b)
		return b
	}
	old := bytes.Clone(edit(func(b []byte) { b[16] = 1 }))
	return map[abi.Status][]byte{
		abi.StatusUnauthentic:      checked(func(b []byte) { b[len(b)-30] ^= 1 }),
		abi.StatusCorrupt:          edit(func(b []byte) { b[len(b)-30] ^= 1 }),
		abi.StatusPlaintext:        at(batch([]byte("injected"), []byte("y"), []byte("z")), 10),
		abi.StatusMalformed:        checked(func(b []byte) { binary.BigEndian.PutUint32(b[57:], 2) }),
		abi.StatusUnsupportedCodec: checked(func(b []byte) { b[22] = 7 }),
		abi.StatusUnsupportedMagic: old,
		abi.StatusUnreadable:       at(seal(t, e, "payments", 10, "of", "another", "topic"), 10),
	}
}

func TestWhatNeverOpensIsPassedOverWhereThePolicySaysSo(t *testing.T) {
	keys := newTestKeys(t)
	skips, logged := newSkipping(t, keys, true)
	stops, _ := newSkipping(t, keys, false)
	for status, bad := range damaged(t, skips) {
		t.Run(status.String(), func(t *testing.T) {
			before, after := seal(t, skips, "orders", 9, "before"), seal(t, skips, "orders", 13, "after")
			records := bytes.Join([][]byte{before, bad, after}, nil)

			opened, err := stops.Open(t.Context(), "orders", 0, records)
			if !errors.Is(err, status) || !bytes.Equal(opened, at(batch([]byte("before")), 9)) {
				t.Errorf("where it stops: %x, %v", opened, err)
			}
			counted := skips.Skipped()[status]
			opened, err = skips.Open(t.Context(), "orders", 0, records)
			want := bytes.Join([][]byte{at(batch([]byte("before")), 9), marker(t, bad), at(batch([]byte("after")), 13)}, nil)
			if err != nil || !bytes.Equal(opened, want) {
				t.Fatalf("opened\n%x, %v, want\n%x", opened, err, want)
			}
			if skips.Skipped()[status] != counted+1 {
				t.Errorf("counted %v", skips.Skipped())
			}
			if !strings.Contains(logged.String(), status.String()) {
				t.Errorf("the log does not say why:\n%s", logged)
			}
			// What comes out is what a client, or a second sidecar, lets pass.
			again, err := stops.Open(t.Context(), "orders", 0, marker(t, bad))
			if err != nil || !bytes.Equal(again, marker(t, bad)) {
				t.Errorf("the marker becomes %x, %v", again, err)
			}
		})
	}
	if n := len(stops.Skipped()); n != 0 {
		t.Errorf("%d reasons counted where nothing is passed over", n)
	}
}

func TestReplayedAndErasedBatchesArePassedOverWhereThePolicySaysSo(t *testing.T) {
	keys := newTestKeys(t)
	e, _ := newSkipping(t, keys, true)
	first := seal(t, e, "orders", 10, "once")
	records := bytes.Join([][]byte{first, at(first, 11), seal(t, e, "orders", 12, "after")}, nil)
	opened, err := e.Open(t.Context(), "orders", 0, records)
	want := bytes.Join([][]byte{at(batch([]byte("once")), 10), marker(t, at(first, 11)), at(batch([]byte("after")), 12)}, nil)
	if err != nil || !bytes.Equal(opened, want) {
		t.Fatalf("a replay: %x, %v, want %x", opened, err, want)
	}
	keys.refuse = abi.StatusErased
	e.Erase(kidOf("orders"))
	opened, err = e.Open(t.Context(), "orders", 0, first)
	if err != nil || !bytes.Equal(opened, marker(t, first)) {
		t.Errorf("an erased key: %x, %v", opened, err)
	}
	if got, want := e.Skipped(), (map[abi.Status]uint64{abi.StatusReplayed: 1, abi.StatusErased: 1}); !maps.Equal(got, want) {
		t.Errorf("counted %v, want %v", got, want)
	}
}

func TestHistoryIsPassedOverInAnyCaseAndSaidOnce(t *testing.T) {
	for _, unreadable := range []bool{false, true} {
		keys := newTestKeys(t)
		e, logged := newSkipping(t, keys, unreadable)
		old := seal(t, e, "orders", 10, "x", "y")
		keys.refuse = abi.StatusHistory
		e.Erase(kidOf("orders"))
		for i := range 3 {
			opened, err := e.Open(t.Context(), "orders", 0, old)
			if err != nil || !bytes.Equal(opened, marker(t, old)) {
				t.Fatalf("time %d: %x, %v", i, opened, err)
			}
		}
		if n := strings.Count(logged.String(), "history is passed over"); n != 1 {
			t.Errorf("said %d times:\n%s", n, logged)
		}
		if e.Skipped()[abi.StatusHistory] != 3 {
			t.Errorf("counted %v", e.Skipped())
		}
	}
}

func TestRootThatWillNeverComeIsAskedForOnceAFetch(t *testing.T) {
	for _, status := range []abi.Status{abi.StatusHistory, abi.StatusErased, abi.StatusUnreadable} {
		keys := newTestKeys(t)
		e, _ := newSkipping(t, keys, true)
		var records, want []byte
		for offset := range int64(50) {
			sealed := seal(t, e, "orders", offset, "x")
			records, want = append(records, sealed...), append(want, marker(t, sealed)...)
		}
		keys.refuse = status
		for fetch := 1; fetch <= 2; fetch++ {
			opened, err := e.Open(t.Context(), "orders", 0, records)
			if err != nil || !bytes.Equal(opened, want) || keys.roots != fetch {
				t.Errorf("%v, fetch %d: %d questions, %v", status, fetch, keys.roots, err)
			}
		}
	}
}

// TestWhatMayOpenLaterIsNeverPassedOver holds for every status but those that are final.
func TestWhatMayOpenLaterIsNeverPassedOver(t *testing.T) {
	keys := newTestKeys(t)
	e, _ := newSkipping(t, keys, true)
	sealed := seal(t, e, "orders", 10, "x")
	e.Erase(kidOf("orders"))
	for _, status := range []abi.Status{abi.StatusPending, abi.StatusUnavailable, abi.StatusFull, abi.StatusInternal,
		abi.StatusShuttingDown, abi.StatusNotEntitled, abi.StatusClockSkew, abi.StatusNotConfigured, abi.StatusBadArgument} {
		keys.refuse = status
		opened, err := e.Open(t.Context(), "orders", 0, sealed)
		if !errors.Is(err, status) || len(opened) != 0 {
			t.Errorf("%v: %x, %v", status, opened, err)
		}
	}
}

func TestWhatDoesNotSayWhereItEndsIsNotPassedOver(t *testing.T) {
	e, _ := newSkipping(t, newTestKeys(t), true)
	bad := damaged(t, e)[abi.StatusUnauthentic]
	overlong := bytes.Clone(bad)
	binary.BigEndian.PutUint32(overlong[8:], 3)
	for name, records := range map[string][]byte{
		"a length that holds no batch":    overlong,
		"the next batch begins inside":    append(bytes.Clone(bad), seal(t, e, "orders", 12, "after")...),
		"a magic whose layout is unknown": func() []byte { b := bytes.Clone(bad); b[16] = 3; return b }(),
	} {
		if opened, err := e.Open(t.Context(), "orders", 0, records); err == nil || len(opened) != 0 {
			t.Errorf("%s: %x, %v", name, opened, err)
		}
	}
	// What the broker cut short stays a cut batch.
	opened, err := e.Open(t.Context(), "orders", 0, bad[:len(bad)-1])
	if err != nil || !bytes.Equal(opened, bad[:kafka.BatchHeaderSize]) {
		t.Errorf("a cut batch: %x, %v", opened, err)
	}
}

func TestSkippingIsToldOnceAMinute(t *testing.T) {
	e, logged := newSkipping(t, newTestKeys(t), true)
	bad := damaged(t, e)[abi.StatusUnauthentic]
	for i := range 100 {
		if _, err := e.Open(t.Context(), "orders", 0, at(bad, int64(10*i))); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(logged.String(), "passed over"); n != 1 || !strings.Contains(logged.String(), "offset=0 to=2 batches=1") {
		t.Errorf("%d lines:\n%s", n, logged)
	}
	subject := skipSubject{"orders", 0, abi.StatusUnauthentic}
	e.skips.said[subject].logged = e.skips.said[subject].logged.Add(-skipQuiet)
	if _, err := e.Open(t.Context(), "orders", 0, at(bad, 1000)); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(logged.String(), "offset=10 to=1002 batches=100") {
		t.Errorf("what was not said before is not in the next line:\n%s", logged)
	}
}
