package envoy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
)

// A Stream is one client's connection to one broker. It is fed with what either side sent and
// gives what the other side is to receive; nothing else may be forwarded. After an error it
// takes and gives nothing more, and the connection must be closed.
type Stream struct {
	w          *Worker
	fromClient frames
	fromBroker frames
	pending    []exchange // requests without an answer so far, in order
	waiting    *producing // the first request from the client, where it lacks a lease
	hold       hold       // the client's next Fetch
	toBroker   outgoing
	toClient   outgoing
	unknownAt  uint64 // when the client was last told that a topic id is unknown
	groupUntil uint64 // when a request for a group is answered without the agent's list; 0 where none waits
	held       int    // bytes, as the worker counts them
	err        error
}

// An exchange is a request that waits for its place in the order of answers.
type exchange struct {
	key, version  int16
	correlationID int32
	local         appender           // the answer, where the broker's is not the client's
	refused       []refusedPartition // of a Produce whose other partitions were forwarded
	size          int                // bytes of local and refused, about
}

// NewStream begins a connection.
func (w *Worker) NewStream() *Stream {
	from, to := frames{spares: &w.spares, max: w.cfg.MaxFrame}, outgoing{arena: arena{spares: &w.spares}}
	return &Stream{w: w, fromClient: from, fromBroker: from, toBroker: to, toClient: to}
}

// ClientRoom returns memory for bytes that the client sent: FromClient takes them from there
// without a copy. nil is none.
func (s *Stream) ClientRoom() Room { return &s.fromClient }

// BrokerRoom is ClientRoom for what the broker sent, and for FromBroker.
func (s *Stream) BrokerRoom() Room { return &s.fromBroker }

// FromClient takes bytes that the client sent. They are the caller's afterwards.
func (s *Stream) FromClient(b []byte, now uint64) error {
	if s.err != nil {
		return s.err
	}
	if err := s.w.room(len(b)); err != nil {
		return s.fail(&Violation{"client", "a frame", 0, err})
	}
	if err := s.fromClient.feed(b); err != nil {
		return s.fail(&Violation{"client", "a frame", 0, err})
	}
	return s.Resume(now)
}

// Resume goes on with what the client sent, as far as it need not wait. It is called on ticks
// while Waiting, after the key channel brought something, and after FromBroker.
func (s *Stream) Resume(now uint64) error {
	for s.err == nil && len(s.pending) < maxPending {
		frame, err := s.fromClient.next()
		if err != nil {
			return s.fail(&Violation{"client", "a frame", 0, err})
		}
		if frame == nil {
			break
		}
		done, err := s.request(frame, now)
		if err != nil {
			return s.fail(err)
		}
		if !done {
			break
		}
		s.fromClient.take(frame)
	}
	return s.account("client")
}

// FromBroker takes bytes that the broker sent. What they answer can be taken with ToClient
// when it returns; requests that may go on now are left to Resume.
func (s *Stream) FromBroker(b []byte, now uint64) error {
	if s.err != nil {
		return s.err
	}
	if err := s.w.room(len(b)); err != nil {
		return s.fail(&Violation{"broker", "a frame", 0, err})
	}
	if err := s.fromBroker.feed(b); err != nil {
		return s.fail(&Violation{"broker", "a frame", 0, err})
	}
	for {
		frame, err := s.fromBroker.next()
		if err != nil {
			return s.fail(&Violation{"broker", "a frame", 0, err})
		}
		if frame == nil {
			return s.account("broker")
		}
		if len(s.pending) == 0 {
			return s.fail(&Violation{"broker", "a response", 0, errors.New("nothing was asked")})
		}
		x := s.pending[0]
		if err := s.response(x, frame, now); err != nil {
			return s.fail(&Violation{"broker", kafka.APIName(x.key), x.version, err})
		}
		s.pending[0] = exchange{}
		if s.pending = s.pending[1:]; len(s.pending) == 0 {
			s.pending = nil
		}
		s.fromBroker.take(frame)
	}
}

// fail ends the stream. Nothing that was not taken yet leaves it.
func (s *Stream) fail(err error) error {
	s.release()
	*s = Stream{w: s.w, err: err}
	return err
}

// ToBroker hands what the broker is to receive to a function, part by part until that returns
// false, and forgets it. It returns what the function did last. A part is valid until the
// function returns.
func (s *Stream) ToBroker(to func(part []byte) bool) bool {
	ok := s.err != nil || s.toBroker.give(to)
	s.settle()
	return ok
}

// ToClient is ToBroker for what the client is to receive.
func (s *Stream) ToClient(to func(part []byte) bool) bool {
	ok := s.err != nil || s.toClient.give(to)
	s.settle()
	return ok
}

// settle gives back what nothing needs any more.
func (s *Stream) settle() {
	s.recount()
	s.fromClient.settle()
	s.fromBroker.settle()
	s.recount()
}

// Waiting reports whether something that the client sent waits for a key or for time to pass.
func (s *Stream) Waiting() bool { return s.waiting != nil || s.hold.holding || s.groupUntil != 0 }

// passed returns the versions of an API that clients may use.
func (w *Worker) passed(key int16) (low, high int16, ok bool) {
	low, high, ok = kafka.Supported(key)
	if w.cfg.NamesOnly && (key == kafka.KeyProduce || key == kafka.KeyFetch) {
		high = lastWithNames
	}
	return low, high, ok
}

// lastWithNames is the last version of both Produce and Fetch in which topics have names.
const lastWithNames = 12

// request takes one request: it forwards it, sealed where it carries records, or sees to its
// answer. It returns false where the request must wait; it is then called again with the same
// frame.
func (s *Stream) request(frame []byte, now uint64) (done bool, err error) {
	if s.waiting != nil {
		return s.produceOn(now)
	}
	h, err := kafka.ParseRequestHeader(frame)
	if errors.Is(err, kafka.ErrFrame) {
		return false, &Violation{"client", "a request", h.Version, err}
	}
	if err != nil {
		return false, &Violation{"client", kafka.APIName(h.Key), h.Version, err}
	}
	low, high, ok := s.w.passed(h.Key)
	switch {
	case ok && h.Version >= low && h.Version <= high:
	case h.Key == kafka.KeyApiVersions && h.Version > high:
		s.newerApiVersions(frame, h)
		return true, nil
	default:
		return false, &Violation{"client", kafka.APIName(h.Key), h.Version, kafka.ErrVersion}
	}
	if refused, done, err := s.refuseGroup(frame, h, now); refused || !done {
		return done, err
	}
	switch h.Key {
	case kafka.KeyProduce:
		return s.produce(frame, h, now)
	case kafka.KeyFetch, kafka.KeyShareFetch:
		if s.hold.wait(s.w.keys, now) {
			return false, nil
		}
	}
	s.forward(exchange{key: h.Key, version: h.Version, correlationID: h.CorrelationID},
		func(o *outgoing) { o.raw(frame) })
	return true, nil
}

// forward gives a request to the broker and queues x for its response.
func (s *Stream) forward(x exchange, write func(o *outgoing)) {
	s.pending = append(s.pending, x)
	s.toBroker.frame(write)
}

// answer sees to it that the client receives a response that the broker does not know of, in
// its place in the order of answers. A client can be written to only when its broker has said
// something, so the broker is asked for what it tells anyone, and its answer is replaced. Until
// then body takes about size bytes.
func (s *Stream) answer(h kafka.RequestHeader, body appender, size int) {
	s.forward(exchange{key: h.Key, version: h.Version, correlationID: h.CorrelationID, local: body, size: size}, func(o *outgoing) {
		o.bytes = binary.BigEndian.AppendUint16(o.bytes, kafka.KeyApiVersions)
		o.bytes = binary.BigEndian.AppendUint16(o.bytes, 0)
		o.bytes = binary.BigEndian.AppendUint32(o.bytes, uint32(h.CorrelationID))
		o.bytes = binary.BigEndian.AppendUint16(o.bytes, math.MaxUint16) // no client id
	})
}

// newerApiVersions answers a version of ApiVersions that is not passed. The broker is given one
// that it cannot know either, and refuses as we do: a version that it does know would count as
// the one such request that a connection may make before SASL.
func (s *Stream) newerApiVersions(frame []byte, h kafka.RequestHeader) {
	x := exchange{key: h.Key, version: h.Version, correlationID: h.CorrelationID, local: kafka.UnsupportedApiVersions()}
	s.forward(x, func(o *outgoing) {
		o.bytes = append(o.bytes, frame...)
		binary.BigEndian.PutUint16(o.bytes[len(o.bytes)-len(frame)+2:], math.MaxInt16)
	})
}

// response turns the broker's answer to x into the client's.
func (s *Stream) response(x exchange, frame []byte, now uint64) error {
	if len(frame) < 4 {
		return kafka.ErrFrame
	}
	if id := int32(binary.BigEndian.Uint32(frame)); id != x.correlationID {
		return fmt.Errorf("correlation id %d where %d was expected: %w", id, x.correlationID, kafka.ErrFrame)
	}
	if x.local != nil {
		s.toClient.frame(func(o *outgoing) {
			o.bytes = kafka.AppendResponseHeader(o.bytes, x.key, x.version, x.correlationID)
			o.body(x.local)
		})
		return nil
	}
	size, err := kafka.ResponseHeaderSize(x.key, x.version, frame)
	if err != nil {
		return err
	}
	s.toClient.arena.chunk = len(frame)
	changed, err := s.transform(x, frame[size:], now)
	if err != nil {
		return err
	}
	s.toClient.frame(func(o *outgoing) {
		if changed == nil {
			o.raw(frame)
			return
		}
		o.raw(frame[:size])
		o.body(changed)
	})
	return nil
}

// transform returns the body that the client receives; nil leaves the broker's.
func (s *Stream) transform(x exchange, body []byte, now uint64) (appender, error) {
	switch x.key {
	case kafka.KeyApiVersions:
		return s.w.clamped(x.version, body)
	case kafka.KeyProduce:
		if x.version < 10 && len(x.refused) == 0 {
			return nil, nil // nothing in it is ours to change
		}
		return mergeRefused(x, body)
	case kafka.KeyFetch:
		return s.openFetch(x.version, body, now)
	case kafka.KeyShareFetch:
		return s.openShareFetch(x.version, body, now)
	case kafka.KeyMetadata:
		return s.w.rewriteMetadata(x.version, body)
	case kafka.KeyFindCoordinator:
		return s.w.rewriteFindCoordinator(x.version, body)
	case kafka.KeyDescribeCluster:
		return s.w.rewriteDescribeCluster(x.version, body)
	case kafka.KeyDescribeQuorum:
		return rewriteDescribeQuorum(x.version, body)
	case kafka.KeyShareAcknowledge:
		return kafka.ParseShareAcknowledgeResponse(x.version, body)
	}
	return nil, nil
}

// clamped narrows what the client may use to what is passed.
func (w *Worker) clamped(version int16, body []byte) (appender, error) {
	r, err := kafka.ParseApiVersionsResponse(version, body)
	if err != nil {
		return nil, err
	}
	r.Clamp()
	for i := range r.APIs {
		_, high, _ := w.passed(r.APIs[i].Key)
		r.APIs[i].Max = min(r.APIs[i].Max, high)
	}
	return r, nil
}
