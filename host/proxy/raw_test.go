package proxy

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
)

// A rawConn is a client that sends what it is told.
type rawConn struct {
	r    *rig
	conn net.Conn
	in   *bufio.Reader
	next int32
	sent []kmsg.Request // without an answer so far
}

func dialRaw(r *rig) *rawConn {
	r.Helper()
	return dialRawAt(r, r.addr())
}

func dialRawAt(r *rig, addr string) *rawConn {
	r.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(waitTime)); err != nil {
		r.Fatal(err)
	}
	return &rawConn{r: r, conn: conn, in: bufio.NewReader(conn)}
}

// send writes a request and returns its correlation id.
func (c *rawConn) send(req kmsg.Request) int32 {
	c.r.Helper()
	c.next++
	f := kmsg.NewRequestFormatter(kmsg.FormatterClientID("raw"))
	if _, err := c.conn.Write(f.AppendRequest(nil, req, c.next)); err != nil {
		c.r.Fatal(err)
	}
	if p, ok := req.(*kmsg.ProduceRequest); !ok || p.Acks != 0 {
		c.sent = append(c.sent, req)
	}
	return c.next
}

// frame reads one frame. The end of the connection is io.EOF, reset or not.
func (c *rawConn) frame() ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(c.in, size[:]); err != nil {
		if errors.Is(err, syscall.ECONNRESET) {
			err = io.EOF
		}
		return nil, err
	}
	frame := make([]byte, binary.BigEndian.Uint32(size[:]))
	_, err := io.ReadFull(c.in, frame)
	return frame, err
}

// receive reads the answer to the oldest request that has none.
func (c *rawConn) receive() (kmsg.Response, error) {
	c.r.Helper()
	frame, err := c.frame()
	if err != nil {
		return nil, err
	}
	req := c.sent[0]
	c.sent = c.sent[1:]
	size, err := kafka.ResponseHeaderSize(req.Key(), req.GetVersion(), frame)
	if err != nil {
		c.r.Fatal(err)
	}
	resp := req.ResponseKind()
	return resp, resp.ReadFrom(frame[size:])
}

// receiveID reads an answer and returns its correlation id only.
func (c *rawConn) receiveID() int32 {
	c.r.Helper()
	frame, err := c.frame()
	if err != nil {
		c.r.Fatal(err)
	}
	return int32(binary.BigEndian.Uint32(frame))
}

func (c *rawConn) roundTrip(req kmsg.Request) kmsg.Response {
	c.r.Helper()
	c.send(req)
	resp, err := c.receive()
	if err != nil {
		c.r.Fatal(err)
	}
	return resp
}

// produceRequest carries one batch for each partition from 0 on.
func produceRequest(version, acks int16, topic string, batches ...[]byte) *kmsg.ProduceRequest {
	req := kmsg.NewPtrProduceRequest()
	req.Version, req.Acks, req.TimeoutMillis = version, acks, 5000
	t := kmsg.NewProduceRequestTopic()
	t.Topic = topic
	for i, b := range batches {
		p := kmsg.NewProduceRequestTopicPartition()
		p.Partition, p.Records = int32(i), b
		t.Partitions = append(t.Partitions, p)
	}
	req.Topics = append(req.Topics, t)
	return req
}

func produceRequestAt(version, acks int16, topic string, partition int32, batch []byte) *kmsg.ProduceRequest {
	req := produceRequest(version, acks, topic, batch)
	req.Topics[0].Partitions[0].Partition = partition
	return req
}

func metadataRequest(topic string) *kmsg.MetadataRequest {
	req := kmsg.NewPtrMetadataRequest()
	req.Version = 12
	t := kmsg.NewMetadataRequestTopic()
	t.Topic = kmsg.StringPtr(topic)
	req.Topics = append(req.Topics, t)
	return req
}

// batchOf is a batch with one record.
func batchOf(value string) []byte {
	rec := kafka.Record{Value: []byte(value)}
	b := rec.Append(make([]byte, kafka.BatchHeaderSize))
	h := kafka.BatchHeader{
		BatchLength: int32(len(b) - 12), PartitionLeaderEpoch: -1, Magic: kafka.BatchMagic,
		BaseTimestamp: 1700000000000, MaxTimestamp: 1700000000000,
		ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1, NumRecords: 1,
	}
	h.Put(b)
	kafka.SetBatchCRC(b)
	return b
}

// fetchRequest reads partitions of a topic from their start.
func fetchRequest(version int16, topic string, partitions ...int32) *kmsg.FetchRequest {
	req := kmsg.NewPtrFetchRequest()
	req.Version, req.MaxBytes, req.MinBytes, req.MaxWaitMillis = version, 64<<20, 1, 100
	t := kmsg.NewFetchRequestTopic()
	t.Topic = topic
	for _, i := range partitions {
		p := kmsg.NewFetchRequestTopicPartition()
		p.Partition, p.PartitionMaxBytes = i, 64<<20
		t.Partitions = append(t.Partitions, p)
	}
	req.Topics = append(req.Topics, t)
	return req
}
