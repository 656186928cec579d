package proxy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
)

// busyTries is how often a partition that only waited its turn in the filter is tried
// again, before the client is told to do so.
const busyTries = 4

// noRecords is what Kafka writes for a partition without records: empty, not null.
var noRecords = []byte{}

// An opening is one partition of a Fetch response on its way through the filter.
type opening struct {
	topic     string // "" where the topic id is unknown
	partition int32
	records   []byte // as the broker sent them; what may be delivered afterwards
	code      int16  // what the client is told, where nothing may be delivered
	memory    *frame // that what was opened is in; nil where nothing was
	failed    int64  // offset of the first batch that is not delivered; only where cut
	cut       bool
}

// openFetch opens a Fetch response partition by partition. Its session (KIP-227) is between
// client and broker and does not notice: a partition that comes back with less is asked for
// again from where the client stands.
func (c *conn) openFetch(version int16, body []byte) (appender, error) {
	r, err := kafka.ParseFetchResponse(version, body)
	if err != nil {
		return nil, err
	}
	var work []opening
	var places []*kafka.FetchPartition
	ctx := &patience{Context: c.ctx, end: time.Now().Add(unknownHold)}
	defer ctx.release()
	for i := range r.Topics {
		t := &r.Topics[i]
		name := t.Name
		if version >= 13 && slices.ContainsFunc(t.Partitions, func(p kafka.FetchPartition) bool { return len(p.Records) > 0 }) {
			name = c.p.topics.await(ctx, t.ID)
		}
		for j := range t.Partitions {
			if p := &t.Partitions[j]; len(p.Records) > 0 {
				work = append(work, opening{topic: name, partition: p.Index, records: p.Records})
				places = append(places, p)
			}
		}
	}
	if err := c.openAll(work); err != nil {
		return nil, err
	}
	for i, p := range places {
		o := &work[i]
		p.Records = o.records
		if o.code != 0 {
			// As Kafka itself answers for a partition that it denies.
			*p = kafka.FetchPartition{
				Index: p.Index, ErrorCode: o.code, HighWatermark: -1, LastStableOffset: -1,
				LogStartOffset: -1, PreferredReadReplica: -1, Records: o.records,
			}
		}
	}
	return r, nil
}

// openShareFetch is openFetch for share groups (KIP-932). Records that are not delivered
// are not acquired either: a client acknowledges acquired offsets without a record as gaps,
// and the broker would never send them again.
func (c *conn) openShareFetch(version int16, body []byte) (appender, error) {
	r, err := kafka.ParseShareFetchResponse(version, body)
	if err != nil {
		return nil, err
	}
	var work []opening
	var places []*kafka.ShareFetchPartition
	for i := range r.Topics {
		t := &r.Topics[i]
		name, _ := c.p.topics.name(t.ID)
		for j := range t.Partitions {
			if p := &t.Partitions[j]; len(p.Records) > 0 {
				work = append(work, opening{topic: name, partition: p.Index, records: p.Records})
				places = append(places, p)
			}
		}
	}
	if err := c.openAll(work); err != nil {
		return nil, err
	}
	for i, p := range places {
		o := &work[i]
		p.Records = o.records
		if o.cut {
			if err := p.AcquireBefore(o.failed); err != nil {
				return nil, err
			}
		}
		if o.code != 0 {
			p.ErrorCode = o.code
		}
	}
	return r, nil
}

// openAll runs the partitions through the filter side by side, so that several that wait
// for a grant wait at the same time. Where all of them are denied it takes its time: the
// client's next request is no use before. An error is a bug.
func (c *conn) openAll(work []opening) error {
	held := make([]bool, len(work))
	err := c.each(len(work), func(i int, waits func()) { held[i] = c.open(&work[i], waits) })
	for i := range work {
		if m := work[i].memory; m != nil {
			c.opened = append(c.opened, m)
		}
	}
	for _, h := range held {
		if h {
			c.p.stats.held.Add(1)
			break
		}
	}
	if err == nil && len(work) > 0 && !slices.ContainsFunc(work, func(o opening) bool { return o.code != codeTopicAuthorizationFailed }) {
		// A response that brings nothing but denials is asked for again at once by clients
		// that keep trying: thousands of times a second.
		ctx, stop := context.WithTimeout(c.ctx, c.p.cfg.FetchHold)
		<-ctx.Done()
		stop()
	}
	return err
}

// open replaces the records of o by those that may be delivered. It reports whether the
// rest is expected to open later.
func (c *conn) open(o *opening, waits func()) (held bool) {
	if o.topic == "" {
		// The client asks for Metadata then, and we learn what it takes the id for.
		o.cut, o.failed, o.records, o.code = true, kafka.BaseOffset(o.records), noRecords, codeUnknownTopicID
		return false
	}
	if c.p.filter.Pass(o.topic, o.partition, o.records) {
		c.p.stats.opened.Add(1)
		return false
	}
	opened, err := c.openPatiently(o, waits)
	if err == nil {
		c.p.stats.opened.Add(1)
		o.records = opened
		return false
	}
	status, v := judge(err)
	o.cut, o.failed = true, failedOffset(o.records, opened)
	c.p.stats.openRefused.add(status)
	if c.p.quiet.allow(fmt.Sprintf("open %s %d %d", o.topic, o.partition, status)) {
		message := "batch cannot be opened"
		if v.retry {
			message = "batch cannot be opened yet"
		}
		reason, hint := explain(err, v)
		c.log.Warn(message, "topic", o.topic, "partition", o.partition, "offset", o.failed, "reason", reason, "hint", hint)
	}
	switch {
	case len(opened) > 0:
		o.records = opened // the client comes back for the rest
	case v.retry:
		o.records = noRecords
	default:
		o.records, o.code = noRecords, codeTopicAuthorizationFailed
	}
	return v.retry
}

// openPatiently holds the response for a grant that may be under way. Time that was spent
// in the filter's queue rather than waiting for the grant is given again, a few times.
func (c *conn) openPatiently(o *opening, waits func()) (opened []byte, err error) {
	o.memory = newFrame(len(o.records))
	for range busyTries {
		ctx := &patience{Context: c.ctx, end: time.Now().Add(c.p.cfg.FetchHold), waits: waits}
		opened, err = c.p.filter.OpenTo(ctx, o.memory.bytes[:0], o.topic, o.partition, o.records)
		o.memory.bytes = opened[:0:cap(opened)] // it may have grown
		ctx.release()
		queued := errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, abi.StatusPending)
		if !queued || len(opened) > 0 {
			break
		}
	}
	return opened, err
}

// failedOffset returns the base offset of the first batch of records that is not in opened,
// which holds one batch for each that was opened.
func failedOffset(records, opened []byte) int64 {
	for len(opened) > 0 {
		size, err := kafka.BatchSize(opened)
		if err != nil {
			break
		}
		opened = opened[size:]
		if size, err = kafka.BatchSize(records); err != nil {
			break
		}
		records = records[size:]
	}
	return kafka.BaseOffset(records)
}
