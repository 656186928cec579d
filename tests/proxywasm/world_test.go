package proxywasm

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wasm-e2ee/wasm-e2ee/abi/plugin"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/agent"
	"github.com/wasm-e2ee/wasm-e2ee/host/config"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
	"github.com/wasm-e2ee/wasm-e2ee/host/lease"
	"github.com/wasm-e2ee/wasm-e2ee/host/sidecar"
	"github.com/wasm-e2ee/wasm-e2ee/tests/artifact"
)

// A world is a realm, a cluster, and a tap before each of its brokers.
type world struct {
	t       *testing.T
	cluster *kfake.Cluster
	root    *keyring.Root
	issuer  *keyring.Issuer
	module  string
	taps    []*tap
}

func newWorld(t *testing.T, brokers int, topics ...string) *world {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(brokers), kfake.SeedTopics(3, topics...),
		kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0", "message.max.bytes": "20971520"}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	root, err := keyring.NewRealm(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	issuer, err := root.CertifyIssuer(rand.Reader, now, now.Add(24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, cluster: cluster, root: root, issuer: issuer, module: filepath.Join(t.TempDir(), "e2ee.wasm")}
	if err := os.WriteFile(w.module, artifact.Module(t), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, address := range cluster.ListenAddrs() {
		w.taps = append(w.taps, newTap(t, address))
	}
	return w
}

// forwarded reports whether any broker was sent b.
func (w *world) forwarded(b string) bool {
	for _, tap := range w.taps {
		if tap.saw(b) {
			return true
		}
	}
	return false
}

var (
	producing = keyring.Attributes{Roles: wire.RoleProduce}
	consuming = keyring.Attributes{Roles: wire.RoleConsume, Groups: []wire.Pattern{{Name: "billing"}}}
)

// file is the configuration of a newly enrolled node.
func (w *world) file(want keyring.Attributes) *config.File {
	w.t.Helper()
	want.Topics = []wire.Pattern{{Name: "orders", Prefix: true}}
	want.OfflineAllow = time.Hour
	state, err := keyring.NewState(rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	now := time.Now()
	credential, err := w.issuer.Issue(rand.Reader, state.Node().CSR(want), nil, keyring.Validity{NotBefore: now, NotAfter: now.Add(12 * time.Hour)})
	if err != nil {
		w.t.Fatal(err)
	}
	if err := state.Node().Install(credential, now); err != nil {
		w.t.Fatal(err)
	}
	dir := w.t.TempDir()
	store, err := agent.OpenStore(filepath.Join(dir, "node.state"))
	if err != nil {
		w.t.Fatal(err)
	}
	if err := store.SaveState(state); err != nil {
		w.t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		w.t.Fatal(err)
	}
	file := &config.File{Listen: "127.0.0.1:0", State: filepath.Join(dir, "node.state"), Module: w.module}
	file.Bootstrap = w.cluster.ListenAddrs()
	return file
}

// An office is `wasm-e2ee agent`, which can be stopped and started.
type office struct {
	w    *world
	file *config.File
	key  *lease.Key
	stop func()
}

// office prepares an agent that does not run yet.
func (w *world) office(want keyring.Attributes) *office {
	w.t.Helper()
	o := &office{w: w, file: w.file(want), stop: func() {}}
	var err error
	if o.key, err = lease.NewKey(rand.Reader); err != nil {
		w.t.Fatal(err)
	}
	dir := filepath.Dir(o.file.State)
	o.file.Agent = config.Agent{Listen: "unix:" + filepath.Join(dir, "a.sock"), PairingKeyFile: filepath.Join(dir, "pairing.key")}
	if err := os.WriteFile(o.file.Agent.PairingKeyFile, lease.MarshalKey(o.key), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return o
}

func (o *office) start() *office {
	o.w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s, err := sidecar.StartKeyServer(ctx, o.file, slog.New(slog.DiscardHandler))
	if err != nil {
		cancel()
		o.w.t.Fatal(err)
	}
	o.stop = sync.OnceFunc(func() {
		cancel()
		if err := s.Wait(); err != nil {
			o.w.t.Error(err)
		}
	})
	o.w.t.Cleanup(func() { o.stop() })
	return o
}

// A setup is what a test changes of a proxy before it starts.
type setup struct {
	plugin  plugin.Config
	options Options
}

// proxy runs e2ee.wasm before each broker, with keys of o.
func (w *world) proxy(o *office, workers int, change func(*setup)) *Proxy {
	w.t.Helper()
	p, err := Start(w.options(o, workers, change))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(p.Close)
	return p
}

func (w *world) options(o *office, workers int, change func(*setup)) Options {
	w.t.Helper()
	realm := w.root.Realm()
	s := setup{plugin.Config{Realm: hex.EncodeToString(realm[:]), AgentCluster: "agent", Brokers: plugin.Brokers{ByID: map[int32]string{}}},
		Options{Module: artifact.Module(w.t), Workers: workers, Reload: time.Millisecond, LogLevel: LevelInfo,
			Environment: map[string]string{plugin.KeyVariable: strings.TrimSpace(string(lease.MarshalKey(o.key)))},
			Clusters:    map[string]string{"agent": o.file.Agent.Listen}}}
	for i, tap := range w.taps {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			w.t.Fatal(err)
		}
		w.t.Cleanup(func() { ln.Close() })
		s.plugin.Brokers.ByID[int32(i)] = ln.Addr().String()
		s.options.Listeners = append(s.options.Listeners, Listener{On: ln, Upstream: tap.address})
	}
	if change != nil {
		change(&s)
	}
	text, err := s.plugin.Append(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	s.options.Configuration = text
	return s.options
}

// client is a Kafka client of the broker, proxy or sidecar at address.
func (w *world) client(address string, opts ...kgo.Opt) *kgo.Client {
	w.t.Helper()
	c, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(address), kgo.DefaultProduceTopic("orders"), kgo.ProducerLinger(0),
		kgo.MetadataMinAge(20 * time.Millisecond), kgo.RetryTimeout(60 * time.Second)}, opts...)...)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(c.Close)
	return c
}

func (w *world) context() context.Context {
	ctx, cancel := context.WithTimeout(w.t.Context(), 60*time.Second)
	w.t.Cleanup(cancel)
	return ctx
}

// keyOf is the key of the record with value.
func keyOf(value string) []byte { return []byte("key of " + value[:min(len(value), 60)]) }

// produce produces values, a record each.
func (w *world) produce(c *kgo.Client, values []string) {
	w.t.Helper()
	var records []*kgo.Record
	for _, v := range values {
		records = append(records, &kgo.Record{Value: []byte(v), Key: keyOf(v)})
	}
	if err := c.ProduceSync(w.context(), records...).FirstErr(); err != nil {
		w.t.Fatal(err)
	}
}

// consume polls until each of values was there, and wants nothing else and nothing twice.
func (w *world) consume(c *kgo.Client, values []string) {
	w.t.Helper()
	missing := map[string]bool{}
	for _, v := range values {
		missing[v] = true
	}
	ctx := w.context()
	for len(missing) > 0 {
		fetches := c.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			w.t.Fatalf("%v, and %d of %d records missing", err, len(missing), len(values))
		}
		fetches.EachRecord(func(r *kgo.Record) {
			v := string(r.Value)
			if !missing[v] || !bytes.Equal(r.Key, keyOf(v)) {
				w.t.Fatalf("a record of %d bytes that was not expected, or twice: %.40q", len(v), v)
			}
			delete(missing, v)
		})
	}
}

// reader consumes orders from the start, in the group that the credential lists.
func (w *world) reader(address string) *kgo.Client {
	w.t.Helper()
	return w.client(address, kgo.ConsumeTopics("orders"), kgo.ConsumerGroup("billing"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(200*time.Millisecond))
}

// A tap stands before a broker: it keeps what the broker was sent, and can be out of order.
type tap struct {
	address, broker string
	mu              sync.Mutex
	sent            []byte
	down            bool
	conns           map[net.Conn]bool
}

func newTap(t *testing.T, broker string) *tap {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tp := &tap{address: ln.Addr().String(), broker: broker, conns: map[net.Conn]bool{}}
	t.Cleanup(func() {
		ln.Close()
		tp.cut(true)
	})
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go tp.join(conn)
		}
	}()
	return tp
}

func (tp *tap) join(conn net.Conn) {
	broker, err := net.Dial("tcp", tp.broker)
	if err != nil {
		conn.Close()
		return
	}
	tp.mu.Lock()
	down := tp.down
	tp.conns[conn], tp.conns[broker] = true, true
	tp.mu.Unlock()
	end := func() {
		conn.Close()
		broker.Close()
		tp.mu.Lock()
		delete(tp.conns, conn)
		delete(tp.conns, broker)
		tp.mu.Unlock()
	}
	defer end()
	if down {
		return
	}
	go func() {
		defer end()
		io.Copy(conn, broker)
	}()
	io.Copy(writer(func(b []byte) (int, error) {
		tp.mu.Lock()
		tp.sent = append(tp.sent, b...)
		tp.mu.Unlock()
		return broker.Write(b)
	}), conn)
}

// cut ends all connections, and new ones at once while down.
func (tp *tap) cut(down bool) {
	tp.mu.Lock()
	defer tp.mu.Unlock()
	tp.down = down
	for c := range tp.conns {
		c.Close()
	}
}

func (tp *tap) saw(b string) bool {
	tp.mu.Lock()
	defer tp.mu.Unlock()
	return bytes.Contains(tp.sent, []byte(b))
}

func (tp *tap) total() int {
	tp.mu.Lock()
	defer tp.mu.Unlock()
	return len(tp.sent)
}

type writer func(b []byte) (int, error)

func (w writer) Write(b []byte) (int, error) { return w(b) }
