package proxy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
)

// A refusedPartition was taken out of a Produce request; the client is told in the response.
type refusedPartition struct {
	name      string
	id        [16]byte
	partition int32
	code      int16
	message   string
}

// A sealing is one partition of a Produce request on its way through the filter.
type sealing struct {
	topic     *kafka.ProduceTopic
	partition *kafka.ProducePartition
	name      string
	sealed    []byte
	memory    *frame // that sealed is in; nil where the batch goes on as it came
	err       error
}

// produce seals a Produce request partition by partition and forwards what was sealed. What
// was not never reaches the broker.
func (c *conn) produce(f *frame, h kafka.RequestHeader) error {
	r, err := kafka.ParseProduceRequest(h.Version, f.body()[h.Size:])
	if err != nil {
		return &violation{"client", "Produce", h.Version, err}
	}
	for i := range r.Topics {
		if n := len(r.Topics[i].Name); n > abi.MaxTopicLen {
			return &violation{"client", "Produce", h.Version, fmt.Errorf("topic name of %d bytes: %w", n, kafka.ErrFrame)}
		}
	}
	work, refused := c.sealings(r)
	if err := c.sealAll(work); err != nil {
		return err
	}
	sealed := uint64(0)
	for i := range work {
		s := &work[i]
		if s.err == nil {
			s.partition.Records = s.sealed
			sealed++
			continue
		}
		status, v := judge(s.err)
		if v.produce == 0 {
			return &violation{"client", "Produce", h.Version, s.err}
		}
		c.p.stats.sealRefused.add(status)
		if c.p.quiet.allow(fmt.Sprintf("seal %s %d", s.name, status)) {
			reason, hint := explain(s.err, v)
			c.log.Warn("produce refused", "topic", s.name, "partition", s.partition.Index, "reason", reason, "hint", hint)
		}
		refused = append(refused, refusedPartition{s.topic.Name, s.topic.ID, s.partition.Index, v.produce, refusal(status, v)})
	}
	if len(refused) > 0 && r.Acks == 0 {
		// There is no response to put the error into. Kafka closes the connection then.
		return &violation{"client", "Produce", h.Version, fmt.Errorf("acks=0 and refused: %s", refused[0].message)}
	}
	c.p.stats.sealed.Add(sealed)
	if remove(r, refused); len(r.Topics) == 0 && len(refused) > 0 {
		return c.answer(h, responseOf(h.Version, refused))
	}

	out := &message{frame: newFrame(min(len(f.bytes), firstRead))}
	for i := range work {
		if m := work[i].memory; m != nil {
			out.borrowed = append(out.borrowed, m)
		}
	}
	defer out.release()
	out.bytes, out.apart = r.AppendApart(append(out.bytes, f.body()[:h.Size]...), nil)
	out.finish()
	if r.Acks == 0 {
		return c.send(out)
	}
	return c.forward(out, exchange{key: h.Key, version: h.Version, correlationID: h.CorrelationID, refused: refused})
}

// sealings lists the partitions that carry records. Those of a topic id that no Metadata
// response has named are refused: the client then asks for Metadata, and we learn what it
// takes the id for.
func (c *conn) sealings(r *kafka.ProduceRequest) (work []sealing, refused []refusedPartition) {
	for i := range r.Topics {
		t := &r.Topics[i]
		name, known := t.Name, true
		if r.Version >= 13 {
			name, known = c.p.topics.name(t.ID)
		}
		for j := range t.Partitions {
			p := &t.Partitions[j]
			switch {
			case !known:
				refused = append(refused, refusedPartition{"", t.ID, p.Index, codeUnknownTopicID, ""})
			case len(p.Records) > 0:
				work = append(work, sealing{topic: t, partition: p, name: name})
			}
		}
	}
	return work, refused
}

// sealAll runs the partitions through the filter side by side, so that one topic's wait for
// a lease does not use up another's time. An error is a bug.
func (c *conn) sealAll(work []sealing) error {
	start := time.Now()
	return c.each(len(work), func(i int, waits func()) {
		s := &work[i]
		ctx := &patience{Context: c.ctx, end: start.Add(c.p.leases.wait(s.name, start, c.p.cfg.ProduceWait)), waits: waits}
		defer ctx.release()
		c.seal(ctx, s)
		switch status, _ := judge(s.err); {
		case s.err == nil:
			c.p.leases.note(s.name, start, time.Now(), true)
		case status == abi.StatusUnavailable:
			c.p.leases.note(s.name, start, time.Now(), false)
		}
	})
}

// sealAgain is the time after which a seal that was answered with StatusUnavailable is tried
// again: not every client is patient, so the sidecar is.
const sealAgain = 200 * time.Millisecond

// seal seals one partition, trying until ctx ends where only the control topics are missing.
func (c *conn) seal(ctx context.Context, s *sealing) {
	if c.p.filter.Pass(s.name, s.partition.Index, s.partition.Records) {
		s.sealed = s.partition.Records
		return
	}
	s.memory = newFrame(len(s.partition.Records)*9/8 + 512)
	for {
		s.sealed, s.err = c.p.filter.SealTo(ctx, s.memory.bytes[:0], s.name, s.partition.Index, s.partition.Records)
		s.memory.bytes = s.sealed[:0:cap(s.sealed)] // it may have grown
		if s.err == nil && len(s.sealed) == 0 {
			s.err = abi.StatusInternal
		}
		if !errors.Is(s.err, abi.StatusUnavailable) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(sealAgain):
		}
	}
}

// remove deletes the refused partitions from the request, and topics that hold no other.
func remove(r *kafka.ProduceRequest, refused []refusedPartition) {
	if len(refused) == 0 {
		return
	}
	type place struct {
		name      string
		id        [16]byte
		partition int32
	}
	gone := make(map[place]bool, len(refused))
	for _, p := range refused {
		gone[place{p.name, p.id, p.partition}] = true
	}
	topics := r.Topics[:0]
	for _, t := range r.Topics {
		partitions := t.Partitions[:0]
		for _, p := range t.Partitions {
			if !gone[place{t.Name, t.ID, p.Index}] {
				partitions = append(partitions, p)
			}
		}
		if t.Partitions = partitions; len(partitions) > 0 {
			topics = append(topics, t)
		}
	}
	r.Topics = topics
}

// responseOf answers the refused partitions alone.
func responseOf(version int16, refused []refusedPartition) *kafka.ProduceResponse {
	r := &kafka.ProduceResponse{Version: version}
	addRefused(r, refused)
	return r
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
	for _, p := range refused {
		r.Add(p.name, p.id, p.partition, p.code, p.message)
	}
}
