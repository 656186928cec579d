package envoy

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/channel"
	"github.com/wasm-e2ee/wasm-e2ee/module/filter"
	"github.com/wasm-e2ee/wasm-e2ee/module/ratchet"
)

// A relay is what a stream proxy does around one Worker: a listener for each broker, and a tick
// every few milliseconds. It writes to a client only after its broker has said something.
type relay struct {
	mu     sync.Mutex
	worker *Worker
	keys   *Keys
	say    func(q channel.Request) channel.Answer
	stored [][]byte // what brokers received
	err    error    // the first of any stream
}

func (r *relay) serve(t *testing.T, ln net.Listener, broker string) {
	for {
		client, err := ln.Accept()
		if err != nil {
			return
		}
		upstream, err := net.Dial("tcp", broker)
		if err != nil {
			t.Error(err)
			return
		}
		r.join(client, upstream)
	}
}

func (r *relay) join(client, broker net.Conn) {
	r.mu.Lock()
	s := r.worker.NewStream()
	r.mu.Unlock()
	done := make(chan struct{})
	var once sync.Once
	end := func() { once.Do(func() { close(done); client.Close(); broker.Close() }) }
	step := func(fromBroker bool, f func(now uint64) error) bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		err := f(uint64(time.Now().UnixMilli()))
		toBroker, toClient := gathered(s.ToBroker), gathered(s.ToClient)
		if !fromBroker && len(toClient) > 0 {
			err = fmt.Errorf("%d bytes for a client whose broker is silent", len(toClient))
		}
		if err != nil && r.err == nil {
			r.err = err
		}
		r.stored = append(r.stored, toBroker)
		broker.Write(toBroker)
		client.Write(toClient)
		return err == nil
	}
	pump := func(from net.Conn, fromBroker bool, take func(b []byte, now uint64) error) {
		defer end()
		buf := make([]byte, 16<<10)
		for {
			n, err := from.Read(buf)
			if err != nil || !step(fromBroker, func(now uint64) error { return take(buf[:n], now) }) {
				return
			}
		}
	}
	go pump(client, false, s.FromClient)
	go pump(broker, true, s.FromBroker)
	go func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(5 * time.Millisecond):
			}
			step(false, func(now uint64) error {
				r.keys.expire(now)
				if asked := r.keys.requests(now); len(asked) > 0 {
					answers := make([]channel.Answer, len(asked))
					for i, q := range asked {
						answers[i] = r.say(q)
					}
					if err := r.keys.answered(answers, now); err != nil {
						return err
					}
				}
				return s.Resume(now)
			})
		}
	}()
}

var testTree = [abi.KeySize]byte{9}

// slowly is an agent that has each key only when it was asked for it a few times, and that leases
// 16 leaves at a time.
func slowly() func(q channel.Request) channel.Answer {
	tries := map[string]int{}
	trees := map[string]*ratchet.Stack{}
	return func(q channel.Request) channel.Answer {
		var kid abi.Kid
		copy(kid[:], q.Topic)
		what := q.Op.String() + q.Topic
		switch q.Op {
		case channel.OpLease:
			if tries[what]++; tries[what] < 3 {
				return channel.Answer{Status: abi.StatusUnavailable}
			}
			tree := trees[q.Topic]
			if tree == nil {
				tree = &ratchet.Stack{}
				tree.Reset(0, 0, (*ratchet.Node)(&testTree))
				trees[q.Topic] = tree
			}
			l := abi.Lease{Kid: kid, UseBy: uint64(time.Now().Add(time.Hour).UnixMilli()), Topic: q.Topic}
			l.Start, l.Level, _ = tree.Cut(abi.TreeDepth-4, (*ratchet.Node)(&l.Node))
			return channel.Answer{Body: l.Append(nil)}
		case channel.OpRoot:
			if tries[what]++; tries[what] < 3 {
				return channel.Answer{Status: abi.StatusPending}
			}
			r := abi.Root{Kid: q.Kid, Root: testTree, Topic: q.Topic}
			return channel.Answer{Body: r.Append(nil)}
		}
		return generous(true)(q)
	}
}

func TestClientsProduceAndConsumeThroughStreams(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(3), kfake.SeedTopics(4, "orders"))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	f := filter.New(rand.Reader)
	if s := f.Configure(abi.Config{MaxDecompressed: 8 << 20}); s != abi.StatusOK {
		t.Fatal(s)
	}
	r := &relay{keys: NewKeys(f), say: slowly()}
	cfg := Config{Brokers: Brokers{ByID: map[int32]Endpoint{}}}
	var seeds []string
	var listeners []net.Listener
	for id := range cluster.ListenAddrs() {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		at := ln.Addr().(*net.TCPAddr)
		cfg.Brokers.ByID[int32(id)] = Endpoint{at.IP.String(), int32(at.Port)}
		seeds, listeners = append(seeds, at.String()), append(listeners, ln)
	}
	r.worker = NewWorker(cfg, f, r.keys)
	for id, addr := range cluster.ListenAddrs() {
		go r.serve(t, listeners[id], addr)
	}

	ctx, stop := context.WithTimeout(context.Background(), 30*time.Second)
	defer stop()
	const each = 500
	want := map[string]bool{}
	producer, err := kgo.NewClient(kgo.SeedBrokers(seeds...), kgo.DefaultProduceTopic("orders"), kgo.ProducerLinger(0), kgo.MaxBufferedRecords(50))
	if err != nil {
		t.Fatal(err)
	}
	defer producer.Close()
	for i := range each {
		value := fmt.Sprintf("canary %d", i)
		want[value] = true
		producer.Produce(ctx, kgo.StringRecord(value), func(_ *kgo.Record, err error) {
			if err != nil {
				t.Error(err)
			}
		})
	}
	if err := producer.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	consumer, err := kgo.NewClient(kgo.SeedBrokers(seeds...), kgo.ConsumeTopics("orders"), kgo.ConsumerGroup("readers"),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(100*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer consumer.Close()
	for len(want) > 0 && ctx.Err() == nil {
		fetches := consumer.PollFetches(ctx)
		fetches.EachError(func(topic string, p int32, err error) { t.Errorf("%s %d: %v", topic, p, err) })
		fetches.EachRecord(func(rec *kgo.Record) { delete(want, string(rec.Value)) })
	}
	if len(want) > 0 {
		t.Errorf("%d of %d records did not come", len(want), each)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		t.Error(r.err)
	}
	if bytes.Contains(bytes.Join(r.stored, nil), []byte("canary")) {
		t.Error("plaintext reached a broker")
	}
	if s := r.worker.Stats(); s.Sealed == 0 || s.Opened == 0 {
		t.Errorf("%+v", s)
	}
}
