package raw

import (
	"encoding/binary"
	"hash/crc32"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

// FirstBatch reads partition 0 of a topic from its broker, as batches stand on its disk.
func FirstBatch(t testing.TB, bootstrap, topic string) []byte {
	t.Helper()
	req := kmsg.NewPtrFetchRequest()
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes = 1000, 1, 50<<20
	p := kmsg.NewFetchRequestTopicPartition()
	p.PartitionMaxBytes = 50 << 20
	ft := kmsg.NewFetchRequestTopic()
	ft.Topic, ft.Partitions = topic, append(ft.Partitions, p)
	req.Topics = append(req.Topics, ft)
	resp := Ask(t, bootstrap, topic, req).(*kmsg.FetchResponse)
	got := resp.Topics[0].Partitions[0]
	if err := kerr.ErrorForCode(got.ErrorCode); err != nil || len(got.RecordBatches) < 61 {
		t.Fatalf("topic %s: %d B, %v", topic, len(got.RecordBatches), err)
	}
	// One batch: the first.
	size := 12 + int(binary.BigEndian.Uint32(got.RecordBatches[8:]))
	return append([]byte(nil), got.RecordBatches[:size]...)
}

// Store has the broker itself store a batch, as whoever can reach it may.
func Store(t testing.TB, bootstrap, topic string, partition int32, batch []byte) {
	t.Helper()
	req := kmsg.NewPtrProduceRequest()
	req.Acks, req.TimeoutMillis = -1, 10_000
	p := kmsg.NewProduceRequestTopicPartition()
	p.Partition, p.Records = partition, batch
	pt := kmsg.NewProduceRequestTopic()
	pt.Topic, pt.Partitions = topic, append(pt.Partitions, p)
	req.Topics = append(req.Topics, pt)
	resp := Ask(t, bootstrap, topic, req).(*kmsg.ProduceResponse)
	if err := kerr.ErrorForCode(resp.Topics[0].Partitions[0].ErrorCode); err != nil {
		t.Fatalf("the broker refuses the batch: %v", err)
	}
}

// Ask sends one request to the only broker, in a version that still names topics.
func Ask(t testing.TB, bootstrap, topic string, req kmsg.Request) kmsg.Response {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(bootstrap), kgo.MaxVersions(kversion.V2_8_0()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	resp, err := cl.SeedBrokers()[0].RetriableRequest(t.Context(), req)
	if err != nil {
		t.Fatalf("topic %s: %v", topic, err)
	}
	return resp
}

// Anonymous makes a batch one that belongs to no producer, with a valid checksum, so that the
// broker takes it wherever it stands.
func Anonymous(batch []byte) []byte {
	binary.BigEndian.PutUint16(batch[21:], binary.BigEndian.Uint16(batch[21:])&^0x10) // not transactional
	binary.BigEndian.PutUint64(batch[43:], ^uint64(0))                                // producer id
	binary.BigEndian.PutUint16(batch[51:], ^uint16(0))                                // producer epoch
	binary.BigEndian.PutUint32(batch[53:], ^uint32(0))                                // base sequence
	return Checksummed(batch)
}

// PlainBatch is a batch with one record, as a client without encryption makes it.
func PlainBatch(value string) []byte {
	record := kmsg.Record{Key: []byte("key"), Value: []byte(value)}
	record.Length = int32(len(record.AppendTo(nil)) - 1)
	b := kmsg.RecordBatch{PartitionLeaderEpoch: -1, Magic: 2, NumRecords: 1, Records: record.AppendTo(nil),
		FirstTimestamp: 1_760_000_000_000, MaxTimestamp: 1_760_000_000_000, ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1}
	b.Length = int32(len(b.AppendTo(nil)) - 12)
	return Checksummed(b.AppendTo(nil))
}

// Checksummed gives a batch the checksum that fits it.
func Checksummed(batch []byte) []byte {
	binary.BigEndian.PutUint32(batch[17:], crc32.Checksum(batch[21:], crc32.MakeTable(crc32.Castagnoli)))
	return batch
}
