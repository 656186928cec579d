package envoy

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/clients"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/raw"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/records"
)

// largeFrames sends records of up to 10 MB, one frame each.
func (w *world) largeFrames(t *testing.T, r *row, out, in face) {
	topic := w.topic(t, "large", 1, map[string]string{"max.message.bytes": "12000000"})
	var sent []records.Record
	for i, size := range []int{1 << 20, 3 << 20, 1<<20 + 1, 7 << 20, 10_000_000, 10} {
		value := make([]byte, size)
		for j := range value {
			value[j] = byte(j*7 + i + j>>11)
		}
		copy(value, w.canaries.Value)
		sent = append(sent, records.Record{Offset: -1, Timestamp: 1_760_000_000_000, Value: value})
	}
	job := clients.Job{Bootstrap: out.bootstrap(), Topic: topic, Group: topic, Dir: t.TempDir(), Records: sent, Count: len(sent), Timeout: 2 * time.Minute,
		Properties: map[string]string{"message.max.bytes": "11000000", "linger.ms": "0"}}
	if err := clients.Confluent.Produce(t.Context(), job); err != nil {
		t.Fatalf("produce: %v", err)
	}
	for _, c := range []clients.Client{clients.Confluent, clients.FranzGo} {
		job.Bootstrap, job.Properties, job.Group = in.bootstrap(), nil, topic+c.Name
		begin := time.Now()
		got, err := c.Consume(t.Context(), job)
		if err == nil {
			err = records.Compare(sent, got, records.Times{}, false)
		}
		if err != nil {
			t.Fatalf("%s: %v", c.Name, err)
		}
		r.note("%s reads them in %.1f s", c.Name, time.Since(begin).Seconds())
	}
}

// pipelined sends requests of several kinds without waiting for answers: these come in order,
// and every record is stored once.
func (w *world) pipelined(t *testing.T, r *row, out face) {
	const requests = 400
	topic := w.topic(t, "pipelined", 1, nil)
	c, err := net.Dial("tcp", out.bootstrap())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	produced := 0
	var all []byte
	for id := range int32(requests) {
		switch id % 4 {
		case 0:
			m := kmsg.NewPtrMetadataRequest()
			m.Version = 9
			all = append(all, request(m, id)...)
		case 1:
			v := kmsg.NewPtrApiVersionsRequest()
			v.Version = 2
			all = append(all, request(v, id)...)
		default:
			produced++
			p := kmsg.NewPtrProduceRequest()
			p.Version, p.Acks, p.TimeoutMillis = 8, -1, 10_000
			p.Topics = []kmsg.ProduceRequestTopic{{Topic: topic, Partitions: []kmsg.ProduceRequestTopicPartition{{Records: raw.PlainBatch(fmt.Sprint("record ", id))}}}}
			all = append(all, request(p, id)...)
		}
	}
	written := make(chan error, 1)
	go func() {
		_, err := c.Write(all)
		written <- err
	}()
	begin := time.Now()
	for id := range int32(requests) {
		body, err := raw.Receive(c)
		if err != nil {
			t.Fatalf("answer %d: %v", id, err)
		}
		if len(body) < 4 || int32(binary.BigEndian.Uint32(body)) != id {
			t.Fatalf("answer %x to request %d", body[:min(4, len(body))], id)
		}
		if id%4 > 1 {
			resp := kmsg.NewPtrProduceResponse()
			resp.Version = 8
			if err := resp.ReadFrom(body[4:]); err != nil {
				t.Fatal(err)
			}
			if err := kerr.ErrorForCode(resp.Topics[0].Partitions[0].ErrorCode); err != nil {
				t.Fatalf("request %d: %v", id, err)
			}
		}
	}
	if err := <-written; err != nil {
		t.Error(err)
	}
	if n := w.stored(t, topic); n != int64(produced) {
		t.Errorf("%d records are stored, want %d", n, produced)
	}
	w.ledger(t, topic)
	r.note("%d requests at once, answered in %.1f s", requests, time.Since(begin).Seconds())
}

// slowReaders has clients ask for much and read nothing for a while: memory stays bounded, others
// are served, and what they asked for is all there when they read on.
func (w *world) slowReaders(t *testing.T, r *row, out face, in *envoyFace, limit int64) {
	const readers, asked = 20, 4
	topic := w.topic(t, "slow", 1, nil)
	shape := clients.FranzGo.Shape
	shape.Partitions = 1
	sent := records.Generate(71, 1000, shape, w.canaries)
	job := clients.Job{Bootstrap: out.bootstrap(), Topic: topic, Group: topic, Records: sent, Count: len(sent)}
	if err := clients.FranzGo.Produce(t.Context(), job); err != nil {
		t.Fatal(err)
	}
	job.Bootstrap = in.bootstrap()
	if _, err := clients.FranzGo.Consume(t.Context(), job); err != nil { // its key is there from now on
		t.Fatal(err)
	}
	req := kmsg.NewPtrFetchRequest()
	req.Version, req.MaxWaitMillis, req.MinBytes, req.MaxBytes, req.SessionEpoch = 11, 500, 1, 50<<20, -1
	p := kmsg.NewFetchRequestTopicPartition()
	p.PartitionMaxBytes, p.CurrentLeaderEpoch = 50<<20, -1
	req.Topics = []kmsg.FetchRequestTopic{{Topic: topic, Partitions: []kmsg.FetchRequestTopicPartition{p}}}
	var ask []byte
	for id := range int32(asked) {
		ask = append(ask, request(req, id)...)
	}
	before := in.rss()
	var slow []net.Conn
	for range readers {
		c, err := net.Dial("tcp", in.bootstrap())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(3 * time.Minute))
		slow = append(slow, c)
		// Each worker has the key before the first answer that counts.
		if !waits(20*time.Second, func() bool { got, err := fetched(c, req); return err != nil || len(got) > 0 }) {
			t.Fatal("a reader gets no records")
		}
	}
	for _, c := range slow {
		if _, err := c.Write(ask); err != nil {
			t.Fatal(err)
		}
	}
	most, buffered := int64(0), int64(0)
	for i := range 5 {
		time.Sleep(time.Second)
		most, buffered = max(most, in.rss()-before), max(buffered, in.buffered(t))
		job.Group = fmt.Sprint(topic, "-beside-", i)
		begin := time.Now()
		if _, err := clients.FranzGo.Consume(t.Context(), job); err != nil {
			t.Fatalf("a client beside them: %v", err)
		}
		if took := time.Since(begin); took > 20*time.Second {
			t.Errorf("a client beside them reads for %v", took)
		}
	}
	most = max(most, in.rss()-before)
	if most > limit {
		t.Errorf("memory grew by %d MB, want at most %d", most>>20, limit>>20)
	}
	var first []byte
	total := 0
	for i, c := range slow {
		for id := range asked {
			got, err := answered(c)
			if err != nil {
				t.Fatalf("reader %d, answer %d: %v", i, id, err)
			}
			total += len(got)
			if first == nil {
				first = got
			}
			if len(got) == 0 || !bytes.Equal(first, got) {
				t.Fatalf("reader %d, answer %d: %d B of records, the first has %d", i, id, len(got), len(first))
			}
		}
	}
	// Envoy stops reading from a broker while a client does not take what there is: an answer, and
	// what it lets pile up on both sides, for each.
	if limit := int64(readers * (len(first) + 2<<20)); buffered > limit {
		t.Errorf("%d MB are in Envoy's buffers, want at most %d", buffered>>20, limit>>20)
	}
	r.note("%d readers, %d MB in all, memory %+d MB at most, Envoy's buffers %d", readers, total>>20, most>>20, buffered>>20)
}

// buffered is how many bytes Envoy itself holds of all connections, the module's memory apart.
func (f *envoyFace) buffered(t *testing.T) (sum int64) {
	t.Helper()
	all, err := f.Stats("")
	if err != nil {
		t.Fatal(err)
	}
	for name, n := range all {
		if strings.HasSuffix(name, "_bytes_buffered") {
			sum += n
		}
	}
	return sum
}

// request is one frame.
func request(r kmsg.Request, id int32) []byte {
	return kmsg.NewRequestFormatter(kmsg.FormatterClientID("e2e")).AppendRequest(nil, r, id)
}

// fetched asks once and returns the records of the one partition.
func fetched(c net.Conn, req *kmsg.FetchRequest) ([]byte, error) {
	if _, err := c.Write(request(req, 0)); err != nil {
		return nil, err
	}
	return answered(c)
}

// answered reads the answer to a Fetch of version 11, at most 64 MB.
func answered(c net.Conn) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n < 4 || n > 64<<20 {
		return nil, fmt.Errorf("an answer of %d B", n)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(c, b); err != nil {
		return nil, err
	}
	resp := kmsg.NewPtrFetchResponse()
	resp.Version = 11
	if err := resp.ReadFrom(b[4:]); err != nil {
		return nil, err
	}
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return nil, errors.New("an answer without the partition")
	}
	p := resp.Topics[0].Partitions[0]
	return p.RecordBatches, kerr.ErrorForCode(p.ErrorCode)
}
