package envoy

import (
	"fmt"
	"slices"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
	"github.com/wasm-e2ee/wasm-e2ee/module/filter"
)

// A producing is a Produce request on its way through the filter. It aliases the request's
// frame, which stays in the stream until all of it is done.
type producing struct {
	h       kafka.RequestHeader
	header  []byte
	r       *kafka.ProduceRequest
	work    []sealing
	refused []refusedPartition
	arena   arena // what was sealed
	size    int   // bytes that it holds beside it: the frame, and work
}

// A sealing is one partition of a Produce request that carries records.
type sealing struct {
	topic     *kafka.ProduceTopic
	partition *kafka.ProducePartition
	name      string
	until     uint64 // when it is refused for want of a lease, Unix ms; 0 before it lacked one
	done      bool
}

// A refusedPartition was taken out of a Produce request; the client is told in the response.
type refusedPartition struct {
	place
	code    int16
	message string
}

// A place names a partition as its request does.
type place struct {
	name      string
	id        [16]byte
	partition int32
}

// produce begins to seal a Produce request.
func (s *Stream) produce(frame []byte, h kafka.RequestHeader, now uint64) (done bool, err error) {
	r, err := kafka.ParseProduceRequest(h.Version, frame[h.Size:])
	if err != nil {
		return false, &Violation{"client", "Produce", h.Version, err}
	}
	p := &producing{h: h, header: frame[:h.Size], r: r, arena: arena{spares: &s.w.spares, chunk: len(frame) + len(frame)/8}}
	for i := range r.Topics {
		t := &r.Topics[i]
		name := t.Name
		if h.Version > lastWithNames {
			name = s.w.topics.name(t.ID)
		}
		if len(name) > abi.MaxTopicLen {
			return false, &Violation{"client", "Produce", h.Version, fmt.Errorf("topic name of %d bytes: %w", len(name), kafka.ErrFrame)}
		}
		for j := range t.Partitions {
			switch q := &t.Partitions[j]; {
			case h.Version > lastWithNames && name == "":
				// The client asks for Metadata then, and we learn what it takes the id for.
				p.refused = append(p.refused, refusedPartition{place{"", t.ID, q.Index}, kafka.CodeUnknownTopicID, ""})
			case len(q.Records) > 0:
				p.work = append(p.work, sealing{topic: t, partition: q, name: name})
			}
		}
	}
	p.size = len(frame) + sealingSize*len(p.work)
	s.waiting = p
	return s.produceOn(now)
}

// produceOn seals what of the waiting request can be sealed now, and forwards it once every
// partition is either sealed or refused. What was not sealed never reaches the broker.
func (s *Stream) produceOn(now uint64) (done bool, err error) {
	p := s.waiting
	ready := true
	for i := range p.work {
		if q := &p.work[i]; !q.done {
			if err := s.sealOne(p, q, now); err != nil {
				return false, err
			}
			ready = ready && q.done
		}
	}
	if !ready {
		p.arena.trim()
		return false, nil
	}
	s.waiting = nil
	p.arena.hand(&s.toBroker.arena)
	if len(p.refused) > 0 && p.r.Acks == 0 {
		// There is no response to put the error into. Kafka closes the connection then.
		return false, &Violation{"client", "Produce", p.h.Version, fmt.Errorf("acks=0 and refused: %s", p.refused[0].message)}
	}
	if p.removeRefused(); len(p.r.Topics) == 0 && len(p.refused) > 0 {
		answer := &kafka.ProduceResponse{Version: p.h.Version}
		addRefused(answer, p.refused)
		s.answer(p.h, answer, refusedSize*len(p.refused))
		return true, nil
	}
	write := func(o *outgoing) {
		o.raw(p.header)
		o.body(p.r)
	}
	if p.r.Acks == 0 {
		s.toBroker.frame(write)
		return true, nil
	}
	s.forward(exchange{key: p.h.Key, version: p.h.Version, correlationID: p.h.CorrelationID, refused: p.refused, size: refusedSize * len(p.refused)}, write)
	return true, nil
}

// sealOne seals or refuses one partition, or leaves it until there is a lease.
func (s *Stream) sealOne(p *producing, q *sealing, now uint64) error {
	sealed, status := s.w.seal(&p.arena, q.name, q.partition.Index, q.partition.Records, now)
	if status == abi.StatusNeedLease {
		if status = s.w.keys.NeedLease(q.name, now); status == abi.StatusPending {
			if q.until == 0 {
				q.until = s.w.keys.leaseDeadline(q.name, now, s.w.cfg.ProduceWait)
			}
			if now < q.until {
				return nil
			}
			status = abi.StatusUnavailable
		}
	}
	q.done = true
	if status == abi.StatusOK {
		q.partition.Records = sealed
		s.w.stats.Sealed++
		return nil
	}
	code := kafka.ProduceError(status)
	if code == 0 {
		return &Violation{"client", "Produce", p.h.Version, fmt.Errorf("topic %s, partition %d: %w", q.name, q.partition.Index, status)}
	}
	count(&s.w.stats.SealRefused, status)
	e := s.w.keys.event(EventSeal, q.name, q.partition.Index, 0, status)
	s.w.cfg.report(e)
	p.refused = append(p.refused, refusedPartition{place{q.topic.Name, q.topic.ID, q.partition.Index}, code, e.refusal()})
	return nil
}

// seal returns the sealed form of the one batch in records, in the arena. records stays as it
// is.
func (w *Worker) seal(a *arena, topic string, partition int32, records []byte, now uint64) ([]byte, abi.Status) {
	room := len(records) + 128
	if h, err := kafka.ParseBatchHeader(records); err == nil {
		room += 8 * min(max(int(h.NumRecords), 0), filter.MaxRecords) // a stub each
	}
	for range 2 {
		buf := a.room(room)
		r, status := w.filter.SealTo(buf, records, []byte(topic), partition, now)
		switch {
		case status == abi.StatusNeedSpace && int(r.Length) > room:
			room = int(r.Length)
			continue
		case status != abi.StatusOK:
			return nil, status
		case r.Flags&abi.FlagUntouched != 0:
			return records, abi.StatusOK
		}
		w.keys.sealed(topic, r.Kid, r.Leaf, now)
		a.keep(buf[:r.Length])
		return buf[:r.Length], abi.StatusOK
	}
	return nil, abi.StatusInternal
}

// removeRefused deletes the refused partitions from the request, and topics that hold no other.
func (p *producing) removeRefused() {
	if len(p.refused) == 0 {
		return
	}
	gone := make(map[place]bool, len(p.refused))
	for i := range p.refused {
		gone[p.refused[i].place] = true
	}
	for i := range p.r.Topics {
		t := &p.r.Topics[i]
		t.Partitions = slices.DeleteFunc(t.Partitions, func(q kafka.ProducePartition) bool { return gone[place{t.Name, t.ID, q.Index}] })
	}
	p.r.Topics = slices.DeleteFunc(p.r.Topics, func(t kafka.ProduceTopic) bool { return len(t.Partitions) == 0 })
}

// mergeRefused adds the refused partitions to the broker's response to the others.
func mergeRefused(x exchange, body []byte) (appender, error) {
	r, err := kafka.ParseProduceResponse(x.version, body)
	if err != nil {
		return nil, err
	}
	addRefused(r, x.refused)
	return r, nil
}

func addRefused(r *kafka.ProduceResponse, refused []refusedPartition) {
	for i := range refused {
		p := &refused[i]
		r.Add(p.name, p.id, p.partition, p.code, p.message)
	}
}
