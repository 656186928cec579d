package proxywasm

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Bounds on what a module gives as headers.
const (
	maxPairs      = 1024
	maxPairsBytes = 1 << 20
)

// Kinds of header maps that are not empty here.
const (
	mapHTTPHeaders = 6
	mapLast        = 7
)

// A cluster is where HTTP calls go: HTTP/1.1 over connections that are kept.
type cluster struct{ transport *http.Transport }

func newCluster(address string) *cluster {
	network, address := split(address)
	return &cluster{&http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			d := net.Dialer{Timeout: connectTimeout}
			return d.DialContext(ctx, network, address)
		},
		DisableCompression:  true,
		MaxIdleConnsPerHost: 8,
	}}
}

func (c *cluster) close() { c.transport.CloseIdleConnections() }

// split takes "unix:/path" or HOST:PORT apart as package net wants it.
func split(address string) (network, rest string) {
	if path, unix := strings.CutPrefix(address, "unix:"); unix {
		return "unix", path
	}
	return "tcp", address
}

// A pair is a header; names are in lower case.
type pair struct{ name, value string }

// An answer is what an HTTP call came to. Without headers, it was reset.
type answer struct {
	headers []pair
	body    []byte
}

// local is the answer that the proxy makes where the cluster has none.
func local(code int, text string) *answer {
	return &answer{[]pair{{":status", strconv.Itoa(code)}, {"content-length", strconv.Itoa(len(text))}, {"content-type", "text/plain"}}, []byte(text)}
}

// httpCall sends a request; what comes of it is told to the root context, with the token.
func (v *vm) httpCall(s []uint64) status {
	name, ok1 := v.text(s[0], s[1])
	headers, ok2 := v.memory.Read(u(s[2]), u(s[3]))
	body, ok3 := v.memory.Read(u(s[4]), u(s[5]))
	_, ok4 := v.memory.Read(u(s[6]), u(s[7]))
	if !ok1 || !ok2 || !ok3 || !ok4 || !v.memory.WriteUint32Le(u(s[9]), 0) {
		return invalidMemory
	}
	to, found := v.p.http[name]
	if !found {
		return badArgument
	}
	request := http.Request{Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, ContentLength: int64(len(body))}
	path := ""
	for _, p := range parsePairs(headers) {
		switch p.name {
		case ":method":
			request.Method = p.value
		case ":path":
			path = p.value
		case ":authority":
			request.Host = p.value
		default:
			request.Header.Add(p.name, p.value)
		}
	}
	target, err := http.NewRequest(request.Method, "http://cluster"+path, nil)
	if err != nil || request.Method == "" || path == "" || request.Host == "" || int32(u(s[8])) < 0 {
		return badArgument
	}
	request.URL = target.URL
	if len(body) > 0 { // without GetBody, so that nothing is ever sent twice
		request.Body = io.NopCloser(bytes.NewReader(bytes.Clone(body)))
	}
	v.lastCall = max(v.lastCall+1, 1)
	token := v.lastCall
	ctx, cancel := context.WithCancel(v.p.ctx)
	if ms := u(s[8]); ms > 0 {
		ctx, cancel = context.WithTimeout(v.p.ctx, time.Duration(ms)*time.Millisecond)
	}
	v.calls[token] = cancel
	if v.w != nil { // a machine that only tries the configuration does not live to hear of it
		v.p.running.Add(1)
		go func() {
			defer v.p.running.Done()
			a := to.send(request.WithContext(ctx))
			cancel()
			v.w.post(func() { v.answered(token, a) })
		}()
	}
	return v.put32(u(s[9]), token)
}

func (c *cluster) send(r *http.Request) *answer {
	response, err := c.transport.RoundTrip(r)
	var body []byte
	if err == nil {
		body, err = io.ReadAll(response.Body)
		response.Body.Close()
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return local(http.StatusGatewayTimeout, "upstream request timeout")
	case err != nil:
		return local(http.StatusServiceUnavailable, "upstream connect error or disconnect/reset before headers")
	}
	a := &answer{[]pair{{":status", strconv.Itoa(response.StatusCode)}}, body}
	for name, values := range response.Header {
		for _, value := range values {
			a.headers = append(a.headers, pair{strings.ToLower(name), value})
		}
	}
	return a
}

func (v *vm) answered(token uint32, a *answer) {
	if v.calls[token] == nil {
		return
	}
	v.answer = a
	v.call(rootID, "proxy_on_http_call_response", rootID, token, uint32(len(a.headers)), uint32(len(a.body)), 0)
	v.answer = nil
	delete(v.calls, token)
}

// headers returns the headers of the answer that is being told.
func (v *vm) headers(kind uint32) []pair {
	if kind == mapHTTPHeaders && v.answer != nil {
		return v.answer.headers
	}
	return nil
}

func (v *vm) getHeader(s []uint64) status {
	name, found := v.text(s[1], s[2])
	if !found {
		return invalidMemory
	}
	if u(s[0]) != mapHTTPHeaders || v.answer == nil {
		return badArgument
	}
	for _, p := range v.headers(u(s[0])) {
		if p.name == strings.ToLower(name) {
			return v.give([]byte(p.value), u(s[3]), u(s[4]))
		}
	}
	return notFound
}

func (v *vm) getHeaders(s []uint64) status {
	if u(s[0]) > mapLast {
		return badArgument
	}
	pairs := v.headers(u(s[0]))
	if len(pairs) == 0 {
		return v.give(nil, u(s[1]), u(s[2]))
	}
	return v.give(appendPairs(nil, pairs), u(s[1]), u(s[2]))
}

// getHeadersSize tells the bytes of names and values.
func (v *vm) getHeadersSize(s []uint64) status {
	if u(s[0]) != mapHTTPHeaders || v.answer == nil {
		return badArgument
	}
	size := 0
	for _, p := range v.headers(u(s[0])) {
		size += len(p.name) + len(p.value)
	}
	return v.put32(u(s[1]), uint32(size))
}

// appendPairs appends headers as the specification lays them out: their number, the sizes of
// each, then names and values with a zero byte after each; integers with the lowest byte first.
func appendPairs(b []byte, pairs []pair) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(pairs)))
	for _, p := range pairs {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(p.name)))
		b = binary.LittleEndian.AppendUint32(b, uint32(len(p.value)))
	}
	for _, p := range pairs {
		b = append(append(b, p.name...), 0)
		b = append(append(b, p.value...), 0)
	}
	return b
}

// parsePairs reads headers. What is no encoding of any has none, as in Envoy.
func parsePairs(b []byte) []pair {
	if len(b) < 4 || len(b) > maxPairsBytes {
		return nil
	}
	n := binary.LittleEndian.Uint32(b)
	if n > maxPairs || uint64(len(b)) < 4+8*uint64(n) {
		return nil
	}
	sizes, text := b[4:4+8*n], b[4+8*n:]
	field := func(i uint32) (string, bool) {
		size := uint64(binary.LittleEndian.Uint32(sizes[4*i:]))
		if uint64(len(text)) < size+1 || text[size] != 0 {
			return "", false
		}
		s := string(text[:size])
		text = text[size+1:]
		return s, true
	}
	var pairs []pair
	for i := range n {
		name, ok1 := field(2 * i)
		value, ok2 := field(2*i + 1)
		if !ok1 || !ok2 {
			return nil
		}
		pairs = append(pairs, pair{strings.ToLower(name), value})
	}
	if len(text) != 0 {
		return nil
	}
	return pairs
}
