// Package engine loads e2ee.wasm into wazero and runs record batches through it. It
// implements the host's side of abi/SPEC.md: a real random source and real clocks, memory
// that never moves and is wiped, signatures checked before use, one call at a time per
// instance, a trapped or overgrown instance discarded. It holds no identity and talks to no
// network: what an instance lacks it asks of Keys.
package engine

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
	"github.com/wasm-e2ee/wasm-e2ee/host/engine/env"
	"github.com/wasm-e2ee/wasm-e2ee/host/engine/foreign"
)

const (
	// memoryLimitPages caps one instance at 512 MiB: a frame of 100 MiB, what it inflates
	// to, and room.
	memoryLimitPages = 512 << 20 >> 16

	// overgrown is the memory in bytes above which an idle instance is replaced: linear
	// memory never shrinks, and one burst must not be kept for ever.
	overgrown = 96 << 20

	// maxAttempts bounds how often one batch is tried again after a lease, a root or a
	// larger buffer was asked for: once each, and once more for a key erased meanwhile.
	maxAttempts = 6
)

// Options say what an Engine loads and how much of it.
type Options struct {
	Module    []byte     // e2ee.wasm
	CacheDir  string     // of compiled code; "" compiles anew at each start (2 s)
	Config    abi.Config // policy and limits, the same in each instance
	Instances int        // calls that run at once; 0 is one per processor
	Log       *slog.Logger

	// OwnKernel refuses the module the native back end (package foreign), as proxies do: it
	// then seals with what it carries. For tests and measurements.
	OwnKernel bool

	// SkipUnreadable has Open pass over batches that will never open, instead of stopping at
	// them (PROTOCOL.md §2.8.5, on_unreadable). History is passed over in any case.
	SkipUnreadable bool
}

// An Engine is a pool of instances of one module. Its methods may be called from any
// goroutine.
type Engine struct {
	keys    Keys
	config  abi.Config
	log     *slog.Logger
	runtime wazero.Runtime
	cache   wazero.CompilationCache
	module  wazero.CompiledModule

	slots  []*slot
	idle   chan *slot
	skips  skipper
	passed atomic.Uint64 // batches of plain topics
	erased atomic.Uint64 // counts calls of Erase: a key fetched before one is not installed after it
}

// A slot holds one instance, or none between a trap and the next use.
type slot struct {
	mu sync.Mutex
	*instance
	last [abi.NumCounters]uint64 // what the instance said when it was last asked
	gone [abi.NumCounters]uint64 // what those before it had counted
}

// New compiles the module, checks that it exports what SPEC.md §3 asks for, and starts its
// instances. A module that refuses its configuration or its random source is an error.
func New(ctx context.Context, o Options, keys Keys) (*Engine, error) {
	e := &Engine{keys: keys, config: o.Config, log: o.Log, skips: skipper{unreadable: o.SkipUnreadable, log: o.Log}}
	rc := wazero.NewRuntimeConfig().
		WithMemoryLimitPages(memoryLimitPages).
		WithMemoryCapacityFromMax(true)
	if o.CacheDir != "" {
		cache, err := wazero.NewCompilationCacheWithDir(o.CacheDir)
		if err != nil {
			return nil, fmt.Errorf("compilation cache: %w (hint: make %s writable, or set another cache directory)", err, o.CacheDir)
		}
		e.cache = cache
		rc = rc.WithCompilationCache(cache)
	}
	e.runtime = wazero.NewRuntimeWithConfig(ctx, rc)
	if err := e.start(ctx, o); err != nil {
		return nil, errors.Join(err, e.Close(ctx))
	}
	return e, nil
}

func (e *Engine) start(ctx context.Context, o Options) error {
	if _, err := wasi_snapshot_preview1.Instantiate(ctx, e.runtime); err != nil {
		return err
	}
	native := []env.Function{{Name: foreign.Import, Do: foreign.Call}}
	if o.OwnKernel {
		native = nil
	}
	if err := env.Instantiate(ctx, e.runtime, native...); err != nil {
		return err
	}
	module, err := e.runtime.CompileModule(ctx, o.Module)
	if err != nil {
		return fmt.Errorf("module does not compile: %w", err)
	}
	e.module = module
	if err := checkExports(module); err != nil {
		return err
	}
	n := o.Instances
	if n <= 0 {
		n = runtime.GOMAXPROCS(0)
	}
	e.idle = make(chan *slot, n)
	for range n {
		s := &slot{}
		if s.instance, err = e.newInstance(ctx); err != nil {
			return err
		}
		e.slots = append(e.slots, s)
		e.idle <- s
	}
	return nil
}

// moduleConfig is the configuration of every instance. Without the random source and the
// clocks wazero would give each the same numbers and a clock that stands still.
func moduleConfig() wazero.ModuleConfig {
	return wazero.NewModuleConfig().
		WithName("").
		WithStartFunctions("_initialize").
		WithRandSource(rand.Reader).
		WithSysWalltime().
		WithSysNanotime()
}

// Seal is SealTo with memory of its own.
func (e *Engine) Seal(ctx context.Context, topic string, partition int32, records []byte) ([]byte, error) {
	return e.SealTo(ctx, nil, topic, partition, records)
}

// SealTo appends to dst the sealed form of the one batch in records, which a client produced to
// this topic and partition. It waits for a lease as long as ctx allows. The error wraps an
// abi.Status; nothing of the batch may then be forwarded.
func (e *Engine) SealTo(ctx context.Context, dst []byte, topic string, partition int32, records []byte) ([]byte, error) {
	if e.Pass(topic, partition, records) {
		return append(dst, records...), nil
	}
	out, _, err := e.transform(ctx, e.keys, sealBatch, topic, partition, records, dst)
	if err != nil {
		return dst, fmt.Errorf("topic %s, partition %d: %w", topic, partition, err)
	}
	return out, nil
}

// Open is OpenTo with memory of its own.
func (e *Engine) Open(ctx context.Context, topic string, partition int32, records []byte) ([]byte, error) {
	return e.OpenTo(ctx, make([]byte, 0, len(records)), topic, partition, records)
}

// OpenTo appends to dst the opened form of the batches in records, which a broker served for this
// topic and partition; of a batch cut short at the end the header stays, and where one is
// passed over a marker. On error the batches before the one that could not be opened are
// returned with it; the error wraps an abi.Status.
func (e *Engine) OpenTo(ctx context.Context, dst []byte, topic string, partition int32, records []byte) ([]byte, error) {
	if e.Pass(topic, partition, records) {
		return append(dst, records...), nil
	}
	out := dst
	keys := refusals{Keys: e.keys}
	for len(records) > 0 {
		size, err := kafka.BatchSize(records)
		if errors.Is(err, kafka.ErrCut) {
			size, err = len(records), nil // the module knows what to leave of it
		}
		opened, offset := out, kafka.BaseOffset(records)
		var result abi.Result
		if err == nil {
			opened, result, err = e.transform(ctx, &keys, openBatch, topic, partition, records[:size], out)
		}
		if err == nil && result.Kid != (abi.Kid{}) {
			err = e.keys.Opened(topic, result.Kid, result.Leaf, partition, offset)
		}
		if err != nil {
			var skipped bool
			if opened, skipped = e.skips.skip(out, records, size, topic, partition, err); !skipped {
				return out, fmt.Errorf("topic %s, partition %d, offset %d: %w", topic, partition, offset, err)
			}
		}
		out, records = opened, records[size:]
	}
	return out, nil
}

// transform runs one batch through an instance, fetching what the instance lacks from keys, and
// appends the outcome to dst. The result is that of the call which succeeded.
func (e *Engine) transform(ctx context.Context, keys Keys, op operation, topic string, partition int32, batch, dst []byte) ([]byte, abi.Result, error) {
	capacity := op.capacity(batch)
	var key installer
	for range maxAttempts {
		erased := e.erased.Load()
		if key.want != nothing {
			if err := key.fetch(ctx, keys, topic, partition); err != nil {
				return dst, abi.Result{}, err
			}
		}
		s, err := e.acquire(ctx)
		if err != nil {
			return dst, abi.Result{}, err
		}
		if key.block != nil && e.erased.Load() != erased {
			e.release(ctx, s, nil) // the key may be one of those: ask again
			key.wipe()
			continue
		}
		out, result, status, err := s.run(ctx, op, &key, topic, partition, batch, capacity, dst)
		e.release(ctx, s, err)
		key.wipe()
		if err != nil {
			e.log.Error("module instance discarded", "topic", topic, "partition", partition, "err", err)
			return dst, abi.Result{}, fmt.Errorf("%w: %w", abi.StatusInternal, err)
		}
		switch status {
		case abi.StatusOK:
			return out, result, nil
		case abi.StatusNeedSpace:
			if int(result.Length) <= capacity {
				return dst, abi.Result{}, abi.StatusInternal
			}
			capacity = int(result.Length)
			key.want = nothing
		case abi.StatusNeedLease:
			key.want = aLease
		case abi.StatusNeedRoot:
			key.want, key.kid = aRoot, result.Kid
		default:
			return dst, abi.Result{}, status
		}
	}
	return dst, abi.Result{}, abi.StatusUnavailable
}

// Erase wipes every lease and root with one of these kids from every instance. When it
// returns, none of them is in any instance's key tables, nor will be. No kids, nothing.
func (e *Engine) Erase(kids ...abi.Kid) {
	if len(kids) == 0 {
		return
	}
	e.erased.Add(1)
	for _, s := range e.slots {
		s.mu.Lock()
		if s.instance != nil {
			if err := s.erase(context.Background(), kids); err != nil {
				e.log.Error("module instance discarded", "err", err)
				e.discard(context.Background(), s)
			}
		}
		s.mu.Unlock()
	}
}

// Counters returns the sums over all instances, those that are gone included. But for leases
// and roots held, they never go back.
func (e *Engine) Counters() [abi.NumCounters]uint64 {
	var sum [abi.NumCounters]uint64
	for _, s := range e.slots {
		s.mu.Lock()
		s.count(context.Background())
		addCounters(&sum, s.gone)
		addCounters(&sum, s.last)
		s.mu.Unlock()
	}
	sum[abi.CounterPassedBatches] += e.passed.Load()
	return sum
}

// Close wipes and frees every instance. No other method may run or follow.
func (e *Engine) Close(ctx context.Context) error {
	for _, s := range e.slots {
		s.mu.Lock()
		if s.instance != nil {
			s.close(ctx)
			s.instance = nil
		}
		s.mu.Unlock()
	}
	err := e.runtime.Close(ctx)
	if e.cache != nil {
		err = errors.Join(err, e.cache.Close(ctx))
	}
	return err
}

// acquire takes an idle slot, locked and with a live instance.
func (e *Engine) acquire(ctx context.Context) (*slot, error) {
	var s *slot
	select {
	case s = <-e.idle:
	default: // only here ctx is asked for its end, which may cost a timer
		select {
		case s = <-e.idle:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", abi.StatusUnavailable, ctx.Err())
		}
	}
	s.mu.Lock()
	if s.instance == nil {
		// A request that is given up must not take the instance with it.
		in, err := e.newInstance(context.WithoutCancel(ctx))
		if err != nil {
			s.mu.Unlock()
			e.idle <- s
			return nil, fmt.Errorf("%w: %w", abi.StatusInternal, err)
		}
		s.instance = in
	}
	return s, nil
}

// release gives a slot back; after an error, or grown too large, without its instance.
func (e *Engine) release(ctx context.Context, s *slot, err error) {
	if err != nil || s.size() > overgrown {
		e.discard(context.WithoutCancel(ctx), s)
	}
	s.mu.Unlock()
	e.idle <- s
}

func (e *Engine) discard(ctx context.Context, s *slot) {
	s.count(ctx)
	s.last[abi.CounterLeases], s.last[abi.CounterRoots] = 0, 0 // held no more
	addCounters(&s.gone, s.last)
	s.last = [abi.NumCounters]uint64{}
	s.close(ctx)
	s.instance = nil
}

// count asks the instance, if there is one. One that has trapped may not answer: what it said
// before stands, so that a sum never goes back. The caller holds s.mu.
func (s *slot) count(ctx context.Context) {
	if s.instance == nil {
		return
	}
	if counters, err := s.counters(ctx); err == nil {
		s.last = counters
	}
}

func addCounters(sum *[abi.NumCounters]uint64, more [abi.NumCounters]uint64) {
	for i, n := range more {
		sum[i] += n
	}
}

// An operation is one of the two ways through the module.
type operation struct {
	fn       string
	capacity func(batch []byte) int // a first guess; StatusNeedSpace corrects it
}

var (
	sealBatch = operation{abi.FuncSealBatch, func(b []byte) int { return len(b) + 8*recordCount(b) + 128 }}
	openBatch = operation{abi.FuncOpenBatch, func(b []byte) int { return len(b) + 256 }}
)

// recordCount reads a batch's claimed number of records, for the first guess only.
func recordCount(batch []byte) int {
	h, err := kafka.ParseBatchHeader(batch)
	if err != nil || h.NumRecords < 0 || int(h.NumRecords) > 1<<20 {
		return 0
	}
	return int(h.NumRecords)
}

func now() uint64 { return uint64(time.Now().UnixMilli()) }
