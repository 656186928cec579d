package engine

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"github.com/tetratelabs/wazero/api"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
)

// The limits of one instance (SPEC.md §7).
const (
	maxLeases = 4096
	maxRoots  = 65536
)

func TestFullInstanceMakesRoom(t *testing.T) {
	keys := newTestKeys(t)
	e := newEngine(t, keys, 1)
	plain := batch([]byte("v"))
	sealed, err := e.Seal(t.Context(), "orders", 0, plain)
	if err != nil {
		t.Fatal(err)
	}
	in := e.slots[0].instance
	fill := func(fn string, n int, block func(kid abi.Kid) []byte) {
		t.Helper()
		for i := range n {
			var kid abi.Kid
			binary.BigEndian.PutUint32(kid[:], uint32(i))
			status, err := in.callWithBlock(t.Context(), fn, block(kid))
			if err != nil {
				t.Fatal(err)
			}
			if status == abi.StatusFull {
				return
			}
		}
		t.Fatalf("%s: the instance took %d and is not full", fn, n)
	}
	fill(abi.FuncInstallLease, maxLeases+1, func(kid abi.Kid) []byte {
		return (&abi.Lease{Kid: kid, Level: abi.TreeDepth, Topic: fmt.Sprintf("idle %x", kid)}).Append(nil)
	})
	fill(abi.FuncInstallRoot, maxRoots+1, func(kid abi.Kid) []byte {
		return (&abi.Root{Kid: kid, Topic: "idle"}).Append(nil)
	})
	opened, err := e.Open(t.Context(), "orders", 0, sealed)
	if err != nil || !bytes.Equal(opened, plain) {
		t.Errorf("a full instance does not open: %v", err)
	}
	if _, err := e.Seal(t.Context(), "bills", 0, plain); err != nil {
		t.Errorf("a full instance does not seal: %v", err)
	}
	if e.slots[0].instance != in {
		t.Error("the instance was discarded")
	}
}

// An answering function of a module returns a status and does nothing.
type answering struct {
	api.Function
	status uint64
}

func (a answering) CallWithStack(_ context.Context, stack []uint64) error {
	stack[0] = a.status
	return nil
}

func TestInstanceInAnUnknownStateIsDiscarded(t *testing.T) {
	for _, fn := range []string{abi.FuncInstallLease, abi.FuncSealBatch} {
		for _, status := range []uint64{uint64(abi.StatusInternal), 4, 40, 64, 1 << 31} {
			e := newEngine(t, newTestKeys(t), 1)
			in := e.slots[0].instance
			in.fns[fn] = answering{in.fns[fn], status}
			if _, err := e.Seal(t.Context(), "orders", 0, batch([]byte("v"))); !errors.Is(err, abi.StatusInternal) {
				t.Errorf("%s answers %d: error %v, want %v", fn, status, err, abi.StatusInternal)
			}
			if e.slots[0].instance == in {
				t.Errorf("%s answers %d: the instance is still in use", fn, status)
			}
			if _, err := e.Seal(t.Context(), "orders", 0, batch([]byte("v"))); err != nil {
				t.Errorf("%s answers %d: the next seal: %v", fn, status, err)
			}
		}
	}
}

// A trapping function of a module never returns.
type trapping struct{ api.Function }

func (trapping) CallWithStack(context.Context, []uint64) error { return errors.New("trapped") }

func TestCountersDoNotGoBackWithAnInstanceThatTrapped(t *testing.T) {
	e := newEngine(t, newTestKeys(t), 1)
	for range 2 {
		if _, err := e.Seal(t.Context(), "orders", 0, batch([]byte("v"))); err != nil {
			t.Fatal(err)
		}
	}
	if c := e.Counters(); c[abi.CounterSealedBatches] != 2 || c[abi.CounterLeases] != 1 {
		t.Fatalf("counted %v", c)
	}
	in := e.slots[0].instance
	for _, fn := range []string{abi.FuncSealBatch, abi.FuncCounters} {
		in.fns[fn] = trapping{in.fns[fn]}
	}
	if _, err := e.Seal(t.Context(), "orders", 0, batch([]byte("v"))); !errors.Is(err, abi.StatusInternal) {
		t.Fatalf("sealed by an instance that trapped: %v", err)
	}
	if c := e.Counters(); c[abi.CounterSealedBatches] != 2 || c[abi.CounterLeases] != 0 {
		t.Errorf("afterwards %v", c)
	}
	if _, err := e.Seal(t.Context(), "orders", 0, batch([]byte("v"))); err != nil {
		t.Fatal(err)
	}
	if c := e.Counters(); c[abi.CounterSealedBatches] != 3 || c[abi.CounterLeases] != 1 {
		t.Errorf("with the next instance %v", c)
	}
}
