package proxy

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
)

func TestGarbageClosesItsOwnConnectionOnly(t *testing.T) {
	r := newRig(t, func(c *Config) { c.MaxFrame = 1 << 20 }, nil)
	r.createTopic("orders", 1)
	steady := dialRaw(r)
	steady.roundTrip(metadataRequest("orders"))

	random := make([]byte, 4096)
	rand.Read(random)
	random[0] = 0x55 // too long, whatever follows
	var unknown []byte
	unknown = binary.BigEndian.AppendUint32(unknown, 10)
	unknown = append(unknown, 0x7f, 0xff, 0, 0, 0, 0, 0, 1, 0, 0)
	old := kmsg.NewPtrProduceRequest()
	old.Version = 2
	var fetch kmsg.FetchRequest
	fetch.Version = 99
	formatter := kmsg.NewRequestFormatter()

	for _, test := range []struct {
		name   string
		bytes  []byte
		logged []string
	}{
		{"random", random, []string{"over the limit"}},
		{"HTTP", []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), []string{"looks like HTTP"}},
		{"negative length", []byte{0xff, 0xff, 0xff, 0xff, 0, 0}, []string{"negative frame length -1"}},
		{"huge length", []byte{0x7f, 0xff, 0xff, 0xff}, []string{"frame of 2147483647 bytes is over the limit"}},
		{"no length", []byte{0, 0, 0, 0}, []string{"empty frame"}},
		{"short header", []byte{0, 0, 0, 1, 7}, []string{"malformed frame"}},
		{"unknown API", unknown, []string{"API 32767", "unsupported version"}},
		{"old Produce", formatter.AppendRequest(nil, old, 1), []string{"api=Produce", "version=2", "unsupported version"}},
		{"new Fetch", formatter.AppendRequest(nil, &fetch, 1), []string{"api=Fetch", "version=99", "unsupported version"}},
		{"cut Produce", cutProduce(), []string{"api=Produce", "version=9", "malformed frame"}},
		{"long name", formatter.AppendRequest(nil, produceRequest(9, -1, strings.Repeat("x", abi.MaxTopicLen+1), batchOf("x")), 1), []string{"api=Produce", "topic name of 250 bytes"}},
		{"wrong batch", formatter.AppendRequest(nil, produceRequest(9, -1, "orders", []byte("no batch")), 1), []string{"api=Produce", "version=9", "malformed batch"}},
	} {
		raw := dialRaw(r)
		if _, err := raw.conn.Write(test.bytes); err != nil {
			t.Fatal(err)
		}
		if frame, err := raw.frame(); !errors.Is(err, io.EOF) {
			t.Errorf("%s: answered %x, %v; want the connection closed", test.name, frame, err)
			continue
		}
		words := append(test.logged, "client="+raw.conn.LocalAddr().String(), "reason=")
		r.eventually(test.name+" is logged once", func() bool { return r.logged.count(words...) == 1 })
		steady.roundTrip(metadataRequest("orders"))
	}
	if got := stored(r, "orders", 0); len(got) != 0 {
		t.Errorf("the broker holds %q", got)
	}
}

// cutProduce is a Produce request whose body ends too early, in a frame that says so.
func cutProduce() []byte {
	b := kmsg.NewRequestFormatter().AppendRequest(nil, produceRequest(9, -1, "orders", batchOf("x")), 1)
	b = b[:len(b)-5]
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return b
}

func TestTLSOnThePlainPortIsExplained(t *testing.T) {
	r := newRig(t, nil, nil)
	conn, err := net.Dial("tcp", r.addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := tls.Client(conn, &tls.Config{InsecureSkipVerify: true}).Handshake(); err == nil {
		t.Fatal("handshake with a plain port succeeded")
	}
	r.eventually("the reason is logged", func() bool { return r.logged.count("looks like TLS", "hint:") == 1 })
}

func TestClaimedLengthAllocatesNothing(t *testing.T) {
	head := binary.BigEndian.AppendUint32(nil, 100<<20)
	allocated := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			if _, err := (&frameReader{in: bytes.NewReader(append(head, 1, 2, 3)), max: 200 << 20}).next(); !errors.Is(err, io.ErrUnexpectedEOF) {
				b.Fatal(err)
			}
		}
	}).AllocedBytesPerOp()
	if allocated > 2*firstRead || firstRead > 128<<10 {
		t.Errorf("%d bytes for a frame that never came", allocated)
	}
}

func TestLargeFramesPassWhole(t *testing.T) {
	for _, size := range []int{1, 4095, 4096, 4097, firstRead - 1, firstRead, firstRead + 1, 5 << 20, 17<<20 + 3} {
		want := make([]byte, size)
		rand.Read(want)
		stream := append(binary.BigEndian.AppendUint32(nil, uint32(size)), want...)
		f, err := (&frameReader{in: iotest{bytes.NewReader(append(stream, 9, 9, 9))}, max: 20 << 20}).next()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(f.body(), want) || !bytes.Equal(f.bytes, stream) {
			t.Errorf("frame of %d bytes came out different", size)
		}
		f.release()
	}
}

// What a peer sent before, it may send again: its next frame is read to where it stays, but
// a length alone costs no more than maxFirstRead.
func TestFramesLikeTheLargestSoFarAreReadInOneGo(t *testing.T) {
	for _, size := range []int{firstRead + 1, maxFirstRead, 2 * maxFirstRead} {
		frame := append(binary.BigEndian.AppendUint32(nil, uint32(size)), make([]byte, size)...)
		asked := &asks{r: bytes.NewReader(slices.Concat(frame, frame))}
		in := &frameReader{in: asked, max: size}
		for i, want := range []int{firstRead, min(size, maxFirstRead)} {
			asked.first = 0
			f, err := in.next()
			if err != nil {
				t.Fatal(err)
			}
			if got := asked.first; got < want || got > 2*want {
				t.Errorf("frame %d of %d bytes: %d are read at first, want about %d", i, size, got, want)
			}
			f.release()
		}
	}
}

// asks notes what the first long read asks for.
type asks struct {
	r     io.Reader
	first int
}

func (a *asks) Read(b []byte) (int, error) {
	if a.first == 0 && len(b) > lengthSize {
		a.first = len(b)
	}
	return a.r.Read(b)
}

// iotest returns odd pieces.
type iotest struct{ r io.Reader }

func (i iotest) Read(b []byte) (int, error) { return i.r.Read(b[:min(len(b), 100003)]) }

func FuzzReadFrame(f *testing.F) {
	f.Add([]byte{0, 0, 0, 2, 1, 2, 3})
	f.Add([]byte{0xff, 0, 0, 2, 1, 2, 3})
	f.Add([]byte("GET / HTTP/1.1"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		got, err := (&frameReader{in: bytes.NewReader(stream), max: 1 << 16}).next()
		if err != nil {
			return
		}
		defer got.release()
		if !bytes.HasPrefix(stream, got.bytes) || int(binary.BigEndian.Uint32(stream)) != len(got.body()) || len(got.body()) == 0 {
			t.Errorf("%x read from %x", got.bytes, stream)
		}
	})
}

func TestTooNewApiVersionsIsAnsweredInVersionZero(t *testing.T) {
	r := newRig(t, nil, nil)
	raw := dialRaw(r)
	req := kmsg.NewPtrApiVersionsRequest()
	req.Version = 77
	raw.send(req)
	frame, err := raw.frame()
	if err != nil {
		t.Fatal(err)
	}
	resp := kmsg.NewPtrApiVersionsResponse()
	if err := resp.ReadFrom(frame[4:]); err != nil {
		t.Fatal(err)
	}
	if resp.ErrorCode != codeUnsupportedVersion || len(resp.ApiKeys) != 1 || resp.ApiKeys[0].ApiKey != 18 {
		t.Errorf("answered %+v", resp)
	}
}

func TestOfferedVersionsAreThoseThatPass(t *testing.T) {
	r := newRig(t, nil, nil)
	req := kmsg.NewPtrApiVersionsRequest()
	req.Version = 3
	req.ClientSoftwareName, req.ClientSoftwareVersion = "test", "1"
	resp := dialRaw(r).roundTrip(req).(*kmsg.ApiVersionsResponse)
	if len(resp.ApiKeys) < 20 {
		t.Fatalf("%d APIs", len(resp.ApiKeys))
	}
	for _, k := range resp.ApiKeys {
		if k.ApiKey == 0 && k.MaxVersion > 13 || k.ApiKey == 71 || k.ApiKey == 4 || k.MinVersion > k.MaxVersion {
			t.Errorf("offered %+v", k)
		}
	}
}

func TestPanicEndsOneConnectionOnly(t *testing.T) {
	r := newRig(t, nil, nil)
	r.createTopic("orders", 3)
	steady := dialRaw(r)
	steady.roundTrip(metadataRequest("orders"))
	r.produce(r.client(), "orders", 0, "x")
	r.filter.onSeal(func(_ context.Context, _ string, p int32) error {
		if p > 0 {
			panic("made by the test")
		}
		return nil
	})
	r.filter.onOpen(func(context.Context, string, int32, int64) error { panic("made by the test") })
	for _, req := range []kmsg.Request{
		produceRequestAt(9, -1, "orders", 1, batchOf("x")),
		produceRequest(9, -1, "orders", batchOf("x"), batchOf("x"), batchOf("x")),
		fetchRequest(12, "orders", 0),
	} {
		raw := dialRaw(r)
		raw.send(req)
		if _, err := raw.receive(); !errors.Is(err, io.EOF) {
			t.Errorf("got %v, want the connection closed", err)
		}
		steady.roundTrip(metadataRequest("orders"))
	}
	r.eventually("the bug is logged", func() bool { return r.logged.count("bug in the sidecar", "made by the test") == 3 })
}

// A lyingBroker answers each request with what the test says.
func lyingBroker(t *testing.T, answer func(request []byte) []byte) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				for {
					f, err := (&frameReader{in: conn, max: 1 << 20}).next()
					if err != nil {
						return
					}
					if _, err := conn.Write(answer(f.body())); err != nil {
						return
					}
				}
			}()
		}
	}()
	return ln.Addr().String()
}

func TestWrongAnswersOfABrokerCloseTheConnection(t *testing.T) {
	for name, test := range map[string]struct {
		answer func(request []byte) []byte
		logged string
	}{
		"another correlation id": {func(q []byte) []byte { return []byte{0, 0, 0, 5, 0, 0, 9, 9, 0} }, "correlation id 2313 where 1 was expected"},
		"nothing in it":          {func(q []byte) []byte { return []byte{0, 0, 0, 2, 0, 0} }, "malformed frame"},
		"a cut body":             {func(q []byte) []byte { return append([]byte{0, 0, 0, 6}, q[4], q[5], q[6], q[7], 0, 0) }, "malformed frame"},
		"a TLS alert":            {func(q []byte) []byte { return []byte{21, 3, 3, 0, 2, 2, 70} }, "looks like TLS"},
		"a huge length":          {func(q []byte) []byte { return []byte{0x7f, 0, 0, 0} }, "over the limit"},
	} {
		t.Run(name, func(t *testing.T) {
			addr := lyingBroker(t, test.answer)
			r := newRig(t, func(c *Config) { c.Bootstrap = []string{addr} }, nil)
			raw := dialRaw(r)
			raw.send(metadataRequest("orders"))
			if _, err := raw.receive(); !errors.Is(err, io.EOF) {
				t.Errorf("got %v, want the connection closed", err)
			}
			r.eventually("the reason is logged", func() bool { return r.logged.count("from=broker", test.logged) == 1 })
		})
	}
}

func TestAnswerThatNobodyAskedForClosesTheConnection(t *testing.T) {
	addr := lyingBroker(t, func(q []byte) []byte {
		one := append([]byte{0, 0, 0, 4}, q[4:8]...)
		return append(one, one...)
	})
	r := newRig(t, func(c *Config) { c.Bootstrap = []string{addr} }, nil)
	raw := dialRaw(r)
	raw.send(&kmsg.HeartbeatRequest{Version: 0})
	if _, err := raw.frame(); err != nil {
		t.Fatal(err)
	}
	if _, err := raw.frame(); !errors.Is(err, io.EOF) {
		t.Errorf("got %v, want the connection closed", err)
	}
	r.eventually("the reason is logged", func() bool { return r.logged.count("nothing was asked") == 1 })
}

func TestManyBrokersDoNotOpenListenersWithoutEnd(t *testing.T) {
	p := &Proxy{log: quietLog()}
	p.brokers.byID = map[int32]*broker{}
	for id := range int32(maxBrokers) {
		p.brokers.byID[id] = &broker{}
	}
	if _, err := p.localPort(maxBrokers, "h", 1); err == nil || !strings.Contains(err.Error(), "brokers") {
		t.Errorf("got %v", err)
	}
}

func TestEveryVerdictHasAHint(t *testing.T) {
	for s := range abi.Status(numStatuses) {
		known := !strings.HasPrefix(s.String(), "unknown")
		asks := s <= abi.StatusNeedSpace // never leave the engine
		if known && !asks && s.Hint() == "" {
			t.Errorf("%v has no hint", s)
		}
	}
}

func TestConnectionsAreCheap(t *testing.T) {
	big := make([]byte, 1<<20)
	binary.BigEndian.PutUint32(big, uint32(len(big)-4))
	addr := lyingBroker(t, func(q []byte) []byte {
		b := bytes.Clone(big)
		copy(b[4:], q[4:8])
		return b
	})
	r := newRig(t, func(c *Config) { c.Bootstrap = []string{addr} }, nil)
	before := heap()
	var conns []*rawConn
	for range 200 {
		raw := dialRaw(r)
		raw.send(&kmsg.ListGroupsRequest{Version: 2})
		if frame, err := raw.frame(); err != nil || len(frame) != len(big)-4 {
			t.Fatalf("%d bytes, %v", len(frame), err)
		}
		conns = append(conns, raw)
	}
	each := (int64(heap()) - int64(before)) / int64(len(conns))
	t.Logf("%d KiB for each of %d connections, with both peers in this process", each>>10, len(conns))
	if each > 100<<10 {
		t.Errorf("%d bytes for each connection: frames are kept", each)
	}
	for _, c := range conns {
		c.conn.Close()
	}
	r.eventually("they are gone", func() bool { return r.proxy.Stats().Open == 0 })
}
