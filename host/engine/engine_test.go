package engine

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/module/ratchet"
	"github.com/wasm-e2ee/wasm-e2ee/tests/artifact"
)

// testKeys is one epoch of each topic, as an agent would hand it out. All epochs have the
// same root here; their kids tell them apart.
type testKeys struct {
	mu     sync.Mutex
	root   ratchet.Node
	stack  ratchet.Stack
	leases int
	roots  int
	onRoot func() // called before Root answers
	refuse error
	opened map[string]int64 // offsets by what was opened
}

func newTestKeys(t *testing.T) *testKeys {
	k := &testKeys{}
	if _, err := rand.Read(k.root[:]); err != nil {
		t.Fatal(err)
	}
	top := k.root
	k.stack.Reset(0, 0, &top)
	return k
}

func kidOf(topic string) (kid abi.Kid) {
	copy(kid[:], topic)
	return kid
}

func (k *testKeys) Lease(_ context.Context, topic string) (abi.Lease, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.refuse != nil {
		return abi.Lease{}, k.refuse
	}
	k.leases++
	var node ratchet.Node
	start, level, ok := k.stack.Cut(16, &node)
	if !ok {
		return abi.Lease{}, abi.StatusUnavailable
	}
	return abi.Lease{Kid: kidOf(topic), UseBy: math.MaxInt64, Start: start, Level: level, Node: node, Topic: topic}, nil
}

func (k *testKeys) Root(_ context.Context, topic string, _ int32, kid abi.Kid) (abi.Root, error) {
	k.mu.Lock()
	onRoot, refuse := k.onRoot, k.refuse
	k.roots++
	k.mu.Unlock()
	if onRoot != nil {
		onRoot()
	}
	if refuse != nil || kid != kidOf(topic) {
		return abi.Root{}, errors.Join(refuse, abi.StatusUnreadable)
	}
	return abi.Root{Kid: kid, Root: k.root, Topic: topic}, nil
}

func (k *testKeys) Opened(topic string, kid abi.Kid, leaf uint32, partition int32, offset int64) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.opened == nil {
		k.opened = map[string]int64{}
	}
	batch := fmt.Sprint(topic, kid, leaf, partition)
	if before, ok := k.opened[batch]; ok && before != offset {
		return abi.StatusReplayed
	}
	k.opened[batch] = offset
	return nil
}

// cacheDir is shared by the tests: each compiles the same module.
var cacheDir string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "engine-test-")
	if err != nil {
		panic(err)
	}
	cacheDir = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

func newEngine(t *testing.T, keys Keys, instances int) *Engine {
	t.Helper()
	e, err := New(t.Context(), Options{Module: artifact.Module(t), Config: abi.Config{MaxDecompressed: 128 << 20},
		CacheDir: cacheDir, Instances: instances, Log: slog.New(slog.DiscardHandler)}, keys)
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

// batch makes one uncompressed batch of the values.
func batch(values ...[]byte) []byte {
	b := make([]byte, kafka.BatchHeaderSize)
	for i, v := range values {
		r := kafka.Record{OffsetDelta: int32(i), Value: v}
		b = r.Append(b)
	}
	h := kafka.BatchHeader{BatchLength: int32(len(b) - 12), Magic: kafka.BatchMagic, LastOffsetDelta: int32(len(values) - 1),
		BaseTimestamp: 1700000000000, MaxTimestamp: 1700000000000, ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1, NumRecords: int32(len(values))}
	h.Put(b)
	kafka.SetBatchCRC(b)
	return b
}

func TestSealedBatchesOpenFromManyGoroutines(t *testing.T) {
	e := newEngine(t, newTestKeys(t), 3)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			topic := fmt.Sprintf("topic%d", g%3)
			for i := range 50 {
				plain := batch([]byte(fmt.Sprintf("value %d of %d", i, g)), bytes.Repeat([]byte{'x'}, i*40))
				sealed, err := e.Seal(t.Context(), topic, int32(g), plain)
				if err != nil {
					t.Error(err)
					return
				}
				if bytes.Contains(sealed, []byte("value")) {
					t.Error("plaintext in a sealed batch")
				}
				opened, err := e.Open(t.Context(), topic, int32(g), sealed)
				if err != nil || !bytes.Equal(opened, plain) {
					t.Errorf("opened %d bytes of %d: %v", len(opened), len(plain), err)
					return
				}
			}
		})
	}
	wg.Wait()
	if c := e.Counters(); c[abi.CounterSealedBatches] != 400 || c[abi.CounterOpenedRecords] != 800 {
		t.Errorf("counters %v", c)
	}
}

// TestInstancesDrawDifferentSalts fails when an instance gets wazero's default random
// source: the module refuses it, and without that the salts would repeat.
func TestInstancesDrawDifferentSalts(t *testing.T) {
	seen := map[[wire.SaltSize]byte]bool{}
	for range 4 {
		e := newEngine(t, newTestKeys(t), 1)
		sealed, err := e.Seal(t.Context(), "orders", 0, batch([]byte("v")))
		if err != nil {
			t.Fatal(err)
		}
		var first kafka.Record
		if _, err := kafka.NextRecord(sealed[kafka.BatchHeaderSize:], &first); err != nil {
			t.Fatal(err)
		}
		h, err := wire.ParsePackedHeader(first.Value)
		if err != nil {
			t.Fatal(err)
		}
		if seen[h.Salt] {
			t.Fatal("two instances drew the same salt")
		}
		seen[h.Salt] = true
	}
}

func TestBatchesBeforeABadOneAreReturned(t *testing.T) {
	e := newEngine(t, newTestKeys(t), 1)
	good, err := e.Seal(t.Context(), "orders", 0, batch([]byte("good")))
	if err != nil {
		t.Fatal(err)
	}
	bad := bytes.Clone(good)
	binary.BigEndian.PutUint64(bad, 7) // its base offset, for the message
	bad[len(bad)-3] ^= 1
	kafka.SetBatchCRC(bad)
	opened, err := e.Open(t.Context(), "orders", 0, append(bytes.Clone(good), bad...))
	if !errors.Is(err, abi.StatusUnauthentic) {
		t.Fatalf("error %v, want %v", err, abi.StatusUnauthentic)
	}
	if !bytes.Equal(opened, batch([]byte("good"))) {
		t.Error("the batch before the bad one was not returned")
	}
	if want := "topic orders, partition 0, offset 7: authentication failed"; err.Error() != want {
		t.Errorf("error %q, want %q", err, want)
	}
}

func TestSmallBuffersGrowForManyStubs(t *testing.T) {
	e := newEngine(t, newTestKeys(t), 1)
	values := make([][]byte, 70000)
	plain := batch(values...)
	sealed, err := e.Seal(t.Context(), "orders", 0, plain)
	if err != nil {
		t.Fatal(err)
	}
	opened, err := e.Open(t.Context(), "orders", 0, sealed)
	if err != nil || !bytes.Equal(opened, plain) {
		t.Fatalf("70,000 records did not come back: %v", err)
	}
}

func TestErasedRootIsAskedForAgain(t *testing.T) {
	keys := newTestKeys(t)
	e := newEngine(t, keys, 2)
	sealed, err := e.Seal(t.Context(), "orders", 0, batch([]byte("v")))
	if err != nil {
		t.Fatal(err)
	}
	for range 4 {
		if _, err := e.Open(t.Context(), "orders", 0, sealed); err != nil {
			t.Fatal(err)
		}
	}
	asked := keys.roots
	e.Erase(kidOf("orders"))
	if c := e.Counters(); c[abi.CounterRoots] != 0 || c[abi.CounterLeases] != 0 {
		t.Errorf("after Erase instances hold %d roots and %d leases", c[abi.CounterRoots], c[abi.CounterLeases])
	}
	keys.refuse = abi.StatusErased
	if _, err := e.Open(t.Context(), "orders", 0, sealed); !errors.Is(err, abi.StatusErased) {
		t.Errorf("error %v, want %v", err, abi.StatusErased)
	}
	if keys.roots == asked {
		t.Error("the erased root was still there")
	}
}

func TestRootFetchedBeforeAnEraseIsNotInstalled(t *testing.T) {
	keys := newTestKeys(t)
	e := newEngine(t, keys, 1)
	sealed, err := e.Seal(t.Context(), "orders", 0, batch([]byte("v")))
	if err != nil {
		t.Fatal(err)
	}
	keys.onRoot = func() { // the agent erases while its answer is under way
		keys.mu.Lock()
		keys.onRoot, keys.refuse = nil, abi.StatusErased
		keys.mu.Unlock()
		e.Erase(kidOf("orders"))
	}
	// The first answer was made before refuse was set, as testKeys.Root reads it first.
	if _, err := e.Open(t.Context(), "orders", 0, sealed); !errors.Is(err, abi.StatusErased) {
		t.Fatalf("error %v, want %v", err, abi.StatusErased)
	}
	if keys.roots != 2 {
		t.Errorf("keys were asked %d times, want 2", keys.roots)
	}
	if c := e.Counters(); c[abi.CounterRoots] != 0 {
		t.Error("the root is in the instance")
	}
}

func TestRefusedLeaseReachesTheCaller(t *testing.T) {
	keys := newTestKeys(t)
	keys.refuse = fmt.Errorf("group billing: %w", abi.StatusNoRecipient)
	e := newEngine(t, keys, 1)
	out, err := e.Seal(t.Context(), "orders", 0, batch([]byte("v")))
	if !errors.Is(err, abi.StatusNoRecipient) || out != nil {
		t.Fatalf("%d bytes, error %v", len(out), err)
	}
}

func TestBrokenInstanceIsReplaced(t *testing.T) {
	e := newEngine(t, newTestKeys(t), 1)
	if _, err := e.Seal(t.Context(), "orders", 0, batch([]byte("v"))); err != nil {
		t.Fatal(err)
	}
	// A closed module fails every call, as one that trapped does.
	if err := e.slots[0].module.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Seal(t.Context(), "orders", 0, batch([]byte("v"))); !errors.Is(err, abi.StatusInternal) {
		t.Fatalf("error %v, want %v", err, abi.StatusInternal)
	}
	if _, err := e.Seal(t.Context(), "orders", 0, batch([]byte("v"))); err != nil {
		t.Fatalf("after the broken instance was discarded: %v", err)
	}
}

func TestOvergrownInstanceIsReplaced(t *testing.T) {
	e := newEngine(t, newTestKeys(t), 1)
	if _, err := e.Seal(t.Context(), "orders", 0, batch(make([]byte, overgrown))); err != nil {
		t.Fatal(err)
	}
	if e.slots[0].instance != nil {
		t.Fatal("the instance is still there")
	}
	if _, err := e.Seal(t.Context(), "orders", 0, batch([]byte("v"))); err != nil {
		t.Fatal(err)
	}
	if c := e.Counters(); c[abi.CounterSealedBatches] != 2 {
		t.Errorf("%d sealed batches counted, want 2", c[abi.CounterSealedBatches])
	}
}

func TestForeignModuleIsRefusedBeforeItRuns(t *testing.T) {
	for name, module := range map[string][]byte{
		"empty":      []byte("\x00asm\x01\x00\x00\x00"),
		"not wasm":   []byte("hello"),
		"no exports": []byte("\x00asm\x01\x00\x00\x00\x05\x03\x01\x00\x01"),
	} {
		if _, err := New(t.Context(), Options{Module: module, Log: slog.New(slog.DiscardHandler)}, newTestKeys(t)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestWaitingForAnInstanceEndsWithItsContext(t *testing.T) {
	e := newEngine(t, newTestKeys(t), 1)
	s := <-e.idle // all instances are busy
	defer func() { e.idle <- s }()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := e.Seal(ctx, "orders", 0, batch([]byte("v"))); !errors.Is(err, abi.StatusUnavailable) {
		t.Fatalf("error %v, want %v", err, abi.StatusUnavailable)
	}
}
