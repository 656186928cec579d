package e2e

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/clients"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/nodes"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/raw"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/records"
)

// Whatever a client sends on the port: its own connection closes, with a line in the log; the
// connections of others live on, and memory stays bounded.
func TestGarbageClosesOnlyItsConnection(t *testing.T) {
	b := sharedBroker(t)
	l := sealed(t, b.Bootstrap, "bad-*", []string{"bad-*"}, nil)
	writer := l.sidecars[0]
	topic := newTopic(t, b.Bootstrap, "bad", 3, nil)
	sent := records.Generate(61, 1500, clients.FranzGo.Shape, records.NewCanaries())
	job := clients.Job{Bootstrap: l.produce, Topic: topic, Group: topic, Codec: "snappy", Records: sent, Count: len(sent), PerSecond: 200}
	healthy := make(chan error, 1)
	go func() { healthy <- clients.FranzGo.Produce(t.Context(), job) }()

	rng := rand.New(rand.NewPCG(6, 1))
	before := settledRSS(t, writer.Pid())
	for name, sends := range raw.Garbage(rng) {
		t.Run(name, func(t *testing.T) {
			c, err := net.Dial("tcp", writer.Addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(10 * time.Second))
			seen := len(writer.Output())
			if _, err := c.Write(sends); err != nil && !raw.IsReset(err) {
				t.Fatal(err)
			}
			answer, err := io.ReadAll(io.LimitReader(c, 1<<20))
			if err != nil && !raw.IsReset(err) {
				t.Fatalf("the connection stays open (%d B answered): %v", len(answer), err)
			}
			nodes.Poll(t, 5*time.Second, "a line in the log that says why", func() bool {
				said := writer.Output()[seen:]
				return strings.Contains(said, "connection closed") || strings.Contains(said, "closed the connection")
			})
		})
	}

	// Lengths that are allowed are not believed before the bytes are there.
	var open []net.Conn
	for range 50 {
		c, err := net.Dial("tcp", writer.Addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.Write(append([]byte{0x05, 0xf0, 0, 0}, raw.Header(0, 8)...)) // 99 MB
		open = append(open, c)
	}
	grown := settledRSS(t, writer.Pid()) - before
	t.Logf("%d clients that announce 99 MB each: %d MB more", len(open), grown>>20)
	if grown > 200<<20 {
		t.Errorf("the sidecar grew by %d MB", grown>>20)
	}

	if err := <-healthy; err != nil {
		t.Errorf("the healthy client: %v", err)
	}
	job.Bootstrap = l.consume
	got, err := clients.FranzGo.Consume(t.Context(), job)
	if err == nil {
		err = records.Compare(sent, got, records.Times{}, false)
	}
	if err != nil {
		t.Errorf("the healthy client's records: %v", err)
	}
}

// A version of ApiVersions that is too new is answered as Kafka answers it: error 35 in a
// body of version 0, and the connection goes on.
func TestApiVersionsOfTheFutureIsAnswered(t *testing.T) {
	b := sharedBroker(t)
	s := nodes.StartSidecar(t, b.Bootstrap, nodes.NewRealm(t).Enroll(t, nodes.Role{Produce: "future-*"}), nil)
	c, err := net.Dial("tcp", s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	c.Write(raw.Framed(append(raw.Header(18, 99), 0, 2, 'x', 2, 'y', 0)))
	body, err := raw.Receive(c)
	if err != nil {
		t.Fatal(err)
	}
	if len(body) < 6 || !bytes.Equal(body[:6], []byte{0, 0, 0, 7, 0, 35}) {
		t.Fatalf("answer %x, want correlation id 7 and error 35", body[:min(20, len(body))])
	}
	v := kmsg.NewPtrApiVersionsRequest()
	v.Version = 0
	if _, err := raw.Exchange(c, v, 8, 10*time.Second); err != nil {
		t.Errorf("after that: %v", err)
	}
}

// Batches that do not hold together are refused, and nothing of them reaches the broker.
func TestBadBatchesAreNotForwarded(t *testing.T) {
	b := sharedBroker(t)
	l := sealed(t, b.Bootstrap, "badbatch-*", []string{"badbatch-*"}, nil)
	topic := newTopic(t, b.Bootstrap, "badbatch", 1, nil)
	produce := func(batch []byte) error {
		c, err := net.Dial("tcp", l.produce)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		req := kmsg.NewPtrProduceRequest()
		req.Version, req.Acks, req.TimeoutMillis = 8, -1, 10_000
		p := kmsg.NewProduceRequestTopicPartition()
		p.Records = batch
		pt := kmsg.NewProduceRequestTopic()
		pt.Topic, pt.Partitions = topic, append(pt.Partitions, p)
		req.Topics = append(req.Topics, pt)
		body, err := raw.Exchange(c, req, 1, 20*time.Second)
		if err != nil {
			if errors.Is(err, io.EOF) || raw.IsReset(err) {
				return errClosed
			}
			t.Fatal(err)
		}
		resp := req.ResponseKind().(*kmsg.ProduceResponse)
		resp.Version = req.Version
		if err := resp.ReadFrom(body); err != nil {
			t.Fatal(err)
		}
		return kerr.ErrorForCode(resp.Topics[0].Partitions[0].ErrorCode)
	}
	change := func(at int, with ...byte) func([]byte) []byte {
		return func(batch []byte) []byte {
			copy(batch[at:], with)
			return batch
		}
	}
	for name, harm := range map[string]func([]byte) []byte{
		"wrong checksum":      change(17, 1, 2, 3, 4),
		"magic 1":             change(16, 1),
		"magic 3":             change(16, 3),
		"negative length":     change(8, 0xff, 0xff, 0xff, 0xff),
		"length beyond":       change(8, 0, 1, 0, 0),
		"negative count":      func(x []byte) []byte { return raw.Checksummed(change(57, 0xff, 0xff, 0xff, 0xff)(x)) },
		"count beyond":        func(x []byte) []byte { return raw.Checksummed(change(57, 0x7f, 0xff, 0xff, 0xff)(x)) },
		"varint that goes on": func(x []byte) []byte { return raw.Checksummed(change(61, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)(x)) },
		"unknown codec":       func(x []byte) []byte { return raw.Checksummed(change(22, 7)(x)) },
		"cut":                 func(x []byte) []byte { return x[:len(x)-3] },
		"cut in its header":   func(x []byte) []byte { return x[:30] },
		"trailing bytes":      func(x []byte) []byte { return append(x, 1, 2, 3) },
		"a control batch":     func(x []byte) []byte { return raw.Checksummed(change(22, 0x20)(x)) },
	} {
		t.Run(name, func(t *testing.T) {
			if err := produce(harm(raw.PlainBatch("secret " + strings.Repeat("x", 200)))); err == nil {
				t.Error("accepted")
			} else {
				t.Log(err)
			}
		})
	}
	if n := endOffset(t, b.Bootstrap, topic); n != 0 {
		t.Errorf("the broker stored up to offset %d", n)
	}
	if err := produce(raw.PlainBatch("good")); err != nil {
		t.Errorf("a good batch after all those: %v", err)
	}
}

// A batch that inflates beyond what any sealed batch can is refused, and costs no memory.
func TestDecompressionBombIsRefused(t *testing.T) {
	b := sharedBroker(t)
	l := sealed(t, b.Bootstrap, "bomb-*", []string{"bomb-*"}, nil)
	topic := newTopic(t, b.Bootstrap, "bomb", 1, map[string]string{"max.message.bytes": "20000000"})
	sent := records.Generate(62, 20, records.Shape{}, records.NewCanaries())
	job := clients.Job{Bootstrap: l.produce, Topic: topic, Group: topic, Records: sent, Count: len(sent) + 1, Timeout: 30 * time.Second}
	if err := clients.FranzGo.Produce(t.Context(), job); err != nil {
		t.Fatal(err)
	}
	const (
		inflated = 1 << 30
		limit    = 150 << 20 // the idle process, and little more than the batch itself
	)
	raw.Store(t, b.Bootstrap, topic, 0, bomb(inflated))
	job.Bootstrap = l.consume
	got, err := clients.FranzGo.Consume(t.Context(), job)
	if len(got) != len(sent) || !errors.Is(err, kerr.TopicAuthorizationFailed) {
		t.Errorf("%d records and %v, want %d and an authorization error", len(got), err, len(sent))
	}
	peak := memory(t, l.sidecars[1].Pid(), "VmHWM")
	t.Logf("a bomb of %d MB: the sidecar held %d MB at most", inflated>>20, peak>>20)
	if peak > limit {
		t.Errorf("the sidecar held %d MB, want at most %d", peak>>20, limit>>20)
	}
}

// bomb is a gzip batch of one record whose value is size zeros.
func bomb(size int) []byte {
	// A record's fields around its value: attributes, two deltas, null key; no headers.
	body := []byte{0, 0, 0, 1}
	body = binary.AppendVarint(body, int64(size))
	length := binary.AppendVarint(nil, int64(len(body)+size+1))
	var section bytes.Buffer
	w := gzip.NewWriter(&section)
	w.Write(length)
	w.Write(body)
	zeros := make([]byte, 1<<20)
	for left := size; left > 0; left -= len(zeros) {
		w.Write(zeros[:min(left, len(zeros))])
	}
	w.Write([]byte{0})
	w.Close()
	b := kmsg.RecordBatch{PartitionLeaderEpoch: -1, Magic: 2, Attributes: 1, NumRecords: 1, Records: section.Bytes(),
		FirstTimestamp: 1_760_000_000_000, MaxTimestamp: 1_760_000_000_000, ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1}
	b.Length = int32(len(b.AppendTo(nil)) - 12)
	return raw.Checksummed(b.AppendTo(nil))
}

// errClosed says that the connection was closed instead of an answer.
var errClosed = errors.New("connection closed")
