// Package filter is the module's logic: it seals and opens one Kafka record batch in place
// (PROTOCOL.md §2.4), by the policy of its topic, with the leases and roots that the agent
// handed out (SPEC.md §6).
//
// It is pure: bytes and times in, bytes and a status out. No I/O, no goroutines, no clock;
// randomness is a reader given at the start. It imports package abi, the ratchet, the
// kernel, and decompressors. A Filter is for one caller at a time.
package filter

import (
	"bytes"
	"io"
	"unsafe"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/module/kernel"
	"github.com/wasm-e2ee/wasm-e2ee/module/ratchet"
)

// Limits of one Filter. Beyond them installing answers abi.StatusFull, and a batch
// abi.StatusTooLarge.
const (
	MaxLeases  = 4096
	MaxRoots   = 1 << 16
	MaxRecords = 1 << 20 // in one batch: a stub each
)

// A Filter holds the policy and the keys of one module instance.
type Filter struct {
	random   io.Reader
	config   abi.Config
	ready    bool
	counters [abi.NumCounters]uint64

	leases   map[string][]*lease // by topic, the oldest first
	roots    map[abi.Kid]*root
	paths    [pathCache]path
	leaf     ratchet.Node // SECRET, wiped before a call returns
	salt     [wire.SaltSize]byte
	numLease int

	inflate    inflater
	stubs      [stubSlots + 1]stubSlot
	plainStubs []byte // reused
	firstStubs []byte // those of records 1 to numStubs
	numStubs   int32

	program kernel.Program
	header  [kafka.BatchHeaderSize]byte // of the batch being sealed, as it came; of that being opened, as it is likely to become
	sum     [4]byte                     // the CRC-32C with that header
	aad     [wire.PackedAADSize]byte
	nonce   [wire.NonceSize]byte
	places  [placeCache]place
}

// New returns a filter that answers abi.StatusNotConfigured until Configure succeeds. It
// draws salts from random.
func New(random io.Reader) *Filter {
	return &Filter{
		random: random,
		leases: map[string][]*lease{},
		roots:  map[abi.Kid]*root{},
	}
}

// Configure replaces the configuration. It tries the random source first, and answers
// abi.StatusWeakRandom where that is not random (SPEC.md §3.4); abi.StatusBadArgument where
// the cap on decompression is 0. The keys held stay.
func (f *Filter) Configure(c abi.Config) abi.Status {
	if weakRandom(f.random) {
		return abi.StatusWeakRandom
	}
	if c.MaxDecompressed == 0 {
		return abi.StatusBadArgument
	}
	if !f.inflate.limit(int(c.MaxDecompressed)) {
		return abi.StatusInternal
	}
	f.config = c
	f.ready = true
	return abi.StatusOK
}

// Ready reports whether Configure has succeeded once.
func (f *Filter) Ready() bool { return f.ready }

// Counters returns the counters since New, in the order of abi.Counter.
func (f *Filter) Counters() [abi.NumCounters]uint64 {
	c := f.counters
	c[abi.CounterLeases] = uint64(f.numLease)
	c[abi.CounterRoots] = uint64(len(f.roots))
	return c
}

// admit checks what both directions take: a batch of n bytes at the start of buf, a topic's
// name and a partition.
func (f *Filter) admit(buf []byte, n int, topic []byte, partition int32) abi.Status {
	if !f.ready {
		return abi.StatusNotConfigured
	}
	if n < 0 || n > len(buf) || len(topic) == 0 || len(topic) > abi.MaxTopicLen || partition < 0 {
		return abi.StatusBadArgument
	}
	return abi.StatusOK
}

// reserved reports whether a topic is one of ours rather than the client's.
func reserved(topic []byte) bool {
	return bytes.HasPrefix(topic, []byte(abi.ControlPrefix))
}

// plain reports whether the policy passes a topic through untouched.
func (f *Filter) plain(topic []byte) bool {
	return f.config.Mode(unsafe.String(unsafe.SliceData(topic), len(topic))) == abi.ModePlain // not kept
}

// pass counts a batch of n bytes that goes on as it came.
func (f *Filter) pass(n int) (abi.Result, abi.Status) {
	f.counters[abi.CounterPassedBatches]++
	return abi.Result{Length: uint32(n), Flags: abi.FlagUntouched}, abi.StatusOK
}

// finish counts refusals. What a refused or unfinished call tells of the batch is its length
// alone, beside the kid or capacity that the caller must provide.
func (f *Filter) finish(n int, r abi.Result, s abi.Status) (abi.Result, abi.Status) {
	if s >= abi.StatusMalformed && s < abi.StatusNotConfigured {
		f.counters[abi.CounterRefusedBatches]++
	}
	switch s {
	case abi.StatusOK, abi.StatusNeedSpace:
	case abi.StatusNeedRoot:
		r = abi.Result{Length: uint32(n), Kid: r.Kid}
	default:
		r = abi.Result{Length: uint32(n)}
	}
	return r, s
}
