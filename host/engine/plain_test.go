package engine

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/tests/artifact"
)

func newPlain(t *testing.T, rules ...abi.Rule) *Engine {
	t.Helper()
	e, err := New(t.Context(), Options{Module: artifact.Module(t), Config: abi.Config{MaxDecompressed: 1 << 20, Rules: rules},
		CacheDir: cacheDir, Instances: 1, Log: slog.New(slog.DiscardHandler)}, newTestKeys(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return e
}

func TestBatchesOfPlainTopicsNeedNoInstanceAndAreCounted(t *testing.T) {
	e := newPlain(t, abi.Rule{Prefix: true, Pattern: "plain.", Mode: abi.ModePlain}, abi.Rule{Pattern: "plain.not", Mode: abi.ModeEncrypted})
	s := <-e.idle // all instances are busy
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	one := batch([]byte("v"))
	if sealed, err := e.Seal(ctx, "plain.x", 0, one); err != nil || !bytes.Equal(sealed, one) {
		t.Errorf("sealed %x, %v", sealed, err)
	}
	three := bytes.Join([][]byte{one, one, one[:20]}, nil) // the last one is cut short
	if opened, err := e.OpenTo(ctx, []byte("behind"), "plain.x", 0, three); err != nil || !bytes.Equal(opened, append([]byte("behind"), three...)) {
		t.Errorf("opened %x, %v", opened, err)
	}
	if !e.Pass("plain.x", 0, one) || e.Pass("plain.not", 0, one) || e.Pass("orders", 0, one) {
		t.Error("other topics pass than those whose mode is plain")
	}
	e.idle <- s
	if n := e.Counters()[abi.CounterPassedBatches]; n != 5 {
		t.Errorf("%d batches counted, want 5", n)
	}
}

// TestNoPolicyPassesWhatTheModuleRefuses holds the host's shortcut against the module.
func TestNoPolicyPassesWhatTheModuleRefuses(t *testing.T) {
	e := newPlain(t, abi.Rule{Prefix: true, Mode: abi.ModePlain}, abi.Rule{Pattern: abi.ControlPrefix + "grants", Mode: abi.ModePlain})
	for _, c := range []struct {
		topic     string
		partition int32
		want      abi.Status
	}{
		{abi.ControlPrefix + "grants", 0, abi.StatusForbidden},
		{"", 0, abi.StatusBadArgument},
		{string(make([]byte, abi.MaxTopicLen+1)), 0, abi.StatusBadArgument},
		{"orders", -1, abi.StatusBadArgument},
	} {
		if _, err := e.Seal(t.Context(), c.topic, c.partition, batch([]byte("v"))); !errors.Is(err, c.want) {
			t.Errorf("topic %.20q, partition %d: %v, want %v", c.topic, c.partition, err, c.want)
		}
	}
}
