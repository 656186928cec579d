package envoy

import (
	"errors"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
)

// unknownQuiet in ms is how often a stream's client is told that a topic id is unknown.
// Between, its partitions come back without records: franz-go asks for Metadata once in 5 s,
// and hands the sixth such answer to the application.
const unknownQuiet = 1500

// noRecords is what Kafka writes for a partition without records: empty, not null.
var noRecords = []byte{}

// An opening is what became of one partition of a Fetch response.
type opening struct {
	records []byte // that may be delivered
	code    int16  // what the client is told, where nothing may be delivered
	failed  int64  // offset of the first batch that is not delivered; only where cut
	cut     bool
}

// openFetch opens a Fetch response partition by partition. Its session (KIP-227) is between
// client and broker and does not notice: a partition that comes back with less is asked for
// again from where the client stands.
func (s *Stream) openFetch(version int16, body []byte, now uint64) (appender, error) {
	r, err := kafka.ParseFetchResponse(version, body)
	if err != nil {
		return nil, err
	}
	o := s.opener(now)
	for i := range r.Topics {
		t := &r.Topics[i]
		name := t.Name
		if version > lastWithNames {
			name = s.w.topics.name(t.ID)
		}
		for j := range t.Partitions {
			p := &t.Partitions[j]
			if len(p.Records) == 0 {
				continue
			}
			got := o.open(name, p.Index, p.Records)
			p.Records = got.records
			if got.code != 0 {
				// As Kafka itself answers for a partition that it denies.
				*p = kafka.FetchPartition{
					Index: p.Index, ErrorCode: got.code, HighWatermark: -1, LastStableOffset: -1,
					LogStartOffset: -1, PreferredReadReplica: -1, Records: got.records,
				}
			}
		}
	}
	o.end()
	return r, nil
}

// openShareFetch is openFetch for share groups (KIP-932). Records that are not delivered are
// not acquired either: a client acknowledges acquired offsets without a record as gaps, and
// the broker would never send them again.
func (s *Stream) openShareFetch(version int16, body []byte, now uint64) (appender, error) {
	r, err := kafka.ParseShareFetchResponse(version, body)
	if err != nil {
		return nil, err
	}
	o := s.opener(now)
	for i := range r.Topics {
		t := &r.Topics[i]
		for j := range t.Partitions {
			p := &t.Partitions[j]
			if len(p.Records) == 0 {
				continue
			}
			got := o.open(s.w.topics.name(t.ID), p.Index, p.Records)
			p.Records = got.records
			if got.cut {
				if err := p.AcquireBefore(got.failed); err != nil {
					return nil, err
				}
			}
			if got.code != 0 {
				p.ErrorCode = got.code
			}
		}
	}
	o.end()
	return r, nil
}

// An opener goes through the partitions of one response, and remembers why the client's next
// Fetch should wait.
type opener struct {
	s         *Stream
	now       uint64
	wanted    []rootID // that are under way
	others    bool     // some partition is not denied
	denied    bool     // some is
	unknown   bool     // some topic id is
	tell      bool     // the client of a topic id that is unknown
	forTiming bool     // something is expected to open later, whatever root it is
}

func (s *Stream) opener(now uint64) *opener {
	return &opener{s: s, now: now, tell: s.unknownAt == 0 || now-s.unknownAt >= unknownQuiet}
}

// open opens one partition's records.
func (o *opener) open(topic string, partition int32, records []byte) opening {
	w := o.s.w
	if topic == "" {
		// The client asks for Metadata once it is told, and we learn what it takes the id for.
		o.unknown, o.others = true, true
		got := opening{records: noRecords, cut: true, failed: kafka.BaseOffset(records)}
		if o.tell {
			got.code = kafka.CodeUnknownTopicID
		}
		return got
	}
	opened, failed, status := o.batches(topic, partition, records)
	if status == abi.StatusOK {
		o.others = true
		w.stats.Opened++
		return opening{records: opened}
	}
	count(&w.stats.OpenRefused, status)
	got := opening{records: opened, cut: true, failed: failed} // the client comes back for the rest
	switch retry := kafka.FetchRetries(status); {
	case len(opened) > 0:
		o.others = true
	case retry:
		o.others, o.forTiming = true, true
		got.records = noRecords
	default:
		o.denied = true
		got.records, got.code = noRecords, kafka.CodeTopicAuthorizationFailed
	}
	return got
}

// batches opens one batch after the other. On any status but StatusOK it returns those before
// the one that did not open, and that one's offset.
func (o *opener) batches(topic string, partition int32, records []byte) (out []byte, failed int64, status abi.Status) {
	w := o.s.w
	a := &o.s.toClient.arena
	out = a.room(len(records) + 256)[:0]
	defer func() { a.keep(out) }()
	for len(records) > 0 {
		offset := kafka.BaseOffset(records)
		size, err := kafka.BatchSize(records)
		if errors.Is(err, kafka.ErrCut) {
			size, err = len(records), nil // the filter knows what to leave of it
		}
		opened, result := out, abi.Result{}
		if status = abi.StatusMalformed; err == nil {
			opened, result, status = w.openBatch(a, out, topic, partition, records[:size])
		}
		switch {
		case status == abi.StatusNeedRoot:
			if status = w.keys.NeedRoot(topic, partition, result.Kid, o.now); status == abi.StatusPending && len(o.wanted) < maxAwaited {
				o.wanted = append(o.wanted, rootID{result.Kid, partition})
			}
		case status == abi.StatusOK && result.Kid != abi.Kid{}:
			status = w.keys.Opened(topic, result.Kid, result.Leaf, partition, offset)
		}
		if status != abi.StatusOK {
			var skipped bool
			if opened, skipped = w.skip(out, records, size, status); !skipped {
				if status != abi.StatusPending || w.keys.late(rootID{result.Kid, partition}, o.now) {
					w.cfg.report(w.keys.event(EventOpen, topic, partition, offset, status))
				}
				return out, offset, status
			}
			w.cfg.report(Event{Kind: EventSkip, Topic: topic, Partition: partition, Offset: offset, Status: status})
		}
		out, records = opened, records[size:]
	}
	return out, 0, abi.StatusOK
}

// openBatch appends the opened form of one batch to out, for which the arena gave room last.
// batch stays as it is.
func (w *Worker) openBatch(a *arena, out []byte, topic string, partition int32, batch []byte) ([]byte, abi.Result, abi.Status) {
	room := len(batch) + 256
	for range 2 {
		if cap(out)-len(out) < room {
			out = append(a.room(len(out) + room + cap(out)/4)[:0], out...)
		}
		buf := out[len(out):][:room]
		copy(buf, batch)
		r, status := w.filter.OpenBatch(buf, len(batch), []byte(topic), partition)
		switch {
		case status == abi.StatusNeedSpace && int(r.Length) > room:
			room = int(r.Length)
			continue
		case status != abi.StatusOK:
			return out, r, status
		}
		return out[:len(out)+int(r.Length)], r, abi.StatusOK
	}
	return out, abi.Result{}, abi.StatusInternal
}

// skip appends to out what takes the place of the first batch of records, size bytes long,
// which did not open (PROTOCOL.md §2.8.5). It reports whether the batch is to be passed over,
// and leaves out alone where not.
func (w *Worker) skip(out, records []byte, size int, status abi.Status) ([]byte, bool) {
	if status != abi.StatusHistory && !(w.cfg.SkipUnreadable && kafka.Skippable(status)) {
		return out, false
	}
	batch, rest := records[:size], records[size:]
	if len(rest) >= 8 && kafka.BaseOffset(rest) <= kafka.LastOffset(batch) {
		return out, false // it would take the client past what follows
	}
	out, err := kafka.AppendSkip(out, batch)
	if err != nil {
		return out, false
	}
	count(&w.stats.Skipped, status)
	return out, true
}

// end decides whether the client's next Fetch waits.
func (o *opener) end() {
	s := o.s
	if o.unknown && o.tell {
		s.unknownAt = o.now
	}
	switch {
	case len(o.wanted) > 0, o.forTiming, o.unknown:
		s.w.stats.Held++
		s.hold = hold{until: o.now + fetchHold, wanted: o.wanted}
	case o.denied && !o.others:
		// A response that brings nothing but denials is asked for again at once by clients
		// that keep trying: thousands of times a second.
		s.hold = hold{until: o.now + fetchHold}
	}
}

// maxAwaited bounds the roots that end one hold.
const maxAwaited = 64

// A hold keeps a client's next Fetch back after one that brought less than there is, since the
// client asks again at once.
type hold struct {
	until   uint64   // Unix ms; 0 is no hold
	wanted  []rootID // it ends when any of these was answered
	holding bool     // a Fetch waits
}

// wait reports whether a Fetch that is there now must wait.
func (h *hold) wait(keys *Keys, now uint64) bool {
	h.holding = now < h.until && h.until-now <= fetchHold // a clock that went back holds nobody
	for _, id := range h.wanted {
		h.holding = h.holding && keys.awaits(id)
	}
	if !h.holding {
		*h = hold{}
	}
	return h.holding
}
