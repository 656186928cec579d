package proxy

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
)

// readBroker is the second goroutine: it hands over one frame at a time and reads the next
// meanwhile, so that the broker's end is seen at once, whatever the others wait for.
func (c *conn) readBroker() error {
	defer close(c.frames)
	in := bufio.NewReaderSize(c.broker, readBuffer)
	for {
		f, err := readFrame(in, c.p.cfg.MaxFrame)
		if err != nil {
			c.brokerErr = brokerReadFailed(err)
			return nil // the third goroutine reports it, after what came before
		}
		select {
		case c.frames <- f:
		case <-c.ctx.Done():
			f.release()
			return nil
		}
	}
}

// brokerReadFailed tells the end of a connection from bytes that are not Kafka's.
func brokerReadFailed(err error) error {
	if errors.Is(err, io.EOF) {
		return &brokerGone{errors.New("end of stream")}
	}
	var length lengthError
	if errors.As(err, &length) {
		return &violation{"broker", "a frame", 0, err}
	}
	return &brokerGone{err}
}

// writeResponses is the third goroutine: it answers the requests in the order in which they
// came. It returns nil when the last one is answered and no more will come.
func (c *conn) writeResponses() error {
	var ahead *frame // read from the broker before its exchange was taken from the queue
	for {
		early := c.frames
		if ahead != nil {
			early = nil
		}
		select {
		case <-c.ctx.Done():
			return nil
		case f, ok := <-early:
			if !ok {
				return c.brokerErr
			}
			if len(c.pending) == 0 {
				return &violation{"broker", "a response", 0, errors.New("nothing was asked")}
			}
			ahead = f
		case x, ok := <-c.pending:
			if !ok {
				c.cancel(errClientDone)
				return nil
			}
			f := x.local
			if f == nil {
				if f = ahead; f == nil {
					f, ok = <-c.frames
					if !ok {
						return c.brokerErr
					}
				}
				ahead = nil
				var err error
				if f, err = c.response(x, f); err != nil {
					return err
				}
			}
			_, err := c.client.Write(f.bytes)
			f.release()
			if err != nil {
				return errClientDone
			}
		}
	}
}

// response turns the broker's answer to x into the client's. It takes f over.
func (c *conn) response(x exchange, f *frame) (*frame, error) {
	out, err := c.transform(x, f)
	if err != nil {
		var v *violation
		if !errors.As(err, &v) && context.Cause(c.ctx) == nil {
			err = &violation{"broker", kafka.APIName(x.key), x.version, err}
		}
		return nil, err
	}
	if out != f {
		f.release()
	}
	return out, nil
}

func (c *conn) transform(x exchange, f *frame) (*frame, error) {
	body := f.body()
	if len(body) < 4 {
		return nil, kafka.ErrFrame
	}
	if id := int32(binary.BigEndian.Uint32(body)); id != x.correlationID {
		return nil, fmt.Errorf("correlation id %d where %d was expected", id, x.correlationID)
	}
	size, err := kafka.ResponseHeaderSize(x.key, x.version, body)
	if err != nil {
		return nil, err
	}
	header, body := body[:size], body[size:]

	var changed appender
	switch x.key {
	case kafka.KeyApiVersions:
		changed, err = c.clamped(x.version, body)
	case kafka.KeyProduce:
		if x.version < 10 && len(x.refused) == 0 {
			return f, nil // nothing in it is ours to change
		}
		changed, err = mergeRefused(x, body)
	case kafka.KeyFetch:
		changed, err = c.openFetch(x.version, body)
	case kafka.KeyShareFetch:
		changed, err = c.openShareFetch(x.version, body)
	case kafka.KeyMetadata:
		changed, err = c.rewriteMetadata(x.version, body)
	case kafka.KeyFindCoordinator:
		changed, err = c.rewriteFindCoordinator(x.version, body)
	case kafka.KeyDescribeCluster:
		changed, err = c.rewriteDescribeCluster(x.version, body)
	case kafka.KeyDescribeQuorum:
		changed, err = c.rewriteDescribeQuorum(x.version, body)
	case kafka.KeyShareAcknowledge:
		changed, err = kafka.ParseShareAcknowledgeResponse(x.version, body)
	default:
		return f, nil
	}
	if err != nil {
		return nil, err
	}
	out := newFrame(len(f.body()))
	out.bytes = changed.Append(append(out.bytes, header...))
	out.finish()
	for i, m := range c.opened {
		m.release()
		c.opened[i] = nil
	}
	c.opened = c.opened[:0]
	return out, nil
}

// clamped narrows what the client may use to what is passed.
func (c *conn) clamped(version int16, body []byte) (appender, error) {
	r, err := kafka.ParseApiVersionsResponse(version, body)
	if err != nil {
		return nil, err
	}
	r.Clamp()
	for i := range r.APIs {
		_, high, _ := c.p.passed(r.APIs[i].Key)
		r.APIs[i].Max = min(r.APIs[i].Max, high)
	}
	return r, nil
}
