// Package stored measures what sealing adds to the broker's disk: the same batches go through
// a sidecar and past it, and the log segments of both topics are compared.
package stored

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wasm-e2ee/wasm-e2ee/tests/bench/report"
	"github.com/wasm-e2ee/wasm-e2ee/tests/bench/run"
	"github.com/wasm-e2ee/wasm-e2ee/tests/bench/stand"
)

// A shape is one kind of batch.
type shape struct {
	name    string
	records int // in a batch
	codec   kgo.CompressionCodec
	value   func(*rand.Rand) []byte
	most    float64 // bytes stored to the same without us; 0: nothing is asked
}

var shapes = []shape{
	{"client zstd, 1 KiB JSON records in batches of 100", 100, kgo.ZstdCompression(), document, 1.05},
	{"no codec, 100 B records in batches of 1,000", 1000, kgo.NoCompression(), hundred, 1.12},
	{"client zstd, one 1 KiB JSON record in each batch", 1, kgo.ZstdCompression(), document, 0},
	{"no codec, one 100 B record in each batch", 1, kgo.NoCompression(), hundred, 0},
}

// Rows sends every shape both ways. The result has no spread: sizes are what they are.
func Rows(ctx context.Context, o run.Options) ([]report.Row, error) {
	s, err := stand.Start(ctx, o, false)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	batches := run.Pick(o, 200, 20)
	var rows []report.Row
	for i, shape := range shapes {
		if !o.Wants(shape.name) {
			continue
		}
		o.Log("%s", shape.name)
		var sides []report.Side
		for _, way := range []struct{ name, bootstrap, topic string }{
			{"sealed", s.Sidecar.Addr, fmt.Sprintf("%sstored-%d", stand.SealedTopics, i)},
			{"direct", s.Kafka.Bootstrap, fmt.Sprintf("direct-stored-%d", i)},
		} {
			if err := s.CreateTopic(ctx, way.topic, 1); err != nil {
				return nil, err
			}
			if err := send(ctx, way.bootstrap, way.topic, shape, batches); err != nil {
				return nil, fmt.Errorf("%s, %s: %w", shape.name, way.name, err)
			}
			size, err := s.Stored(way.topic)
			if err != nil {
				return nil, err
			}
			sides = append(sides, report.Side{Name: way.name, Values: []float64{float64(size) / float64(batches*shape.records)}})
		}
		var target *report.Target
		if shape.most > 0 {
			target = report.AtMost(shape.most)
		}
		row := report.Compare(shape.name, "B/record", target, sides...)
		row.Note = fmt.Sprintf("log segments of Kafka after %d equal batches", batches)
		rows = append(rows, row)
	}
	return rows, nil
}

// send produces the same records, batches and timestamps each time it is called.
func send(ctx context.Context, bootstrap, topic string, s shape, batches int) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	cl, err := kgo.NewClient(kgo.SeedBrokers(bootstrap), kgo.DefaultProduceTopic(topic), kgo.ProducerBatchCompression(s.codec), kgo.ManualFlushing())
	if err != nil {
		return err
	}
	defer cl.Close()
	random := rand.New(rand.NewPCG(1, 2))
	at := time.UnixMilli(1_700_000_000_000)
	for range batches {
		var records []*kgo.Record
		for range s.records {
			at = at.Add(time.Millisecond)
			records = append(records, &kgo.Record{Value: s.value(random), Timestamp: at})
		}
		failed := make(chan error, len(records))
		for _, r := range records {
			cl.Produce(ctx, r, func(_ *kgo.Record, err error) { failed <- err })
		}
		if err := cl.Flush(ctx); err != nil {
			return err
		}
		for range records {
			if err := <-failed; err != nil {
				return err
			}
		}
	}
	return nil
}
