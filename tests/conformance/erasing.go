package conformance

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/tests/reference"
)

func expiredLeaseRefused(ctx context.Context, m *module) error {
	in, err := m.ready(ctx)
	if err != nil {
		return err
	}
	defer in.close(ctx)
	b := client(1, 10)
	for _, now := range []uint64{testNow + 1, testNow} { // the clock going back revives nothing
		o, err := in.batch(ctx, abi.FuncSealBatch, b, len(b)+200, testTopic, testPartition, now)
		if err != nil {
			return err
		}
		if o.status != abi.StatusNeedLease {
			return fmt.Errorf("after useBy: %s, want %s", describe(o.status), describe(abi.StatusNeedLease))
		}
	}
	return nil
}

func erasedKeysGone(ctx context.Context, m *module) error {
	for name, kids := range map[string][]byte{"by kid": append(bytes.Repeat([]byte{9}, 8), testKid[:]...), "all": nil} {
		in, err := m.ready(ctx)
		if err != nil {
			return err
		}
		defer in.close(ctx)
		b := client(1, 10)
		sealed, err := in.sealed(ctx, b)
		if err != nil {
			return err
		}
		if err := in.expect(ctx, abi.StatusOK, abi.FuncErase, kids); err != nil {
			return err
		}
		opened, err := in.open(ctx, sealed)
		if err != nil {
			return err
		}
		again, err := in.batch(ctx, abi.FuncSealBatch, b, len(b)+200, testTopic, testPartition, testNow)
		if err != nil {
			return err
		}
		if opened.status != abi.StatusNeedRoot || opened.result.Kid != testKid || again.status != abi.StatusNeedLease {
			return fmt.Errorf("%s: open: %s for kid %x, seal: %s", name, describe(opened.status), opened.result.Kid, describe(again.status))
		}
	}
	return nil
}

// erasedNotInMemory searches the whole linear memory for the root, the lease's node and the
// leaf keys and the nodes above them, after they were used and erased.
func erasedNotInMemory(ctx context.Context, m *module) error {
	in, err := m.ready(ctx)
	if err != nil {
		return err
	}
	defer in.close(ctx)
	for range 3 {
		sealed, err := in.sealed(ctx, client(1, 10))
		if err != nil {
			return err
		}
		if o, err := in.open(ctx, sealed); err != nil || o.status != abi.StatusOK {
			return fmt.Errorf("%s, %w", describe(o.status), err)
		}
	}
	found := func() (names []string) {
		memory, _ := in.mod.Memory().Read(0, in.mod.Memory().Size())
		for leaf := range uint32(3) {
			for level := range abi.TreeDepth + 1 {
				node := reference.Node(testRoot, leaf, level)
				if bytes.Contains(memory, node[:]) {
					names = append(names, fmt.Sprintf("level %d above leaf %d", level, leaf))
				}
			}
		}
		return names
	}
	if len(found()) == 0 {
		return errors.New("the installed root is nowhere in memory: the search finds nothing")
	}
	if err := in.expect(ctx, abi.StatusOK, abi.FuncErase, testKid[:]); err != nil {
		return err
	}
	if names := found(); len(names) > 0 {
		return fmt.Errorf("%d nodes are still in memory: %v", len(names), names)
	}
	return nil
}

func countersCount(ctx context.Context, m *module) error {
	in, err := m.ready(ctx)
	if err != nil {
		return err
	}
	defer in.close(ctx)
	b := client(4, 10)
	sealed, err := in.sealed(ctx, b)
	if err != nil {
		return err
	}
	for _, batch := range [][]byte{sealed, b} { // the second is plaintext
		if _, err := in.open(ctx, batch); err != nil {
			return err
		}
	}
	if err := in.expect(ctx, abi.StatusOK, abi.FuncErase, nil); err != nil {
		return err
	}
	size := uint64(len(b))
	want := [abi.NumCounters]uint64{1, 4, size, 1, 4, size, 0, 1, 0, 0, 2}
	at, err := in.alloc(ctx, 8*uint32(abi.NumCounters))
	if err != nil {
		return err
	}
	if s, err := in.call(ctx, abi.FuncCounters, uint64(at), 8*uint64(abi.NumCounters)); err != nil || s != 0 {
		return fmt.Errorf("%s, %w", describe(abi.Status(s)), err)
	}
	block, _ := in.mod.Memory().Read(at, 8*uint32(abi.NumCounters))
	for i, w := range want {
		if got := binary.LittleEndian.Uint64(block[8*i:]); got != w {
			return fmt.Errorf("counter %d is %d, want %d", i, got, w)
		}
	}
	return nil
}
