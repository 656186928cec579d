package main

import (
	"context"
	"crypto/rand"
	"math"
	"sync"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
	"github.com/wasm-e2ee/wasm-e2ee/module/filter"
	"github.com/wasm-e2ee/wasm-e2ee/module/ratchet"
)

const (
	topic     = "bench"
	partition = 3
)

var config = abi.Config{MaxDecompressed: 64 << 20}

// keys is an epoch of its own, without a realm: leases are cut as an agent cuts them.
type keys struct {
	mu    sync.Mutex
	kid   abi.Kid
	root  ratchet.Node
	stack ratchet.Stack
}

func newKeys() *keys {
	k := &keys{}
	rand.Read(k.kid[:])
	rand.Read(k.root[:])
	top := k.root
	k.stack.Reset(0, 0, &top)
	return k
}

// leaseLevel gives leases of 2^16 leaves.
const leaseLevel = 8

// Lease implements engine.Keys.
func (k *keys) Lease(context.Context, string) (abi.Lease, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	l := abi.Lease{Kid: k.kid, UseBy: math.MaxInt64, Topic: topic}
	var node ratchet.Node
	start, level, ok := k.stack.Cut(leaseLevel, &node)
	if !ok {
		return l, abi.StatusUnavailable
	}
	l.Start, l.Level, l.Node = start, level, node
	return l, nil
}

// Root implements engine.Keys.
func (k *keys) Root(context.Context, string, int32, abi.Kid) (abi.Root, error) {
	return abi.Root{Kid: k.kid, Root: k.root, Topic: topic}, nil
}

// Opened implements engine.Keys: it remembers nothing.
func (k *keys) Opened(string, abi.Kid, uint32, int32, int64) error { return nil }

// native is the module's logic compiled for this machine.
type native struct {
	filter *filter.Filter
	keys   *keys
	buf    []byte
}

func newNative(k *keys) (*native, error) {
	n := &native{filter: filter.New(rand.Reader), keys: k, buf: make([]byte, 4<<20)}
	if err := n.filter.Configure(config).Err(); err != nil {
		return nil, err
	}
	root, _ := k.Root(context.Background(), topic, 0, k.kid)
	return n, n.filter.InstallRoot(&root).Err()
}

// seal copies the batch first, as a host must.
func (n *native) seal(batch []byte) error {
	copy(n.buf, batch)
	_, status := n.filter.SealBatch(n.buf, len(batch), []byte(topic), partition, uint64(time.Now().UnixMilli()))
	if status == abi.StatusNeedLease {
		lease, err := n.keys.Lease(context.Background(), topic)
		if err != nil {
			return err
		}
		if err := n.filter.InstallLease(&lease).Err(); err != nil {
			return err
		}
		return n.seal(batch)
	}
	return status.Err()
}

func (n *native) open(sealed []byte) error {
	copy(n.buf, sealed)
	_, status := n.filter.OpenBatch(n.buf, len(sealed), []byte(topic), partition)
	return status.Err()
}

// makeBatch makes a client's uncompressed batch of about size bytes, of records whose
// values are recordSize bytes.
func makeBatch(recordSize, size int) []byte {
	value := make([]byte, recordSize)
	b := make([]byte, kafka.BatchHeaderSize)
	n := int32(0)
	for ; len(b) < size; n++ {
		r := kafka.Record{OffsetDelta: n, Value: value}
		b = r.Append(b)
	}
	h := kafka.BatchHeader{BatchLength: int32(len(b) - 12), Magic: kafka.BatchMagic, LastOffsetDelta: n - 1,
		BaseTimestamp: 1700000000000, MaxTimestamp: 1700000000000, ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1, NumRecords: n}
	h.Put(b)
	kafka.SetBatchCRC(b)
	return b
}
