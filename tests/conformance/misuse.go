package conformance

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/tetratelabs/wazero"
	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
	"github.com/wasm-e2ee/wasm-e2ee/tests/reference"
)

// zeros is a random source that is not.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func weakRandomRefused(ctx context.Context, m *module) error {
	base := wazero.NewModuleConfig().WithName("").WithStartFunctions("_initialize")
	for name, config := range map[string]wazero.ModuleConfig{
		"wazero's default": base,
		"constant":         base.WithRandSource(zeros{}),
	} {
		in, err := m.start(ctx, config)
		if err != nil {
			return fmt.Errorf("%s source: %w", name, err)
		}
		defer in.close(ctx)
		if err := in.expect(ctx, abi.StatusWeakRandom, abi.FuncConfigure, testConfig.Append(nil)); err != nil {
			return fmt.Errorf("%s source: %w", name, err)
		}
		if err := in.expect(ctx, abi.StatusNotConfigured, abi.FuncInstallRoot, rootBlock()); err != nil {
			return fmt.Errorf("%s source, after the refusal: %w", name, err)
		}
	}
	return nil
}

func unconfiguredRefused(ctx context.Context, m *module) error {
	in, err := m.start(ctx, hostConfig())
	if err != nil {
		return err
	}
	defer in.close(ctx)
	for name, block := range map[string][]byte{
		abi.FuncInstallLease: lease(0, 0).Append(nil),
		abi.FuncInstallRoot:  rootBlock(),
		abi.FuncErase:        testKid[:],
	} {
		if err := in.expect(ctx, abi.StatusNotConfigured, name, block); err != nil {
			return err
		}
	}
	for _, name := range []string{abi.FuncSealBatch, abi.FuncOpenBatch} {
		o, err := in.batch(ctx, name, client(1, 1), 1000, testTopic, testPartition, testNow)
		if err != nil {
			return err
		}
		if o.status != abi.StatusNotConfigured {
			return fmt.Errorf("%s: %s", name, describe(o.status))
		}
	}
	return in.expect(ctx, abi.StatusOK, abi.FuncCounters, make([]byte, 8))
}

func badConfigRefused(ctx context.Context, m *module) error {
	in, err := m.configured(ctx, abi.Config{MaxDecompressed: 1 << 20, Rules: []abi.Rule{{Pattern: "plain", Mode: abi.ModePlain}}})
	if err != nil {
		return err
	}
	defer in.close(ctx)
	good := (&abi.Config{MaxDecompressed: 1 << 20, Rules: []abi.Rule{{Pattern: "a", Mode: abi.ModePlain}}}).Append(nil)
	blocks := [][]byte{append(bytes.Clone(good), 0)}
	for n := range good {
		blocks = append(blocks, good[:n])
	}
	for _, at := range []int{6, 7} { // an unknown kind, an unknown mode
		b := bytes.Clone(good)
		b[at] = 9
		blocks = append(blocks, b)
	}
	for _, b := range blocks {
		if err := in.expect(ctx, abi.StatusBadArgument, abi.FuncConfigure, b); err != nil {
			return fmt.Errorf("configuration %x: %w", b, err)
		}
	}
	b := client(1, 1)
	o, err := in.batch(ctx, abi.FuncOpenBatch, b, len(b), "plain", 0, testNow)
	if err == nil && (o.status != abi.StatusOK || o.result.Flags != abi.FlagUntouched) {
		err = fmt.Errorf("the earlier configuration is gone: %s", describe(o.status))
	}
	return err
}

// badPointersRefused gives sealing and opening ranges that are not the host's to give.
func badPointersRefused(ctx context.Context, m *module) error {
	in, err := m.ready(ctx)
	if err != nil {
		return err
	}
	defer in.close(ctx)
	const capacity = 1000
	buf, err := in.alloc(ctx, capacity)
	if err != nil {
		return err
	}
	b := client(1, 10)
	size, pages := uint64(len(b)), uint64(in.mod.Memory().Size())
	in.mod.Memory().Write(buf, b)
	in.mod.Memory().WriteString(in.topic, testTopic)
	at, topic, topicLen, result := uint64(buf), uint64(in.topic), uint64(len(testTopic)), uint64(in.result)
	for _, name := range []string{abi.FuncSealBatch, abi.FuncOpenBatch} {
		for what, args := range map[string][8]uint64{
			"length over capacity":     {at, capacity + 1, capacity, topic, topicLen, 0, testNow, result},
			"capacity over the memory": {at, size, pages, topic, topicLen, 0, testNow, result},
			"capacity around":          {at, size, math.MaxUint32, topic, topicLen, 0, testNow, result},
			"buffer beyond memory":     {pages, size, capacity, topic, topicLen, 0, testNow, result},
			"buffer at the end":        {math.MaxUint32, size, capacity, topic, topicLen, 0, testNow, result},
			"topic beyond memory":      {at, size, capacity, pages - 1, topicLen, 0, testNow, result},
			"no topic":                 {at, size, capacity, topic, 0, 0, testNow, result},
			"long topic":               {at, size, capacity, topic, abi.MaxTopicLen + 1, 0, testNow, result},
			"negative partition":       {at, size, capacity, topic, topicLen, math.MaxUint32, testNow, result},
			"result beyond memory":     {at, size, capacity, topic, topicLen, 0, testNow, pages - 4},
			"result around":            {at, size, capacity, topic, topicLen, 0, testNow, math.MaxUint32 - 4},
			"result in the buffer":     {at, size, capacity, topic, topicLen, 0, testNow, at + 100},
		} {
			s, err := in.call(ctx, name, args[:]...)
			if err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
			if abi.Status(s) != abi.StatusBadArgument {
				return fmt.Errorf("%s, %s: %s", name, what, describe(abi.Status(s)))
			}
		}
	}
	for _, name := range []string{abi.FuncConfigure, abi.FuncInstallLease, abi.FuncInstallRoot, abi.FuncErase, abi.FuncCounters} {
		for _, args := range [][2]uint64{{pages, 64}, {pages - 8, 64}, {math.MaxUint32, 64}, {at, pages}, {at, math.MaxUint32}} {
			s, err := in.call(ctx, name, args[:]...)
			if err != nil {
				return fmt.Errorf("%s(%d, %d): %w", name, args[0], args[1], err)
			}
			if abi.Status(s) != abi.StatusBadArgument {
				return fmt.Errorf("%s(%d, %d): %s", name, args[0], args[1], describe(abi.Status(s)))
			}
		}
	}
	for _, ptr := range []uint64{0, 1, at + 1, pages, math.MaxUint32} {
		if _, err := in.call(ctx, abi.FuncFree, ptr); err != nil {
			return fmt.Errorf("e2ee_free(%d): %w", ptr, err)
		}
	}
	for _, n := range []uint64{0, math.MaxUint32} {
		if p, err := in.call(ctx, abi.FuncAlloc, n); err != nil || p != 0 {
			return fmt.Errorf("e2ee_alloc(%d) = %d, %w", n, p, err)
		}
	}
	if _, err := in.sealed(ctx, b); err != nil {
		return fmt.Errorf("after all that: %w", err)
	}
	return nil
}

func badBlocksRefused(ctx context.Context, m *module) error {
	in, err := m.configured(ctx, testConfig)
	if err != nil {
		return err
	}
	defer in.close(ctx)
	blocks := map[string][]byte{abi.FuncInstallLease: lease(0, 0).Append(nil), abi.FuncInstallRoot: rootBlock()}
	for name, good := range blocks {
		for n := range good {
			if err := in.expect(ctx, abi.StatusBadArgument, name, good[:n]); err != nil {
				return fmt.Errorf("%d of %d bytes: %w", n, len(good), err)
			}
		}
		if err := in.expect(ctx, abi.StatusBadArgument, name, append(bytes.Clone(good), 0)); err != nil {
			return fmt.Errorf("a byte more: %w", err)
		}
	}
	deep := lease(0, 24)
	deep.Level = 25
	if err := in.expect(ctx, abi.StatusBadArgument, abi.FuncInstallLease, deep.Append(nil)); err != nil {
		return fmt.Errorf("level 25: %w", err)
	}
	unaligned := lease(0, 23)
	unaligned.Start = 1
	if err := in.expect(ctx, abi.StatusBadArgument, abi.FuncInstallLease, unaligned.Append(nil)); err != nil {
		return fmt.Errorf("a start inside its subtree: %w", err)
	}
	if err := in.expect(ctx, abi.StatusBadArgument, abi.FuncErase, make([]byte, 9)); err != nil {
		return err
	}
	return in.expect(ctx, abi.StatusBadArgument, abi.FuncCounters, make([]byte, 9))
}

func freedIsWiped(ctx context.Context, m *module) error {
	in, err := m.ready(ctx)
	if err != nil {
		return err
	}
	defer in.close(ctx)
	const size = 3000
	at, err := in.alloc(ctx, size)
	if err != nil {
		return err
	}
	in.mod.Memory().Write(at, bytes.Repeat([]byte("secret"), size/6))
	if err := in.free(ctx, at); err != nil {
		return err
	}
	if b, _ := in.mod.Memory().Read(at, size); !bytes.Equal(b, make([]byte, size)) {
		return errors.New("a freed buffer still holds what was written")
	}
	return nil
}

func steadyState(ctx context.Context, m *module) error {
	in, err := m.ready(ctx)
	if err != nil {
		return err
	}
	defer in.close(ctx)
	b := client(100, 1000)
	var size uint32
	for i := range 300 {
		sealed, err := in.sealed(ctx, b)
		if err != nil {
			return err
		}
		if o, err := in.open(ctx, sealed); err != nil || o.status != abi.StatusOK {
			return fmt.Errorf("%s, %w", describe(o.status), err)
		}
		if i == 100 {
			size = in.mod.Memory().Size()
		}
	}
	if grown := in.mod.Memory().Size() - size; grown > 0 {
		return fmt.Errorf("memory grew by %d bytes over 200 batches", grown)
	}
	return nil
}

// bombsBounded opens 200 MiB of zeros, compressed, under a cap of 4 MiB.
func bombsBounded(ctx context.Context, m *module) error {
	in, err := m.ready(ctx)
	if err != nil {
		return err
	}
	defer in.close(ctx)
	var bomb bytes.Buffer
	w := gzip.NewWriter(&bomb)
	for range 200 {
		if _, err := w.Write(make([]byte, 1<<20)); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	before := in.mod.Memory().Size()
	o, err := in.open(ctx, reference.Join(kafka.BatchHeader{NumRecords: 1, Attributes: int16(kafka.CodecGzip)}, bomb.Bytes()))
	if err != nil {
		return err
	}
	if o.status != abi.StatusTooLarge {
		return fmt.Errorf("%s, want %s", describe(o.status), describe(abi.StatusTooLarge))
	}
	if grown := in.mod.Memory().Size() - before; grown > 8*testConfig.MaxDecompressed {
		return fmt.Errorf("memory grew by %d bytes under a cap of %d", grown, testConfig.MaxDecompressed)
	}
	return nil
}
