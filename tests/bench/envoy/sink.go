package envoy

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// produceVersion is the newest of Produce that names topics.
const produceVersion = 12

// zeros are a part of a record that no ciphertext has.
var zeros = make([]byte, 64)

// A sink is a broker that answers Produce and keeps nothing but two counts.
type sink struct {
	net.Listener
	topic  string
	wg     sync.WaitGroup
	mu     sync.Mutex
	inside map[net.Conn]bool
	closed bool

	plain, sealed atomic.Int64 // requests whose first record it could read, and not
}

func listenSink(topic string) (*sink, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &sink{Listener: l, topic: topic, inside: map[net.Conn]bool{}}
	s.wg.Go(s.serve)
	return s, nil
}

func (s *sink) serve() {
	for {
		c, err := s.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		if s.closed {
			c.Close()
		}
		s.inside[c] = true
		s.mu.Unlock()
		s.wg.Go(func() {
			_ = s.answer(c) // how a connection ends, its client sees
			c.Close()
			s.mu.Lock()
			delete(s.inside, c)
			s.mu.Unlock()
		})
	}
}

// answer reads requests, skips what is in them, and says that all went well.
func (s *sink) answer(c net.Conn) error {
	r := bufio.NewReaderSize(c, 1<<20)
	response := produceResponse(s.topic)
	var head [12]byte // length, API, version, correlation id
	for {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return err
		}
		if api := binary.BigEndian.Uint16(head[4:]); api != 0 {
			return fmt.Errorf("request of API %d, want Produce", api)
		}
		size := int(binary.BigEndian.Uint32(head[:])) - 8
		first, err := r.Peek(min(size, recordSize))
		if err != nil {
			return err
		}
		if bytes.Contains(first, zeros) { // the value of every record
			s.plain.Add(1)
		} else {
			s.sealed.Add(1)
		}
		if n, err := r.Discard(size); err != nil || n != size {
			return errors.Join(err, io.ErrUnexpectedEOF)
		}
		copy(response[4:8], head[8:])
		if _, err := c.Write(response); err != nil {
			return err
		}
	}
}

func (s *sink) close() {
	s.Close()
	s.mu.Lock()
	s.closed = true
	for c := range s.inside {
		c.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
}

// produceResponse is a whole response frame for partition 0 of topic; its correlation id is at 4.
func produceResponse(topic string) []byte {
	resp := kmsg.NewPtrProduceResponse()
	resp.Version = produceVersion
	t := kmsg.NewProduceResponseTopic()
	t.Topic = topic
	t.Partitions = append(t.Partitions, kmsg.NewProduceResponseTopicPartition())
	resp.Topics = append(resp.Topics, t)
	frame := append(make([]byte, 8), 0) // the header's tags: none
	frame = resp.AppendTo(frame)
	binary.BigEndian.PutUint32(frame, uint32(len(frame)-4))
	return frame
}
