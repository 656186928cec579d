package conformance

import (
	"bytes"
	"context"
	"fmt"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
	"github.com/wasm-e2ee/wasm-e2ee/tests/reference"
)

const (
	testTopic     = "conformance"
	testPartition = 5
	testNow       = 1_700_000_000_000
)

var (
	testConfig = abi.Config{MaxDecompressed: 4 << 20}
	testKid    = abi.Kid{0xC0, 1, 2, 3, 4, 5, 6, 7}
	testRoot   = [abi.KeySize]byte{0x5E, 0xC2, 0xE7, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29}
)

// lease is a lease of the test's root from level on.
func lease(start uint32, level uint8) *abi.Lease {
	return &abi.Lease{
		Kid: testKid, UseBy: testNow, Start: start, Level: level,
		Node: reference.Node(testRoot, start, int(level)), Topic: testTopic,
	}
}

func rootBlock() []byte {
	return (&abi.Root{Kid: testKid, Root: testRoot, Topic: testTopic}).Append(nil)
}

// ready returns an instance that can seal and open the test's topic.
func (m *module) ready(ctx context.Context) (*instance, error) {
	in, err := m.configured(ctx, testConfig)
	if err != nil {
		return nil, err
	}
	err = in.expect(ctx, abi.StatusOK, abi.FuncInstallLease, lease(0, 0).Append(nil))
	if err == nil {
		err = in.expect(ctx, abi.StatusOK, abi.FuncInstallRoot, rootBlock())
	}
	if err != nil {
		in.close(ctx)
		return nil, err
	}
	return in, nil
}

// client is a client's batch of count uncompressed records with values of size bytes.
func client(count, size int) []byte {
	var section []byte
	for i := range count {
		r := kafka.Record{
			TimestampDelta: int64(i), OffsetDelta: int32(i),
			Key: fmt.Appendf(nil, "%d", i), Value: bytes.Repeat([]byte{'v'}, size),
		}
		section = r.Append(section)
	}
	return reference.Join(kafka.BatchHeader{
		LastOffsetDelta: int32(count - 1), NumRecords: int32(count), ProducerID: 9, BaseSequence: 3,
		BaseTimestamp: testNow, MaxTimestamp: testNow + int64(count-1),
	}, section)
}

func (in *instance) seal(ctx context.Context, b []byte) (outcome, error) {
	return in.batch(ctx, abi.FuncSealBatch, b, len(b), testTopic, testPartition, testNow)
}

func (in *instance) open(ctx context.Context, b []byte) (outcome, error) {
	return in.batch(ctx, abi.FuncOpenBatch, b, len(b), testTopic, testPartition, testNow)
}

// sealed seals a client's batch and wants it to succeed.
func (in *instance) sealed(ctx context.Context, b []byte) ([]byte, error) {
	o, err := in.seal(ctx, b)
	if err == nil && o.status != abi.StatusOK {
		err = fmt.Errorf("a sound batch is not sealed: %s", describe(o.status))
	}
	return o.batch, err
}

// uncompressed returns the reference's packed batch of a client's batch, under leaf 7.
func uncompressed(client []byte) ([]byte, error) {
	s := reference.Seal{Root: testRoot, Kid: testKid, Leaf: 7, Salt: [8]byte{1, 2, 3}, Topic: testTopic, Partition: testPartition}
	return s.Batch(client)
}
