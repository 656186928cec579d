// Package stand runs what the benchmark measures: a real Kafka, a sidecar and a Kroxylicious
// in front of it, each a process of its own; and says what a process uses.
package stand

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wasm-e2ee/wasm-e2ee/tests/bench/run"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/broker"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/deps"
)

// A Stand is the processes, on the loopback address of one machine.
type Stand struct {
	Kafka   *broker.Cluster
	Sidecar *Server
	Peer    *Peer // nil: it was not asked for

	admin *kadm.Client
}

// Start starts all of it in a run's folder; Close ends it.
func Start(ctx context.Context, o run.Options, peer bool) (*Stand, error) {
	if !deps.Have(deps.Kafka) {
		return nil, errors.New("Apache Kafka has not been fetched\nhint: make deps-kafka")
	}
	s := &Stand{}
	if err := s.start(ctx, o, peer); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Stand) start(ctx context.Context, o run.Options, peer bool) (err error) {
	o.Log("starting Kafka")
	// Topics that a round is through with are deleted: not a minute later.
	if s.Kafka, err = broker.Start(filepath.Join(o.Dir, "kafka"), broker.Options{Properties: map[string]string{"log.segment.delete.delay.ms": "100"}}); err != nil {
		return err
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(s.Kafka.Bootstrap))
	if err != nil {
		return err
	}
	s.admin = kadm.NewClient(cl)
	o.Log("starting the sidecar")
	sidecar, err := StartSidecar(ctx, o, filepath.Join(o.Dir, "sidecar"), s.Kafka.Bootstrap)
	if err != nil {
		return err
	}
	s.Sidecar = sidecar
	if peer {
		o.Log("starting Kroxylicious")
		s.Peer, err = StartKroxylicious(ctx, filepath.Join(o.Dir, "peer"), s.Kafka.Bootstrap)
	}
	return err
}

// CreateTopic makes a topic with one replica, which takes batches of more than a client makes:
// Kroxylicious does not send on what has outgrown the broker's default limit.
func (s *Stand) CreateTopic(ctx context.Context, topic string, partitions int) error {
	limit := "16000000"
	_, err := s.admin.CreateTopic(ctx, int32(partitions), 1, map[string]*string{"max.message.bytes": &limit}, topic)
	return err
}

// DeleteTopic gives a topic's disk back.
func (s *Stand) DeleteTopic(ctx context.Context, topic string) error {
	_, err := s.admin.DeleteTopic(ctx, topic)
	return err
}

// Stored is what the broker's log of a topic takes, in bytes, without indexes.
func (s *Stand) Stored(topic string) (int64, error) {
	segments, err := s.Kafka.Segments(topic)
	if err != nil {
		return 0, err
	}
	var size int64
	for _, path := range segments {
		info, err := os.Stat(path)
		if err != nil {
			return 0, err
		}
		size += info.Size()
	}
	return size, nil
}

// Close ends every process.
func (s *Stand) Close() {
	if s.Peer != nil {
		s.Peer.Kill()
	}
	if s.Sidecar != nil {
		s.Sidecar.Stop(10 * time.Second)
	}
	if s.admin != nil {
		s.admin.Close()
	}
	if s.Kafka != nil {
		s.Kafka.Kill()
	}
}
