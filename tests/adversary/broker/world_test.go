package broker

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/hpke"
	crand "crypto/rand"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/agent"
	"github.com/wasm-e2ee/wasm-e2ee/host/config"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
	"github.com/wasm-e2ee/wasm-e2ee/host/sidecar"
	"github.com/wasm-e2ee/wasm-e2ee/tests/artifact"
)

// timing is short, so that a run sees several epochs and prekeys.
var timing = config.Timing{
	Epoch: 3 * time.Second, Lead: 500 * time.Millisecond,
	PrekeyRotation: 2 * time.Second, PrekeyGrace: time.Second,
	Skew: 500 * time.Millisecond, Settle: 500 * time.Millisecond, Window: time.Second,
	HardCap: time.Hour, Offline: time.Hour,
}

// build is a folder with e2ee.wasm and the cache of its compiled form.
var build struct {
	sync.Mutex
	dir string
}

// module returns the folder, which is filled once.
func module(t *testing.T) string {
	build.Lock()
	defer build.Unlock()
	if build.dir == "" {
		dir, err := os.MkdirTemp("", "e2ee-broker-")
		must(t, err)
		build.dir = dir
		must(t, os.WriteFile(filepath.Join(dir, "e2ee.wasm"), artifact.Module(t), 0o600))
	}
	return build.dir
}

func TestMain(m *testing.M) {
	flag.Parse()
	// The worlds wait most of their time, for epochs to end and clients to retry.
	if err := flag.Set("test.parallel", "7"); err != nil {
		panic(err)
	}
	code := m.Run()
	_ = os.RemoveAll(build.dir)
	os.Exit(code)
}

// A logBook keeps what the sidecars log.
type logBook struct {
	mu    sync.Mutex
	lines []string
}

func (l *logBook) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, string(b))
	return len(b), nil
}

func (l *logBook) size() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.lines)
}

// from returns the lines from number n on.
func (l *logBook) from(n int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines[n:], "")
}

// about returns the lines from number n on that contain one of these.
func (l *logBook) about(n int, what ...string) (out string) {
	for line := range strings.Lines(l.from(n)) {
		if slices.ContainsFunc(what, func(s string) bool { return strings.Contains(line, s) }) {
			out += line
		}
	}
	return out
}

// says reports whether a line from number n on contains both.
func (l *logBook) says(n int, what, where string) bool {
	for line := range strings.Lines(l.from(n)) {
		if strings.Contains(line, what) && strings.Contains(line, where) {
			return true
		}
	}
	return false
}

// A world is a cluster behind the editor, a realm, and nodes with their sidecars.
type world struct {
	t       *testing.T
	rng     *rand.Rand
	seen    *observations
	edit    *editor
	addr    string
	dir     string
	log     *logBook
	admin   *kgo.Client
	issuer  *keyring.Issuer
	written sync.Map // values of control records that the test wrote
	policy  config.Policy
	kafka   *kfake.Cluster

	consumerCred  *wire.Credential
	consumerState string
	mallory       member
	malloryKEM    [wire.KEMPublicSize]byte
	judas         member // who may read everything, and share
	consumer      *sidecar.Sidecar
	stopConsumer  func()
	late, leaver  *newcomer

	live struct { // agents that run
		sync.Mutex
		agents  map[*agent.Agent]bool
		members map[wire.NodeID]bool // who may read the topics
	}
	authority struct {
		sync.Mutex
		latest *wire.AuthorityState
	}

	ids struct { // of topics
		sync.Mutex
		by map[string][16]byte
	}
}

const (
	topicPrefix = "orders-"
	group       = "readers" // without a member nothing is past anything, and nothing is erased
)

func newWorld(t *testing.T, seed uint64) *world { return newWorldUnder(t, seed, config.Policy{}) }

// newWorldUnder makes a world in which the sidecars have this policy.
func newWorldUnder(t *testing.T, seed uint64, policy config.Policy) *world {
	t.Helper()
	t.Logf("seed %d, on_unreadable %q, freshness %q", seed, policy.OnUnreadable, policy.Freshness)
	w := &world{t: t, policy: policy, rng: rand.New(rand.NewPCG(seed, 2)), dir: t.TempDir(), log: &logBook{}}
	w.ids.by = map[string][16]byte{}
	w.seen = newObservations(func(topic string, node wire.NodeID) bool {
		w.live.Lock()
		defer w.live.Unlock()
		return w.live.members[node] && strings.HasPrefix(topic, topicPrefix)
	})
	w.live.agents, w.live.members = map[*agent.Agent]bool{}, map[wire.NodeID]bool{}
	w.edit = newEditor(seed, w.seen)
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.ListenFn(w.edit.listen))
	must(t, err)
	t.Cleanup(cluster.Close)
	w.kafka = cluster
	w.addr = cluster.ListenAddrs()[0]
	w.admin, err = kgo.NewClient(kgo.SeedBrokers(w.addr), kgo.ClientID(honest), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.DisableIdempotentWrite(), kgo.MetadataMinAge(10*time.Millisecond),
		kgo.ProducerBatchMaxBytes(2<<20))
	must(t, err)
	t.Cleanup(w.admin.Close)
	w.makeRealm()
	w.consumerState = w.enrol("consumer", readers(wire.RoleConsume|wire.RoleShare))
	w.consumer, w.stopConsumer = w.stopping("consumer", w.consumerState)
	w.mallory = w.newMember(keyring.Attributes{Roles: wire.RoleConsume, Topics: []wire.Pattern{{Name: "of-her-own"}}, OfflineAllow: time.Hour})
	kem, err := hpke.MLKEM768X25519().GenerateKey()
	must(t, err)
	copy(w.malloryKEM[:], kem.PublicKey().Bytes())
	w.judas = w.newMember(readers(wire.RoleConsume | wire.RoleShare))
	w.publish()
	return w
}

// readers is what a member of the group may.
func readers(roles wire.Roles) keyring.Attributes {
	return keyring.Attributes{Roles: roles, Topics: []wire.Pattern{{Prefix: true, Name: topicPrefix}}, Groups: []wire.Pattern{{Name: group}}, OfflineAllow: time.Hour}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) makeRealm() {
	root, err := keyring.NewRealm(crand.Reader)
	must(w.t, err)
	w.issuer, err = root.CertifyIssuer(crand.Reader, time.Now(), time.Now().Add(3*time.Hour))
	must(w.t, err)
}

func (w *world) issue(csr []byte) []byte {
	file, err := w.issuer.Issue(crand.Reader, csr, nil, keyring.Validity{NotBefore: time.Now(), NotAfter: time.Now().Add(2 * time.Hour)})
	must(w.t, err)
	return file
}

// enrol makes the state of a node in a file.
func (w *world) enrol(name string, want keyring.Attributes) string {
	state, err := keyring.NewState(crand.Reader)
	must(w.t, err)
	defer state.Wipe()
	must(w.t, state.Node().Install(w.issue(state.Node().CSR(want)), time.Now()))
	cred := state.Node().Credential()
	if name == "consumer" {
		w.consumerCred = cred
	}
	if want.Roles.Has(wire.RoleConsume) {
		w.live.Lock()
		w.live.members[cred.Node] = true
		w.live.Unlock()
	}
	path := filepath.Join(w.dir, name+".state")
	store, err := agent.OpenStore(path)
	must(w.t, err)
	must(w.t, errors.Join(store.Save(state.Marshal()), store.Close()))
	return path
}

func (w *world) enrolProducer(name string) string {
	return w.enrol(name, keyring.Attributes{Roles: wire.RoleProduce, Topics: []wire.Pattern{{Prefix: true, Name: topicPrefix}}})
}

// newMember makes a member whose key the broker has.
func (w *world) newMember(want keyring.Attributes) member {
	pub, key, err := ed25519.GenerateKey(crand.Reader)
	must(w.t, err)
	csr := &wire.CSR{Subject: wire.PublicKey(pub), OfflineAllow: uint32(want.OfflineAllow / time.Second), Roles: want.Roles, Topics: want.Topics, Groups: want.Groups}
	copy(csr.Signature[:], ed25519.Sign(key, csr.SignatureInput(wire.Digest{})))
	_, chain, err := keyring.ParseCredentialFile(w.issue(pem.EncodeToMemory(&pem.Block{Type: "KX1 SIGNING REQUEST", Bytes: csr.Append(nil)})))
	must(w.t, err)
	return member{key, chain[0]}
}

// publish puts on the roster the members whose keys the broker has. The one of them that
// publishes a prekey may read nothing of ours.
func (w *world) publish() {
	cred := w.mallory.cred
	now := uint64(time.Now().UnixMilli())
	b := &wire.PrekeyBundle{Realm: cred.Realm, Node: cred.Node, Credential: cred.Serial, Generation: now, Created: now,
		NotAfter: now + 3600_000, KEMPub: w.malloryKEM}
	w.mallory.sign(wire.TypePrekeyBundle, b.AppendBody(nil), &b.Signature)
	if !w.roster(cred.Key(), cred.Append(nil)) || !w.roster(b.Key(), b.Append(nil)) || !w.roster(w.judas.cred.Key(), w.judas.cred.Append(nil)) {
		w.t.Error("the roster was not written")
	}
}

// start runs a sidecar until the test ends; see stopping for one that ends before.
func (w *world) start(name, state string) *sidecar.Sidecar {
	side, _ := w.stopping(name, state)
	return side
}

func (w *world) stopping(name, state string) (*sidecar.Sidecar, func()) {
	w.t.Helper()
	side, stop, err := w.launch(name, state, "127.0.0.1:0")
	if err != nil {
		w.t.Fatalf("%s's sidecar: %v", name, err)
	}
	return side, stop
}

// file is how a node is configured.
func (w *world) file(state, listen string) *config.File {
	return &config.File{
		Cluster: config.Cluster{Bootstrap: []string{w.addr}}, Listen: listen, State: state, Module: filepath.Join(module(w.t), "e2ee.wasm"),
		CacheDir: filepath.Join(module(w.t), "cache"), Policy: w.policy, Timing: timing,
	}
}

func (w *world) launch(name, state, listen string) (*sidecar.Sidecar, func(), error) {
	ctx, cancel := context.WithCancel(context.Background())
	side, err := sidecar.Start(ctx, w.file(state, listen), slog.New(slog.NewTextHandler(w.log, nil)).With("sidecar", name))
	if err != nil {
		cancel()
		return nil, nil, err
	}
	w.runs(side.Agent, true)
	stop := sync.OnceFunc(func() { w.runs(side.Agent, false); cancel(); _ = side.Wait() })
	w.t.Cleanup(stop)
	return side, stop, nil
}

// restartConsumer ends the consumer's sidecar and starts it again, on its state and address.
func (w *world) restartConsumer() bool {
	addr := w.consumer.Addr().String()
	w.stopConsumer()
	return eventually(10*time.Second, func() bool {
		side, stop, err := w.launch("consumer", w.consumerState, addr)
		if err != nil {
			w.t.Logf("the consumer's sidecar: %v", err)
			return false
		}
		w.consumer, w.stopConsumer = side, stop
		return true
	})
}

func (w *world) runs(a *agent.Agent, live bool) {
	w.live.Lock()
	defer w.live.Unlock()
	if delete(w.live.agents, a); live {
		w.live.agents[a] = true
	}
}

// alarms is how many of a kind the agents that run have raised.
func (w *world) alarms(kind agent.Alarm) (n uint64) {
	w.live.Lock()
	defer w.live.Unlock()
	for a := range w.live.agents {
		n += a.Snapshot().Alarms[kind]
	}
	return n
}

// makeTopics makes topics under the prefix, known to the editor at once.
func (w *world) makeTopics(partitions int32, names ...string) []string {
	w.t.Helper()
	for i := range names {
		names[i] = topicPrefix + names[i]
	}
	admin := kadm.NewClient(w.admin)
	made, err := admin.CreateTopics(w.t.Context(), partitions, 1, nil, names...)
	if err == nil {
		err = made.Error()
	}
	must(w.t, err)
	for _, topic := range made.Sorted() {
		w.ids.Lock()
		w.ids.by[topic.Topic] = topic.ID
		w.ids.Unlock()
		w.edit.mu.Lock()
		w.edit.names[topic.ID] = topic.Topic
		w.edit.mu.Unlock()
	}
	return names
}

// write appends one record to a control topic, as the broker can.
func (w *world) write(topic string, partition int32, key, value []byte) bool {
	w.written.Store(string(value), true)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	err := w.admin.ProduceSync(ctx, &kgo.Record{Topic: topic, Partition: partition, Key: key, Value: value}).FirstErr()
	if err != nil {
		w.t.Logf("topic %s: %v", topic, err)
	}
	return err == nil
}

// wrote reports whether write was given this value.
func (w *world) wrote(value []byte) bool {
	_, ok := w.written.Load(string(value))
	return ok
}

// append appends a stored batch once more.
func (w *world) append(at place, batch []byte) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	p := kmsg.NewProduceRequestTopicPartition()
	p.Partition, p.Records = at.partition, anonymous(batch)
	topic := kmsg.NewProduceRequestTopic()
	topic.Topic, topic.Partitions = at.topic, append(topic.Partitions, p)
	w.ids.Lock()
	topic.TopicID = w.ids.by[at.topic]
	w.ids.Unlock()
	req := kmsg.NewPtrProduceRequest()
	req.Acks, req.TimeoutMillis, req.Topics = -1, 5000, append(req.Topics, topic)
	resp, err := req.RequestWith(ctx, w.admin)
	if err != nil {
		w.t.Logf("append to %v: %v", at, err)
		return false
	}
	code := resp.Topics[0].Partitions[0].ErrorCode
	if code != 0 {
		w.t.Logf("append to %v: error %d", at, code)
	}
	return code == 0
}

// A traffic is plain clients that produce and consume, and what they sent and got.
type traffic struct {
	w        *world
	producer *kgo.Client

	showShares func() // to the newcomers

	mu     sync.Mutex
	sent   map[string]*kgo.Record // by value; all that was ever tried
	got    map[string]int64       // offsets, by value
	n      int
	faults []string
}

func newTraffic(w *world) *traffic {
	tr := &traffic{w: w, sent: map[string]*kgo.Record{}, got: map[string]int64{}}
	w.t.Cleanup(func() {
		if tr.producer != nil {
			tr.producer.Close()
		}
	})
	return tr
}

// produceThrough makes the producer's client speak to side.
func (tr *traffic) produceThrough(side *sidecar.Sidecar) {
	if tr.producer != nil {
		tr.producer.Close()
	}
	var err error
	tr.producer, err = kgo.NewClient(kgo.SeedBrokers(side.Addr().String()), kgo.ClientID(producerClient),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.RecordDeliveryTimeout(20*time.Second), kgo.RetryBackoffFn(func(int) time.Duration { return 50 * time.Millisecond }),
		kgo.MetadataMinAge(20*time.Millisecond))
	must(tr.w.t, err)
}

// consume follows topics with a client of its own until stop is called.
func (tr *traffic) consume(topics ...string) (stop func()) {
	return tr.consumeWith(kgo.ConsumeTopics(topics...))
}

func (tr *traffic) consumeWith(opts ...kgo.Opt) (stop func()) {
	cl, err := kgo.NewClient(append(opts, kgo.SeedBrokers(tr.w.consumer.Addr().String()), kgo.ClientID(consumerClient),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(50*time.Millisecond),
		kgo.RetryBackoffFn(func(int) time.Duration { return 50 * time.Millisecond }), kgo.MetadataMinAge(20*time.Millisecond))...)
	must(tr.w.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			cl.PollFetches(ctx).EachRecord(tr.match)
		}
	}()
	return sync.OnceFunc(func() { cancel(); <-done; cl.Close() })
}

// match compares a delivered record with what was sent.
func (tr *traffic) match(r *kgo.Record) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	fault := func(format string, args ...any) {
		tr.faults = append(tr.faults, fmt.Sprintf("%s/%d offset %d: ", r.Topic, r.Partition, r.Offset)+fmt.Sprintf(format, args...))
	}
	sent := tr.sent[string(r.Value)]
	if sent == nil {
		fault("delivered, but never sent: %.40q", r.Value)
		return
	}
	tr.w.seen.mu.Lock()
	times := tr.w.seen.times[place{r.Topic, r.Partition}]
	tr.w.seen.mu.Unlock()
	switch {
	case sent.Topic != r.Topic || sent.Partition != r.Partition:
		fault("was sent to %s/%d", sent.Topic, sent.Partition)
	case !bytes.Equal(sent.Key, r.Key) || len(r.Headers) != 1 || !bytes.Equal(sent.Headers[0].Value, r.Headers[0].Value):
		fault("another key or header than was sent")
	case !times && sent.Timestamp.UnixMilli() != r.Timestamp.UnixMilli():
		fault("timestamp %v, sent with %v", r.Timestamp, sent.Timestamp)
	}
	if before, ok := tr.got[string(r.Value)]; ok && before != r.Offset {
		fault("was delivered at offset %d already", before)
	}
	tr.got[string(r.Value)] = r.Offset
}

// records makes n records for a place, which count as sent from now on.
func (tr *traffic) records(at place, n int) (out []*kgo.Record) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for range n {
		tr.n++
		r := &kgo.Record{Topic: at.topic, Partition: at.partition, Timestamp: time.Now(),
			Key: fmt.Appendf(nil, "key %d %s", tr.n, marker), Value: fmt.Appendf(nil, "value %d %s", tr.n, marker),
			Headers: []kgo.RecordHeader{{Key: "trace", Value: fmt.Appendf(nil, "%d %s", tr.n, marker)}}}
		copied := *r
		tr.sent[string(r.Value)] = &copied
		out = append(out, r)
	}
	return out
}

// send produces one batch of n records and waits until it is acknowledged.
func (tr *traffic) send(at place, n int) ([]*kgo.Record, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	records := tr.records(at, n)
	return records, tr.producer.ProduceSync(ctx, records...).FirstErr()
}

// arrived reports whether all of records were delivered.
func (tr *traffic) arrived(records []*kgo.Record) bool {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for _, r := range records {
		if _, ok := tr.got[string(r.Value)]; !ok {
			return false
		}
	}
	return true
}

// check fails the test where an invariant did not hold.
func (tr *traffic) check() {
	tr.w.t.Helper()
	tr.mu.Lock()
	faults := append([]string{}, tr.faults[:min(len(tr.faults), 20)]...)
	delivered := len(tr.got)
	tr.mu.Unlock()
	o := tr.w.seen
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, f := range append(faults, o.faults...) {
		tr.w.t.Error(f)
	}
	if delivered == 0 || o.wraps == 0 || len(o.leaves) == 0 {
		tr.w.t.Errorf("nothing to judge: %d records delivered, %d wraps, %d sealed batches", delivered, o.wraps, len(o.leaves))
	}
	tr.w.t.Logf("%d requests, %d sealed batches, %d wraps, %d records delivered of %d", o.requests, len(o.leaves), o.wraps, delivered, len(tr.sent))
}

// eventually polls until ok holds, and reports whether it came to that.
func eventually(limit time.Duration, ok func() bool) bool {
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return true
		}
	}
	return ok()
}
