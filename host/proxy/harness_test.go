package proxy

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// waitTime bounds everything that a test waits for.
const waitTime = 20 * time.Second

// A rig is a kfake cluster behind a sidecar with a fakeFilter.
type rig struct {
	*testing.T
	cluster *kfake.Cluster
	filter  *fakeFilter
	proxy   *Proxy
	logged  *logLines
	around  *kgo.Client  // goes around the sidecar
	stop    func() error // ends Run and returns what it returned
}

// newRig starts a cluster and a sidecar; edit may change the sidecar's configuration, and
// groups limits the groups.
func newRig(t *testing.T, edit func(*Config), groups Groups, opts ...kfake.Opt) *rig {
	t.Helper()
	cluster, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1), kfake.DefaultNumPartitions(3), kfake.AllowAutoTopicCreation()}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	r := &rig{T: t, cluster: cluster, filter: &fakeFilter{}, logged: &logLines{}}
	cfg := Config{
		Bootstrap: cluster.ListenAddrs(),
		Listen:    "127.0.0.1:0",
		Log:       slog.New(slog.NewTextHandler(r.logged, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if edit != nil {
		edit(&cfg)
	}
	if r.proxy, err = New(cfg, r.filter, groups); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.proxy.Run(ctx) }()
	r.stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	r.around = r.direct()
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Errorf("sidecar: %v", err)
		}
		if t.Failed() {
			t.Logf("sidecar's log:\n%s", r.logged)
		}
	})
	return r
}

func (r *rig) addr() string { return r.proxy.Addr().String() }

// ctx ends with waitTime or the test.
func (r *rig) ctx() context.Context {
	ctx, stop := context.WithTimeout(context.Background(), waitTime)
	r.Cleanup(stop)
	return ctx
}

// client returns a client of the sidecar.
func (r *rig) client(opts ...kgo.Opt) *kgo.Client {
	r.Helper()
	return r.clientOf([]string{r.addr()}, opts...)
}

// direct returns a client that goes around the sidecar.
func (r *rig) direct(opts ...kgo.Opt) *kgo.Client {
	r.Helper()
	return r.clientOf(r.cluster.ListenAddrs(), opts...)
}

func (r *rig) clientOf(seeds []string, opts ...kgo.Opt) *kgo.Client {
	r.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(seeds...), kgo.AllowAutoTopicCreation(),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MetadataMinAge(50 * time.Millisecond),
		kgo.FetchMaxWait(100 * time.Millisecond)}, opts...)...)
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(cl.Close)
	return cl
}

// createTopic makes a topic through the cluster, not the sidecar.
func (r *rig) createTopic(topic string, partitions int32) {
	r.Helper()
	if err := createTopic(r.ctx(), r.around, topic, partitions); err != nil {
		r.Fatal(err)
	}
}

// produce sends values to one partition, each in a batch of its own.
func (r *rig) produce(cl *kgo.Client, topic string, partition int32, values ...string) {
	r.Helper()
	for _, v := range values {
		if err := r.tryProduce(cl, topic, partition, v); err != nil {
			r.Fatalf("produce %s: %v", v, err)
		}
	}
}

func (r *rig) tryProduce(cl *kgo.Client, topic string, partition int32, value string) error {
	rec := &kgo.Record{Topic: topic, Partition: partition, Key: []byte("k"), Value: []byte(value)}
	return cl.ProduceSync(r.ctx(), rec).FirstErr()
}

// consume reads n values of any partition.
func (r *rig) consume(cl *kgo.Client, n int) []string {
	r.Helper()
	ctx := r.ctx()
	var values []string
	for len(values) < n {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			r.Fatalf("consume after %d of %d: %v", len(values), n, err)
		}
		fetches.EachRecord(func(rec *kgo.Record) { values = append(values, string(rec.Value)) })
	}
	return values
}

// from consumes whole topics; a client begins at their start by default.
func from(topics ...string) kgo.Opt { return kgo.ConsumeTopics(topics...) }

// eventually polls until ok holds.
func (r *rig) eventually(what string, ok func() bool) {
	r.Helper()
	for end := time.Now().Add(waitTime); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	r.Fatalf("never happened: %s", what)
}

// dialCounter notes every address that a client connects to.
type dialCounter struct {
	mu    sync.Mutex
	addrs map[string]int
}

func (d *dialCounter) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	d.mu.Lock()
	if d.addrs == nil {
		d.addrs = map[string]int{}
	}
	d.addrs[addr]++
	d.mu.Unlock()
	return (&net.Dialer{}).DialContext(ctx, network, addr)
}

// logLines collects the sidecar's log.
type logLines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logLines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *logLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// count returns how many lines contain all of the words.
func (l *logLines) count(words ...string) int {
	n := 0
	for _, line := range bytes.Split([]byte(l.String()), []byte("\n")) {
		all := true
		for _, w := range words {
			all = all && bytes.Contains(line, []byte(w))
		}
		if all {
			n++
		}
	}
	return n
}

func values(prefix string, n int) []string {
	vs := make([]string, n)
	for i := range vs {
		vs[i] = fmt.Sprintf("%s%04d", prefix, i)
	}
	return vs
}

// listeners returns the addresses of the brokers' listeners.
func (p *Proxy) listeners() []string {
	p.brokers.mu.Lock()
	defer p.brokers.mu.Unlock()
	var addrs []string
	for _, b := range p.brokers.byID {
		addrs = append(addrs, b.ln.Addr().String())
	}
	return addrs
}

func quietLog() *slog.Logger { return slog.New(slog.DiscardHandler) }

// heap returns the bytes in use by the heap and the goroutines' stacks, after a collection.
func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}
