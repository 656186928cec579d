package envoy

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wasm-e2ee/wasm-e2ee/tests/bench/batches"
)

// Sizes in bytes of a record's value and, about, of a batch.
const (
	recordSize = 1 << 10
	batchSize  = 1 << 20
)

// inFlight is how many requests wait for their answers at a time.
const inFlight = 5

// produceFrame is a whole request frame with one batch for partition 0 of topic; its
// correlation id is at 8.
func produceFrame(topic string, batch []byte) []byte {
	req := kmsg.NewPtrProduceRequest()
	req.Version, req.Acks, req.TimeoutMillis = produceVersion, -1, 30_000
	t := kmsg.NewProduceRequestTopic()
	t.Topic = topic
	p := kmsg.NewProduceRequestTopicPartition()
	p.Records = batch
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	return kmsg.NewRequestFormatter(kmsg.FormatterClientID("bench")).AppendRequest(nil, req, 0)
}

// A stream is one connection that carries Produce requests.
type stream struct {
	net.Conn
	answers *bufio.Reader
	frame   []byte
	size    int // of the batch in it
	id      uint32
	waiting int
}

func connect(port int, topic string) (*stream, error) {
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return nil, err
	}
	batch := batches.Make(recordSize, batchSize)
	return &stream{Conn: c, answers: bufio.NewReader(c), frame: produceFrame(topic, batch), size: len(batch)}, nil
}

// run sends requests for a while, waits for every answer, and returns how many there were.
func (s *stream) run(length time.Duration) (requests int, err error) {
	begin := time.Now()
	for time.Since(begin) < length {
		if s.waiting == inFlight {
			if err := s.receive(); err != nil {
				return 0, err
			}
		}
		s.id++
		binary.BigEndian.PutUint32(s.frame[8:], s.id)
		if err := s.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			return 0, err
		}
		if _, err := s.Write(s.frame); err != nil {
			return 0, err
		}
		s.waiting++
		requests++
	}
	for s.waiting > 0 {
		if err := s.receive(); err != nil {
			return 0, err
		}
	}
	return requests, nil
}

// receive reads the next answer, which must be to the oldest request and say that it went well.
func (s *stream) receive() error {
	var size [4]byte
	if _, err := io.ReadFull(s.answers, size[:]); err != nil {
		return fmt.Errorf("no answer: %w", err)
	}
	frame := make([]byte, binary.BigEndian.Uint32(size[:]))
	if _, err := io.ReadFull(s.answers, frame); err != nil {
		return err
	}
	oldest := s.id - uint32(s.waiting) + 1
	if len(frame) < 5 || binary.BigEndian.Uint32(frame) != oldest {
		return fmt.Errorf("an answer to another request than %d", oldest)
	}
	resp := kmsg.NewPtrProduceResponse()
	resp.Version = produceVersion
	if err := resp.ReadFrom(frame[5:]); err != nil {
		return err
	}
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 || resp.Topics[0].Partitions[0].ErrorCode != 0 {
		return fmt.Errorf("refused: %+v", resp.Topics)
	}
	s.waiting--
	return nil
}
