package proxywasm

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	mrand "math/rand/v2"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wasm-e2ee/wasm-e2ee/abi/plugin"
	"github.com/wasm-e2ee/wasm-e2ee/host/lease"
)

// impatient has a Produce wait for its lease no longer than a test wants to.
func impatient(s *setup) { s.plugin.ProduceWaitMs = 300 }

// once is a producer that does not try again.
var once = []kgo.Opt{kgo.RecordRetries(0), kgo.DisableIdempotentWrite(), kgo.RequiredAcks(kgo.AllISRAcks())}

// refused wants a produce to fail in a way that clients try again.
func (w *world) refused(p *Proxy, value string) {
	w.t.Helper()
	c := w.client(p.Addr(0), once...)
	defer c.Close()
	err := c.ProduceSync(w.context(), &kgo.Record{Value: []byte(value)}).FirstErr()
	if !errors.Is(err, kerr.NotEnoughReplicas) || !kerr.IsRetriable(err) {
		w.t.Errorf("without a lease: %v", err)
	}
	if w.forwarded(value) {
		w.t.Error("a broker was sent plaintext")
	}
}

func TestWithoutAnAgentProducersAreToldToTryAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, "orders")
	reading := w.proxy(w.office(consuming).start(), 1, nil)
	o := w.office(producing)
	p := w.proxy(o, 1, impatient)
	w.refused(p, canary+" early")
	if p.Logged("the agent cannot be reached") == 0 {
		t.Errorf("nothing in the log of an agent that is not there: %v", p.Log())
	}
	o.start()
	w.produce(w.client(p.Addr(0)), values("later", 10))
	o.stop()
	w.produce(w.client(p.Addr(0)), values("on the lease", 1)) // which outlives its agent
	o.start()
	w.produce(w.client(p.Addr(0)), values("again", 10))
	w.consume(w.reader(reading.Addr(0)), slices.Concat(values("later", 10), values("on the lease", 1), values("again", 10)))
	if w.forwarded(canary) {
		t.Error("a broker was sent plaintext")
	}
}

func TestAnotherPairingKeyGivesNoKeys(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, "orders")
	o := w.office(producing).start()
	other, err := lease.NewKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p := w.proxy(o, 1, func(s *setup) {
		impatient(s)
		s.options.Environment[plugin.KeyVariable] = string(lease.MarshalKey(other))
	})
	w.refused(p, canary)
	eventually(t, "the failures are counted", func() bool { return count(p, "agent_failures_total") > 0 })
	if count(p, "agent_handshakes_total") != 0 {
		t.Error("a handshake succeeded")
	}
}

func TestAConfigurationIsRefusedWithItsReason(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, "orders")
	o := w.office(producing)
	for want, change := range map[string]func(*setup){
		"agent_cluster is empty": func(s *setup) { s.plugin.AgentCluster = "" },
		plugin.KeyVariable:       func(s *setup) { delete(s.options.Environment, plugin.KeyVariable) },
		"realm":                  func(s *setup) { s.plugin.Realm = "12" },
		"on_unreadable":          func(s *setup) { s.plugin.Policy.OnUnreadable = "sometimes" },
	} {
		p, err := Start(w.options(o, 1, change))
		if err == nil {
			p.Close()
		}
		if err == nil || !strings.Contains(err.Error(), "configuration refused") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestInjectedPlaintextIsNotDelivered(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, "orders")
	p := w.proxy(w.office(consuming).start(), 1, nil)
	producer := w.proxy(w.office(producing).start(), 1, nil)
	w.produce(w.client(producer.Addr(0), kgo.RecordPartitioner(kgo.ManualPartitioner())), values("genuine", 3))
	direct := w.client(w.cluster.ListenAddrs()[0], kgo.RecordPartitioner(kgo.ManualPartitioner()))
	w.produce(direct, values("injected", 1))
	r := w.client(p.Addr(0), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{"orders": {0: kgo.NewOffset().AtStart()}}), kgo.KeepRetryableFetchErrors())
	ctx, seen := w.context(), 0
	for {
		fetches := r.PollFetches(ctx)
		fetches.EachRecord(func(r *kgo.Record) {
			if seen++; strings.Contains(string(r.Value), "injected") {
				t.Fatal("injected plaintext was delivered")
			}
		})
		if err := fetches.Err(); err != nil {
			if !errors.Is(err, kerr.TopicAuthorizationFailed) {
				t.Errorf("the consumer is told %v", err)
			}
			break
		}
	}
	if seen != 3 {
		t.Errorf("%d records before it, of 3", seen)
	}
	eventually(t, "the refusal is counted", func() bool {
		n := uint64(0)
		for name, v := range p.Metrics() {
			if strings.HasPrefix(name, "wasm_e2ee_refusals_total.direction.open.") {
				n += v
			}
		}
		return n > 0
	})
	if p.Logged("batch cannot be opened") == 0 {
		t.Errorf("nothing in the log of it: %v", p.Log())
	}
}

func TestABrokerGoesAndComesBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, "orders")
	reading := w.proxy(w.office(consuming).start(), 1, nil)
	writing := w.proxy(w.office(producing).start(), 1, nil)
	c, r := w.client(writing.Addr(0)), w.reader(reading.Addr(0))
	w.produce(c, values("before", 10))
	w.consume(r, values("before", 10))
	w.taps[0].cut(true)
	if conn, err := net.Dial("tcp", writing.Addr(0)); err == nil {
		conn.SetDeadline(time.Now().Add(60 * time.Second))
		if b, _ := io.ReadAll(conn); len(b) != 0 {
			t.Errorf("%q without a broker", b)
		}
		conn.Close()
	}
	w.taps[0].cut(false)
	w.produce(c, values("after", 10))
	w.consume(r, values("after", 10))
}

func TestATrapHurtsItsWorkerAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, "orders")
	reading := w.proxy(w.office(consuming).start(), 1, nil)
	p := w.proxy(w.office(producing).start(), 2, nil)
	c := w.client(p.Addr(0))
	w.produce(c, values("before", 10))
	one, two := rawClient(t, p.Addr(0)), rawClient(t, p.Addr(0))
	if one.RemoteAddr() == nil || two.ask(1) != nil || one.ask(1) != nil {
		t.Fatal("no answer")
	}
	p.Trap(0)
	if a, b := one.ask(2), two.ask(2); (a == nil) == (b == nil) {
		t.Errorf("of a connection on each worker: %v, %v", a, b)
	}
	three, four := rawClient(t, p.Addr(0)), rawClient(t, p.Addr(0))
	if err := errors.Join(three.ask(1), four.ask(1)); err != nil {
		t.Errorf("after the trap: %v", err)
	}
	w.produce(c, values("after", 10))
	w.consume(w.reader(reading.Addr(0)), slices.Concat(values("before", 10), values("after", 10)))
	if s := p.State(); s[0].Loads != 2 || s[1].Loads != 1 || s[0].Failed {
		t.Errorf("%+v", s)
	}
}

// A raw is a client that writes its frames itself.
type raw struct{ net.Conn }

func rawClient(t *testing.T, address string) raw {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(60 * time.Second))
	return raw{conn}
}

func frame(r kmsg.Request, version int16, id int32) []byte {
	r.SetVersion(version)
	return kmsg.NewRequestFormatter().AppendRequest(nil, r, id)
}

// answer reads one response and returns its correlation id, and what follows.
func (c raw) answer() (id int32, body []byte, err error) {
	var head [4]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return 0, nil, err
	}
	body = make([]byte, binary.BigEndian.Uint32(head[:]))
	if _, err := io.ReadFull(c, body); err != nil {
		return 0, nil, err
	}
	if len(body) < 4 {
		return 0, nil, io.ErrUnexpectedEOF
	}
	return int32(binary.BigEndian.Uint32(body)), body[4:], nil
}

// ask wants an answer to ApiVersions.
func (c raw) ask(id int32) error {
	if _, err := c.Write(frame(kmsg.NewPtrApiVersionsRequest(), 0, id)); err != nil {
		return err
	}
	got, _, err := c.answer()
	if err == nil && got != id {
		err = errors.New("another answer")
	}
	return err
}

func TestPipelinedRequestsAreAnsweredInOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, "orders")
	p := w.proxy(w.office(producing), 1, nil)
	c := rawClient(t, p.Addr(0))
	const n = 500 // more than one stream may have under way
	var all []byte
	for id := range int32(n) {
		if id%2 == 0 {
			all = append(all, frame(kmsg.NewPtrApiVersionsRequest(), 0, id)...)
		} else {
			all = append(all, frame(kmsg.NewPtrMetadataRequest(), 4, id)...)
		}
	}
	go c.Write(all)
	for id := range int32(n) {
		got, body, err := c.answer()
		if err != nil || got != id {
			t.Fatalf("answer %d: id %d, %v", id, got, err)
		}
		if id%2 == 1 && bytes.Contains(body, []byte(w.taps[0].broker)) {
			t.Fatal("the broker's own address")
		}
	}
}

func TestGarbageClosesItsConnectionAndNoOther(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, "orders")
	p := w.proxy(w.office(producing).start(), 2, nil)
	good := rawClient(t, p.Addr(0))
	if err := good.ask(1); err != nil {
		t.Fatal(err)
	}
	random := mrand.New(mrand.NewPCG(1, 2))
	for i := range 1000 {
		c := rawClient(t, p.Addr(0))
		b := make([]byte, 1+random.IntN(2000))
		for j := range b {
			b[j] = byte(random.Uint32())
		}
		switch i % 4 {
		case 0: // a frame of a plausible length
			if len(b) > 4 {
				binary.BigEndian.PutUint32(b, uint32(len(b)-4))
			}
		case 1: // a request with a body of garbage
			f := frame(kmsg.NewPtrApiVersionsRequest(), 0, 1)
			binary.BigEndian.PutUint16(f[4:], uint16(i%70))
			f = append(f, b...)
			binary.BigEndian.PutUint32(f, uint32(len(f)-4))
			b = f
		case 2: // a length that is too great
			if len(b) > 4 {
				binary.BigEndian.PutUint32(b, 1<<31-1)
			}
		}
		c.Write(b)
		c.Conn.(*net.TCPConn).CloseWrite()
		if _, err := io.Copy(io.Discard, c); errors.Is(err, net.ErrClosed) {
			t.Fatal(err)
		}
		c.Close()
	}
	eventually(t, "contexts are deleted", func() bool {
		s := p.State()
		return s[0].Streams+s[1].Streams == 1
	})
	if err := good.ask(2); err != nil {
		t.Errorf("a good connection beside them: %v", err)
	}
	for i, s := range p.State() {
		if s.Failed || s.Loads != 1 {
			t.Errorf("worker %d trapped: %v", i, p.Log())
		}
		if s.Memory > 16<<20 {
			t.Errorf("worker %d has grown to %d bytes", i, s.Memory)
		}
	}
	eventually(t, "closed connections are counted", func() bool { return count(p, "closed_connections_total.fault.client") > 0 })
}

func TestLargeFramesPassAndMemoryIsFlat(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, "orders")
	reading := w.proxy(w.office(consuming).start(), 1, nil)
	p := w.proxy(w.office(producing).start(), 1, nil)
	c := w.client(p.Addr(0), kgo.ProducerBatchMaxBytes(16<<20), kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	r := w.client(reading.Addr(0), kgo.ConsumeTopics("orders"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxBytes(32<<20), kgo.FetchMaxPartitionBytes(32<<20))
	var memory [2]uint32
	for i := range 8 {
		large := []string{canary + strings.Repeat(string(rune('a'+i)), 10<<20)}
		w.produce(c, large)
		w.consume(r, large)
		if i == 3 {
			memory = [2]uint32{p.State()[0].Memory, reading.State()[0].Memory}
		}
	}
	if after := [2]uint32{p.State()[0].Memory, reading.State()[0].Memory}; after != memory {
		t.Errorf("memory of %d bytes after 4 large frames, %d after 8", memory, after)
	}
	for range 100 {
		w.produce(c, values("small", 1))
	}
	if after := p.State()[0].Memory; after != memory[0] {
		t.Errorf("memory of %d bytes, after 100 batches %d", memory[0], after)
	}
	if w.forwarded(canary) {
		t.Error("a broker was sent plaintext")
	}
}

// TestASlowReaderHoldsUpNobodyElse asks for much and reads none of it.
func TestASlowReaderHoldsUpNobodyElse(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, "orders")
	p := w.proxy(w.office(consuming).start(), 1, func(s *setup) { s.options.BufferLimit = 256 << 10 })
	producer := w.proxy(w.office(producing).start(), 1, nil)
	all := []string{"a" + strings.Repeat("x", 1<<20), "b" + strings.Repeat("y", 1<<20)}
	c := w.client(producer.Addr(0), kgo.ProducerBatchMaxBytes(4<<20), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(kgo.NoCompression()))
	for _, v := range all {
		w.produce(c, []string{v})
	}
	w.consume(w.client(p.Addr(0), kgo.ConsumeTopics("orders"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart())), all) // so that the root is there
	slow := rawClient(t, p.Addr(0))
	slow.Conn.(*net.TCPConn).SetReadBuffer(16 << 10)
	fetch := kmsg.NewPtrFetchRequest()
	fetch.MaxBytes, fetch.MinBytes, fetch.MaxWaitMillis = 4<<20, 1, 100
	topic := kmsg.NewFetchRequestTopic()
	topic.Topic = "orders"
	partition := kmsg.NewFetchRequestTopicPartition()
	partition.PartitionMaxBytes = 4 << 20
	topic.Partitions = append(topic.Partitions, partition)
	fetch.Topics = append(fetch.Topics, topic)
	slow.SetWriteDeadline(time.Now().Add(time.Second))
	for id := range int32(40) {
		if _, err := slow.Write(frame(fetch, 11, id)); err != nil {
			break
		}
	}
	pending := func() (n int) {
		p.workers[0].do(func() {
			for c := range p.workers[0].conns {
				n = max(n, c.down.pending)
			}
		})
		return n
	}
	eventually(t, "the slow reader is behind", func() bool { return pending() > 256<<10 })
	if err := rawClient(t, p.Addr(0)).ask(1); err != nil {
		t.Errorf("a client beside it: %v", err)
	}
	if n := pending(); n > 8<<20 {
		t.Errorf("%d bytes for one client that does not read", n)
	}
	for id := range int32(5) { // it is all there, once it does read
		got, body, err := slow.answer()
		if err != nil || got != id || len(body) < 2<<20 {
			t.Fatalf("answer %d: id %d, %d bytes, %v", id, got, len(body), err)
		}
	}
}
