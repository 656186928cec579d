package engine

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/tests/artifact"
)

// TestWhatOneBackEndSealsTheOtherOpens holds the native back end against what the module
// carries, from batches of one block to such that are taken apart into many.
func TestWhatOneBackEndSealsTheOtherOpens(t *testing.T) {
	keys := newTestKeys(t)
	native := newEngine(t, keys, 1)
	own, err := New(t.Context(), Options{Module: artifact.Module(t), Config: abi.Config{MaxDecompressed: 128 << 20},
		CacheDir: cacheDir, Instances: 1, Log: slog.New(slog.DiscardHandler), OwnKernel: true}, keys)
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close(t.Context())
	for _, v := range [][][]byte{
		{nil},
		{[]byte("one"), []byte("two")},
		values(100, 10),
		values(300, 1000),
	} {
		want := batch(v...)
		for name, way := range map[string][2]*Engine{"native to own": {native, own}, "own to native": {own, native}} {
			sealed, err := way[0].Seal(t.Context(), "orders", 3, want)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := way[1].Open(t.Context(), "orders", 3, sealed); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s, %d records: %v", name, len(v), err)
			}
			sealed[len(sealed)/2] ^= 1
			if got, err := way[1].Open(t.Context(), "orders", 3, sealed); err == nil || len(got) != 0 {
				t.Errorf("%s, %d records: opened with a byte flipped", name, len(v))
			}
		}
	}
}

// values returns n values of size bytes.
func values(n, size int) [][]byte {
	all := make([][]byte, n)
	for i := range all {
		all[i] = bytes.Repeat([]byte{byte(i)}, size)
	}
	return all
}

// forgetfulKeys remember nothing of what was opened.
type forgetfulKeys struct{ *testKeys }

func (forgetfulKeys) Opened(string, abi.Kid, uint32, int32, int64) error { return nil }

// TestASteadyStateAllocatesForTheAEADAlone counts what x/crypto makes of a key, 32 bytes for
// each batch, and what OpenTo remembers of refused keys.
func TestASteadyStateAllocatesForTheAEADAlone(t *testing.T) {
	e := newEngine(t, forgetfulKeys{newTestKeys(t)}, 1)
	topic := strings.Repeat("long ", 20) // longer than what the stack has room for
	client := batch(values(50, 300)...)
	sealed, err := e.Seal(t.Context(), topic, 0, client)
	if err != nil {
		t.Fatal(err)
	}
	out := make([]byte, 0, 64<<10)
	if n := testing.AllocsPerRun(100, func() {
		if _, err := e.SealTo(t.Context(), out, topic, 0, client); err != nil {
			panic(err)
		}
	}); n > 1 {
		t.Errorf("%v allocations to seal", n)
	}
	if n := testing.AllocsPerRun(100, func() {
		if _, err := e.OpenTo(t.Context(), out, topic, 0, sealed); err != nil {
			panic(err)
		}
	}); n > 2 {
		t.Errorf("%v allocations to open", n)
	}
}
