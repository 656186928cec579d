package envoy

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/module/filter"
)

const start = uint64(1_700_000_000_000)

var (
	testKid = abi.Kid{1, 2, 3, 4, 5, 6, 7, 8}
	testID  = [16]byte{7, 7, 7}

	shareGroup = "workers"
)

// A world is one stream between a client and a broker that the test plays.
type world struct {
	*testing.T
	now    uint64
	filter *filter.Filter
	peer   *filter.Filter // of another node, which produces
	keys   *Keys
	worker *Worker
	stream *Stream
	next   int32 // correlation id
}

func newWorld(t *testing.T, cfg Config, rules ...abi.Rule) *world {
	t.Helper()
	w := &world{T: t, now: start, filter: filter.New(rand.Reader)}
	if s := w.filter.Configure(abi.Config{MaxDecompressed: 8 << 20, Rules: rules}); s != abi.StatusOK {
		t.Fatal(s)
	}
	if cfg.Brokers.BasePort == 0 {
		cfg.Brokers = Brokers{Host: "proxy", BasePort: 9000, ByID: map[int32]Endpoint{3: {"third", 33}}}
	}
	w.keys = NewKeys(w.filter)
	w.keys.groups = groups{listed: []wire.Pattern{{Prefix: true}}, known: true, askAt: start + renewEvery}
	w.worker = NewWorker(cfg, w.filter, w.keys)
	w.stream = w.worker.NewStream()
	return w
}

func leaseOf(topic string) abi.Lease {
	return abi.Lease{Kid: testKid, UseBy: start + 100_000, Node: [32]byte{9}, Topic: topic}
}

func rootOf(topic string) abi.Root { return abi.Root{Kid: testKid, Root: [32]byte{9}, Topic: topic} }

// lease and root install what seals and what opens that.
func (w *world) lease(topic string) {
	w.Helper()
	l := leaseOf(topic)
	if s := w.filter.InstallLease(&l); s != abi.StatusOK {
		w.Fatal(s)
	}
}

func (w *world) root(topic string) {
	w.Helper()
	r := rootOf(topic)
	if s := w.filter.InstallRoot(&r); s != abi.StatusOK {
		w.Fatal(s)
	}
}

// request sends a client's request and returns its correlation id.
func (w *world) request(req kmsg.Request) int32 {
	w.Helper()
	w.next++
	frame := kmsg.NewRequestFormatter(kmsg.FormatterClientID("tester")).AppendRequest(nil, req, w.next)
	if err := w.stream.FromClient(frame, w.now); err != nil {
		w.Fatal(err)
	}
	return w.next
}

// gathered is what a stream gives, in one piece.
func gathered(give func(to func(part []byte) bool) bool) (b []byte) {
	give(func(part []byte) bool { b = append(b, part...); return true })
	return b
}

// appendFrame appends what write appends to b as one frame, with its length in front.
func appendFrame(b []byte, write func(b []byte) []byte) []byte {
	at := len(b)
	b = write(append(b, make([]byte, lengthSize)...))
	binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at-lengthSize))
	return b
}

func newFrames(max int) frames { return frames{max: max, spares: &spares{most: 8 << 20}} }

func responseFrame(id int32, resp kmsg.Response) []byte {
	return appendFrame(nil, func(b []byte) []byte {
		b = binary.BigEndian.AppendUint32(b, uint32(id))
		if resp.IsFlexible() && resp.Key() != kafka.KeyApiVersions {
			b = append(b, 0)
		}
		return resp.AppendTo(b)
	})
}

// respond has the broker answer.
func (w *world) respond(id int32, resp kmsg.Response) {
	w.Helper()
	if err := w.stream.FromBroker(responseFrame(id, resp), w.now); err != nil {
		w.Fatal(err)
	}
}

// received reads the one response that the client was given.
func received[R kmsg.Response](w *world, id int32, version int16, r R) R {
	w.Helper()
	b := gathered(w.stream.ToClient)
	if len(b) < 8 || int(binary.BigEndian.Uint32(b)) != len(b)-4 {
		w.Fatalf("the client received %x", b)
	}
	if got := int32(binary.BigEndian.Uint32(b[4:])); got != id {
		w.Fatalf("correlation id %d, want %d", got, id)
	}
	r.SetVersion(version)
	body := b[8:]
	if r.IsFlexible() && r.Key() != kafka.KeyApiVersions {
		body = body[1:]
	}
	if err := r.ReadFrom(body); err != nil {
		w.Fatal(err)
	}
	return r
}

// forwarded returns the requests that the broker was given, without their lengths.
func (w *world) forwarded() (out [][]byte) {
	w.Helper()
	for b := gathered(w.stream.ToBroker); len(b) > 0; {
		size := 4 + int(binary.BigEndian.Uint32(b))
		out = append(out, b[4:size])
		b = b[size:]
	}
	return out
}

// produced reads the one Produce request that the broker was given.
func (w *world) produced() *kafka.ProduceRequest {
	w.Helper()
	frames := w.forwarded()
	if len(frames) != 1 {
		w.Fatalf("%d requests were forwarded, want 1", len(frames))
	}
	h, err := kafka.ParseRequestHeader(frames[0])
	if err != nil || h.Key != kafka.KeyProduce {
		w.Fatalf("forwarded %+v, %v", h, err)
	}
	r, err := kafka.ParseProduceRequest(h.Version, frames[0][h.Size:])
	if err != nil {
		w.Fatal(err)
	}
	return r
}

// batchOf is a client's batch of one record, at an offset.
func batchOf(value string, offset int64) []byte {
	record := kafka.Record{Value: []byte(value)}
	b := record.Append(make([]byte, kafka.BatchHeaderSize))
	h := kafka.BatchHeader{BaseOffset: offset, BatchLength: int32(len(b) - kafka.BatchLengthEnd), Magic: 2, NumRecords: 1,
		ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1, BaseTimestamp: int64(start), MaxTimestamp: int64(start)}
	h.Put(b)
	kafka.SetBatchCRC(b)
	return b
}

// sealedBatch is what the broker holds of a batch that some other node sealed.
func (w *world) sealedBatch(topic string, partition int32, value string, offset int64) []byte {
	w.Helper()
	if w.peer == nil {
		w.peer = filter.New(rand.Reader)
		w.peer.Configure(abi.Config{MaxDecompressed: 1 << 20})
		l := leaseOf(topic)
		if s := w.peer.InstallLease(&l); s != abi.StatusOK {
			w.Fatal(s)
		}
	}
	b := append(batchOf(value, offset), make([]byte, 300)...)
	r, s := w.peer.SealBatch(b, len(b)-300, []byte(topic), partition, start)
	if s != abi.StatusOK {
		w.Fatal(s)
	}
	return b[:r.Length]
}

func produceRequest(version int16, acks int16, topics ...string) *kmsg.ProduceRequest {
	req := kmsg.NewPtrProduceRequest()
	req.Version, req.Acks = version, acks
	for _, topic := range topics {
		t := kmsg.NewProduceRequestTopic()
		t.Topic, t.TopicID = topic, testID
		p := kmsg.NewProduceRequestTopicPartition()
		p.Records = batchOf("secret in "+topic, 0)
		t.Partitions = append(t.Partitions, p)
		req.Topics = append(req.Topics, t)
	}
	return req
}

func fetchRequest(version int16) *kmsg.FetchRequest {
	req := kmsg.NewPtrFetchRequest()
	req.Version = version
	return req
}

func fetchResponse(version int16, topic string, partitions ...[]byte) *kmsg.FetchResponse {
	resp := kmsg.NewPtrFetchResponse()
	resp.Version = version
	t := kmsg.NewFetchResponseTopic()
	t.Topic, t.TopicID = topic, testID
	for i, records := range partitions {
		p := kmsg.NewFetchResponseTopicPartition()
		p.Partition, p.HighWatermark, p.RecordBatches = int32(i), 100, records
		t.Partitions = append(t.Partitions, p)
	}
	resp.Topics = append(resp.Topics, t)
	return resp
}

func contains(frames [][]byte, text string) bool {
	return bytes.Contains(bytes.Join(frames, nil), []byte(text))
}
