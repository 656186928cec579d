package e2e

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
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
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/records"
)

// exchange sends a request in the version that it has and returns the response's body, after
// the header. A response whose correlation id differs is an error.
func exchange(c net.Conn, req kmsg.Request, id int32, limit time.Duration) ([]byte, error) {
	if err := c.SetDeadline(time.Now().Add(limit)); err != nil {
		return nil, err
	}
	if _, err := c.Write(kmsg.NewRequestFormatter(kmsg.FormatterClientID("e2e")).AppendRequest(nil, req, id)); err != nil {
		return nil, err
	}
	body, err := receive(c)
	if err != nil {
		return nil, err
	}
	if len(body) < 4 || int32(binary.BigEndian.Uint32(body)) != id {
		return nil, fmt.Errorf("answer %x to request %d", body[:min(4, len(body))], id)
	}
	body = body[4:]
	if req.IsFlexible() && req.Key() != 18 {
		body = body[1:] // no tags
	}
	return body, nil
}

// receive reads one frame, at most 1 MB.
func receive(c net.Conn) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > 1<<20 {
		return nil, fmt.Errorf("an answer of %d B", n)
	}
	b := make([]byte, n)
	_, err := io.ReadFull(c, b)
	return b, err
}

// framed puts the length in front.
func framed(b []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...)
}

// header is a request header version 1: what every request but the flexible ones has.
func header(key, version int16) []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(key))
	b = binary.BigEndian.AppendUint16(b, uint16(version))
	b = binary.BigEndian.AppendUint32(b, 7)
	return append(binary.BigEndian.AppendUint16(b, 3), "bad"...)
}

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
	noise := make([]byte, 64<<10)
	for i := range noise {
		noise[i] = byte(rng.Uint32())
	}
	before := settledRSS(t, writer.Pid())
	for name, sends := range map[string][]byte{
		"negative length":        {0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0},
		"most negative length":   {0x80, 0, 0, 0, 0, 0, 0, 0},
		"oversized length":       {0x7f, 0xff, 0xff, 0xff, 0, 18, 0, 0},
		"length zero":            {0, 0, 0, 0},
		"frame without a header": framed([]byte{0, 18}),
		"HTTP":                   []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
		"TLS":                    append([]byte{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3}, noise[:600]...),
		"noise":                  noise,
		"unknown API":            framed(header(9999, 0)),
		"negative API":           framed(header(-1, 0)),
		"an API for brokers":     framed(header(4, 7)), // LeaderAndIsr
		"Metadata of the future": framed(append(header(3, 99), noise[:50]...)),
		"Produce of the past":    framed(append(header(0, 0), noise[:50]...)),
		"negative version":       framed(header(3, -1)),
		"Produce cut short":      framed(append(header(0, 8), 0xff, 0xff, 0, 1)),
		"Produce with a huge count": framed(append(header(0, 8), 0xff, 0xff, 0, 1, 0, 0, 0x27, 0x10,
			0x7f, 0xff, 0xff, 0xff)),
		"Produce with negative lengths": framed(append(header(0, 8), 0xff, 0xff, 0, 1, 0, 0, 0x27, 0x10,
			0, 0, 0, 1, 0xff, 0xfe, 0, 0, 0, 1)),
		"Fetch of noise": framed(append(header(1, 11), noise[:200]...)),
	} {
		t.Run(name, func(t *testing.T) {
			c, err := net.Dial("tcp", writer.Addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(10 * time.Second))
			seen := len(writer.Output())
			if _, err := c.Write(sends); err != nil && !isReset(err) {
				t.Fatal(err)
			}
			answer, err := io.ReadAll(io.LimitReader(c, 1<<20))
			if err != nil && !isReset(err) {
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
		c.Write(append([]byte{0x05, 0xf0, 0, 0}, header(0, 8)...)) // 99 MB
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
	c.Write(framed(append(header(18, 99), 0, 2, 'x', 2, 'y', 0)))
	body, err := receive(c)
	if err != nil {
		t.Fatal(err)
	}
	if len(body) < 6 || !bytes.Equal(body[:6], []byte{0, 0, 0, 7, 0, 35}) {
		t.Fatalf("answer %x, want correlation id 7 and error 35", body[:min(20, len(body))])
	}
	v := kmsg.NewPtrApiVersionsRequest()
	v.Version = 0
	if _, err := exchange(c, v, 8, 10*time.Second); err != nil {
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
		body, err := exchange(c, req, 1, 20*time.Second)
		if err != nil {
			if errors.Is(err, io.EOF) || isReset(err) {
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
		"negative count":      func(x []byte) []byte { return checksummed(change(57, 0xff, 0xff, 0xff, 0xff)(x)) },
		"count beyond":        func(x []byte) []byte { return checksummed(change(57, 0x7f, 0xff, 0xff, 0xff)(x)) },
		"varint that goes on": func(x []byte) []byte { return checksummed(change(61, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)(x)) },
		"unknown codec":       func(x []byte) []byte { return checksummed(change(22, 7)(x)) },
		"cut":                 func(x []byte) []byte { return x[:len(x)-3] },
		"cut in its header":   func(x []byte) []byte { return x[:30] },
		"trailing bytes":      func(x []byte) []byte { return append(x, 1, 2, 3) },
		"a control batch":     func(x []byte) []byte { return checksummed(change(22, 0x20)(x)) },
	} {
		t.Run(name, func(t *testing.T) {
			if err := produce(harm(plainBatch("secret " + strings.Repeat("x", 200)))); err == nil {
				t.Error("accepted")
			} else {
				t.Log(err)
			}
		})
	}
	if n := endOffset(t, b.Bootstrap, topic); n != 0 {
		t.Errorf("the broker stored up to offset %d", n)
	}
	if err := produce(plainBatch("good")); err != nil {
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
	produceRaw(t, b.Bootstrap, topic, 0, bomb(inflated))
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
	return checksummed(b.AppendTo(nil))
}

// checksummed gives a batch the checksum that fits it.
func checksummed(batch []byte) []byte {
	binary.BigEndian.PutUint32(batch[17:], crc32.Checksum(batch[21:], crc32.MakeTable(crc32.Castagnoli)))
	return batch
}

// errClosed says that the connection was closed instead of an answer.
var errClosed = errors.New("connection closed")

// isReset tells that the other side closed while we still wrote.
func isReset(err error) bool {
	return strings.Contains(err.Error(), "connection reset") || strings.Contains(err.Error(), "broken pipe")
}
