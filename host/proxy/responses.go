package proxy

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
)

// answerRequests is the second goroutine: it reads the broker's frames and answers the requests
// in the order in which they came. It returns nil when the last one is answered and no more
// will come.
func (c *conn) answerRequests() error {
	in := c.frames(c.broker)
	for {
		f, err := in.next()
		if err != nil {
			return brokerReadFailed(err)
		}
		x, ok := c.order.oldest()
		if !ok {
			return &violation{"broker", "a response", 0, errors.New("nothing was asked")}
		}
		m, err := c.response(x, f)
		if err != nil {
			return err
		}
		if err := m.writeTo(c.client); err != nil {
			return errClientDone
		}
		m.release()
		switch last, err := c.answered(); {
		case err != nil:
			return err
		case last:
			c.cancel(errClientDone)
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

// response turns the broker's answer to x into the client's. It takes f over.
func (c *conn) response(x exchange, f *frame) (*message, error) {
	m, err := c.transform(x, f)
	if err != nil {
		var v *violation
		if !errors.As(err, &v) && context.Cause(c.ctx) == nil {
			err = &violation{"broker", kafka.APIName(x.key), x.version, err}
		}
		return nil, err
	}
	return m, nil
}

func (c *conn) transform(x exchange, f *frame) (*message, error) {
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
			return &message{frame: f}, nil // nothing in it is ours to change
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
		return &message{frame: f}, nil
	}
	if err != nil {
		return nil, err
	}
	m := &message{frame: newFrame(min(len(body), firstRead)), borrowed: append(c.opened, f)}
	c.opened = nil
	m.bytes = append(m.bytes, header...)
	if r, ok := changed.(carrier); ok {
		m.bytes, m.apart = r.AppendApart(m.bytes, nil)
	} else {
		m.bytes = changed.Append(m.bytes)
	}
	m.finish()
	return m, nil
}

// A carrier is a body with records, which need not be copied.
type carrier interface {
	AppendApart(b []byte, pieces []kafka.Piece) ([]byte, []kafka.Piece)
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
