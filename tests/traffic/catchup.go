package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wasm-e2ee/wasm-e2ee/host/agent"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/broker"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/deps"
)

// catchUp measures what a consumer does first that was away for a while: 20 producers went on
// to grant 20 topics every T, with one wrap for it in each grant of its partition, on a real
// Kafka. Nobody has read the topics yet, so that it keeps every key.
func catchUp(away time.Duration) error {
	if !deps.Have(deps.Kafka) {
		return errors.New("Apache Kafka has not been fetched\nhint: make deps-kafka")
	}
	dir, err := os.MkdirTemp("", "wasm-e2ee-catchup-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	cluster, err := broker.Start(filepath.Join(dir, "kafka"), broker.Options{})
	if err != nil {
		return err
	}
	defer cluster.Kill()
	operator := []kgo.Opt{kgo.SeedBrokers(cluster.Bootstrap)}

	f, err := newFleet(shape{1, 20, keyring.DefaultTiming()}, time.Now().Add(-away))
	if err != nil {
		return err
	}
	grants, err := f.goOn(away)
	if err != nil {
		return err
	}
	if err := write(operator, f.roster, grants); err != nil {
		return err
	}
	path := filepath.Join(dir, "node.state")
	store, err := agent.OpenStore(path)
	if err == nil {
		err = errors.Join(store.SaveState(f.consumers[0].state), store.Close())
	}
	if err != nil {
		return err
	}

	want := int64(len(grants) * topics)
	received := &counter{message: "root received", want: want, reached: make(chan struct{})}
	ctx, stop := context.WithTimeout(context.Background(), 30*time.Minute)
	defer stop()
	begin, used := time.Now(), cpu()
	a, err := agent.Open(ctx, agent.Config{Kafka: operator, StateFile: path, Log: slog.New(received)})
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	select {
	case <-received.reached:
	case err := <-ended:
		return fmt.Errorf("the agent ended after %d of %d keys: %v", received.n.Load(), want, err)
	}
	took, used := time.Since(begin), cpu()-used
	stop()
	begin = time.Now()
	if err := <-ended; err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	var bytes int64
	for _, g := range grants {
		bytes += stored(g)
	}
	fmt.Printf("A consumer that was away for %v reads %d grants (%.1f MB) with %d keys in %v, of %v processor time: %v for each grant. Its state file is %.1f MB then.\n",
		away, len(grants), float64(bytes)/1e6, want, took.Round(100*time.Millisecond), used.Round(100*time.Millisecond),
		(took / time.Duration(len(grants))).Round(10*time.Microsecond), float64(info.Size())/1e6)
	return nil
}

// goOn lets the consumer publish a prekey and the producers go on for a while without it. It
// returns their grants' parts of the consumer's partition.
func (f *fleet) goOn(length time.Duration) ([]keyring.Record, error) {
	c := f.consumers[0]
	rec, err := c.keys.NewPrekey(f.now)
	if err != nil {
		return nil, err
	}
	f.publish(append(c.state.Node().RosterRecords(), rec)...)
	if err := f.follow(&c.peer, func(rec keyring.Record) error {
		_, err := c.keys.NoteRoster(rec.Key, rec.Value, f.now)
		return err
	}); err != nil {
		return nil, err
	}
	for _, p := range f.producers {
		f.publish(p.state.Node().RosterRecords()...)
	}
	for end := f.now.Add(length); f.now.Before(end); f.now = f.now.Add(f.timing.Epoch) {
		for _, p := range f.producers {
			if err := f.produce(p, false); err != nil {
				return nil, err
			}
		}
	}
	return c.inbox, nil
}

// write makes the topics and puts the records into the control topics.
func write(operator []kgo.Opt, roster, grants []keyring.Record) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cl, err := kgo.NewClient(append(operator, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(kgo.NoCompression()))...)
	if err != nil {
		return err
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	value := func(s string) *string { return &s }
	for _, t := range []struct {
		name       string
		partitions int32
		config     map[string]*string
	}{
		{keyring.RosterTopic, 1, map[string]*string{"cleanup.policy": value("compact")}},
		{keyring.GrantsTopic, keyring.GrantPartitions, map[string]*string{"message.timestamp.type": value("LogAppendTime")}},
	} {
		if _, err := adm.CreateTopic(ctx, t.partitions, 1, t.config, t.name); err != nil {
			return fmt.Errorf("topic %s: %w", t.name, err)
		}
	}
	for i := range topics {
		if _, err := adm.CreateTopic(ctx, 6, 1, nil, topic(i)); err != nil {
			return fmt.Errorf("topic %s: %w", topic(i), err)
		}
	}
	var records []*kgo.Record
	for _, rec := range roster {
		records = append(records, &kgo.Record{Topic: keyring.RosterTopic, Key: rec.Key, Value: rec.Value})
	}
	for _, rec := range grants {
		records = append(records, &kgo.Record{Topic: keyring.GrantsTopic, Partition: rec.Partition, Key: rec.Key, Value: rec.Value})
	}
	return cl.ProduceSync(ctx, records...).FirstErr()
}

// A counter is a log that counts the lines with one message.
type counter struct {
	message string
	want    int64
	reached chan struct{} // closed with the line that completes want
	n       atomic.Int64
}

func (c *counter) Enabled(context.Context, slog.Level) bool { return true }

func (c *counter) Handle(_ context.Context, r slog.Record) error {
	switch {
	case r.Level >= slog.LevelWarn:
		fmt.Fprintln(os.Stderr, r.Message)
	case r.Message == c.message && c.n.Add(1) == c.want:
		close(c.reached)
	}
	return nil
}

func (c *counter) WithAttrs([]slog.Attr) slog.Handler { return c }
func (c *counter) WithGroup(string) slog.Handler      { return c }
