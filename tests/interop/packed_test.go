// Package interop holds the packed format against a real Apache Kafka: what the module seals
// must be stored, whatever the topic's settings, and what comes back must open to the
// client's batch. And it holds the Go code against a second implementation, in python/, that
// was written from abi/PROTOCOL.md alone.
package interop

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
	"github.com/wasm-e2ee/wasm-e2ee/module/filter"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/broker"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/deps"
	"github.com/wasm-e2ee/wasm-e2ee/tests/reference"
)

// settings are topics by what they do to batches.
var settings = map[string]map[string]string{
	"as-it-came":   {},
	"uncompressed": {"compression.type": "uncompressed"},
	"gzip":         {"compression.type": "gzip"},
	"snappy":       {"compression.type": "snappy"},
	"lz4":          {"compression.type": "lz4"},
	"zstd":         {"compression.type": "zstd"},
	"append-time":  {"message.timestamp.type": "LogAppendTime"},
	"zstd-append-time": {
		"compression.type": "zstd", "message.timestamp.type": "LogAppendTime",
	},
}

// batch is a client's batch of count records of size bytes.
func batch(count, size int, now int64) []byte {
	var records []kafka.Record
	for i := range count {
		records = append(records, kafka.Record{OffsetDelta: int32(i), Value: bytes.Repeat([]byte{'x'}, size)})
	}
	return reference.Join(kafka.BatchHeader{
		PartitionLeaderEpoch: -1, LastOffsetDelta: int32(count - 1), NumRecords: int32(count),
		BaseTimestamp: now - 5, MaxTimestamp: now, ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1,
	}, reference.Section(records...))
}

func TestKafkaStoresWhatIsSealedAndGivesItBack(t *testing.T) {
	deps.Need(t, deps.Kafka)
	cluster, err := broker.Start(t.TempDir(), broker.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Kill()
	client, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(cluster.Bootstrap, ",")...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for topic, config := range settings {
		t.Run(topic, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			pointers := map[string]*string{}
			for k, v := range config {
				pointers[k] = &v
			}
			if _, err := kadm.NewClient(client).CreateTopic(ctx, 1, 1, pointers, topic); err != nil {
				t.Fatal(err)
			}
			f := filter.New(rand.Reader)
			kid, root := abi.Kid{1, 2, 3}, [abi.KeySize]byte{4, 5, 6}
			now := time.Now().UnixMilli()
			for _, s := range []abi.Status{
				f.Configure(abi.Config{MaxDecompressed: 16 << 20}),
				f.InstallLease(&abi.Lease{Kid: kid, UseBy: uint64(now), Node: root, Topic: topic}),
				f.InstallRoot(&abi.Root{Kid: kid, Root: root, Topic: topic}),
			} {
				if s != abi.StatusOK {
					t.Fatal(s)
				}
			}
			var sent [][]byte
			for _, count := range []int{1, 2, 9, 10, 11, 12, 13, 64, 65, 66, 1000, 8192, 8193, 9000, 20_000} {
				size := 100
				if count > 9000 {
					size = 1
				}
				b := batch(count, size, now)
				buf := make([]byte, 2*len(b)+200)
				r, s := f.SealBatch(buf, copy(buf, b), []byte(topic), 0, uint64(now))
				if s != abi.StatusOK {
					t.Fatal(s)
				}
				if err := produce(ctx, client, topic, buf[:r.Length]); err != nil {
					if topic == "uncompressed" && count == 9000 {
						t.Logf("%d records, %d bytes sealed: %v", count, r.Length, err)
						continue // the broker undoes the frame, and then the limit holds
					}
					t.Fatalf("%d records, %d bytes sealed: %v", count, r.Length, err)
				}
				sent = append(sent, b)
			}
			offset := int64(0)
			for i, want := range sent {
				stored, err := fetch(ctx, client, topic, offset)
				if err != nil {
					t.Fatal(err)
				}
				h, err := kafka.ParseBatchHeader(stored)
				if err != nil {
					t.Fatal(err)
				}
				buf := make([]byte, 2*len(stored)+len(want))
				r, s := f.OpenBatch(buf, copy(buf, stored), []byte(topic), 0)
				if s != abi.StatusOK {
					t.Fatalf("batch %d (%v, %d bytes): %v", i, h.Codec(), len(stored), s)
				}
				w, err := kafka.ParseBatchHeader(want)
				if err != nil {
					t.Fatal(err)
				}
				w.BaseOffset, w.PartitionLeaderEpoch = offset, h.PartitionLeaderEpoch
				if h.LogAppendTime() {
					w.Attributes |= kafka.AttrLogAppendTime
					w.MaxTimestamp = h.MaxTimestamp
				}
				if !bytes.Equal(buf[:r.Length], reference.Join(w, want[kafka.BatchHeaderSize:])) {
					t.Fatalf("batch %d came back otherwise", i)
				}
				offset += int64(h.LastOffsetDelta) + 1
			}
		})
	}
}

// produce sends one batch as it is.
func produce(ctx context.Context, client *kgo.Client, topic string, b []byte) error {
	req := kmsg.NewPtrProduceRequest()
	req.Acks, req.TimeoutMillis = -1, 10_000
	rt := kmsg.NewProduceRequestTopic()
	rt.Topic = topic
	rp := kmsg.NewProduceRequestTopicPartition()
	rp.Records = b
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	var err error
	for ctx.Err() == nil {
		req.Topics[0].TopicID, err = topicID(ctx, client, topic)
		if err != nil {
			return err
		}
		var resp *kmsg.ProduceResponse
		if resp, err = req.RequestWith(ctx, client.Broker(1)); err != nil {
			return err
		}
		p := resp.Topics[0].Partitions[0]
		if err = kerr.ErrorForCode(p.ErrorCode); err == nil || !kerr.IsRetriable(err) {
			if p.ErrorMessage != nil {
				err = fmt.Errorf("%w: %s", err, *p.ErrorMessage)
			}
			return err
		}
	}
	return err
}

// fetch returns the one batch at an offset.
func fetch(ctx context.Context, client *kgo.Client, topic string, offset int64) ([]byte, error) {
	req := kmsg.NewPtrFetchRequest()
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes = 1000, 1, 1
	req.SessionEpoch = -1
	ft := kmsg.NewFetchRequestTopic()
	ft.Topic = topic
	var err error
	if ft.TopicID, err = topicID(ctx, client, topic); err != nil {
		return nil, err
	}
	fp := kmsg.NewFetchRequestTopicPartition()
	fp.FetchOffset, fp.PartitionMaxBytes, fp.CurrentLeaderEpoch = offset, 1, -1
	ft.Partitions = append(ft.Partitions, fp)
	req.Topics = append(req.Topics, ft)
	resp, err := req.RequestWith(ctx, client.Broker(1))
	if err != nil {
		return nil, err
	}
	p := resp.Topics[0].Partitions[0]
	if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
		return nil, err
	}
	size, err := kafka.BatchSize(p.RecordBatches)
	if err != nil {
		return nil, fmt.Errorf("offset %d: %d bytes: %w", offset, len(p.RecordBatches), err)
	}
	return p.RecordBatches[:size], nil
}

func topicID(ctx context.Context, client *kgo.Client, topic string) ([16]byte, error) {
	topics, err := kadm.NewClient(client).ListTopics(ctx, topic)
	if err != nil {
		return [16]byte{}, err
	}
	return topics[topic].ID, topics[topic].Err
}
