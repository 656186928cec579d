package envoy

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
)

func TestFramesComeTogetherHoweverTheyAreCut(t *testing.T) {
	var stream []byte
	var want [][]byte
	for i := range 20 {
		frame := bytes.Repeat([]byte{byte(i)}, 1+i*37)
		want = append(want, frame)
		stream = appendFrame(stream, func(b []byte) []byte { return append(b, frame...) })
	}
	for step := 1; step < len(stream); step += 1 + step/7 {
		f := newFrames(1000)
		var got [][]byte
		for rest := stream; len(rest) > 0; {
			n := min(step, len(rest))
			for at := 0; at < n; at += 500 {
				if err := f.feed(rest[at:min(n, at+500)]); err != nil {
					t.Fatal(err)
				}
				for {
					frame, err := f.next()
					if err != nil {
						t.Fatal(err)
					}
					if frame == nil {
						break
					}
					got = append(got, bytes.Clone(frame))
					f.take(frame)
				}
			}
			rest = rest[n:]
		}
		if len(got) != len(want) || f.waiting() != 0 {
			t.Fatalf("cut at every %d: %d frames, %d bytes left", step, len(got), f.waiting())
		}
		for i := range got {
			if !bytes.Equal(got[i], want[i]) {
				t.Fatalf("cut at every %d: frame %d differs", step, i)
			}
		}
	}
}

func TestAFrameThatIsHeldStaysAsItIsWhileMoreArrives(t *testing.T) {
	f := newFrames(1 << 10)
	first := appendFrame(nil, func(b []byte) []byte { return append(b, "first"...) })
	f.feed(append(bytes.Clone(first), appendFrame(nil, func(b []byte) []byte { return append(b, "held"...) })...))
	frame, _ := f.next()
	f.take(frame)
	held, _ := f.next()
	f.pinned = true
	for range 100 {
		if err := f.feed([]byte("\x00\x00\x00\x01x")); err != nil {
			t.Fatal(err)
		}
	}
	if string(held) != "held" {
		t.Errorf("the held frame became %q", held)
	}
}

func TestBytesThatAreNotKafkasEndTheStream(t *testing.T) {
	for name, b := range map[string][]byte{
		"TLS":      {22, 3, 1, 2, 0, 1},
		"HTTP":     []byte("GET / HTTP/1.1\r\n"),
		"negative": {0xff, 0xff, 0xff, 0xff},
		"empty":    {0, 0, 0, 0},
		"too long": {0, 0x10, 0, 1},
		"no API":   {0, 0, 0, 8, 0x7f, 0, 0, 0, 0, 0, 0, 1},
		"cut":      {0, 0, 0, 2, 0, 3},
	} {
		w := newWorld(t, Config{MaxFrame: 1 << 20})
		err := w.stream.FromClient(b, w.now)
		var v *Violation
		if !errors.As(err, &v) || v.From != "client" {
			t.Errorf("%s: %v", name, err)
		}
		if again := w.stream.FromClient(nil, w.now); again != err || gathered(w.stream.ToBroker) != nil || w.stream.Waiting() {
			t.Errorf("%s: the stream goes on", name)
		}
	}
}

func TestNothingLeavesAStreamAfterAnError(t *testing.T) {
	w := newWorld(t, Config{})
	good := kmsg.NewRequestFormatter().AppendRequest(nil, kmsg.NewPtrHeartbeatRequest(), 1)
	if err := w.stream.FromClient(append(good, 0, 0, 0, 0), w.now); err == nil || len(gathered(w.stream.ToBroker)) != 0 {
		t.Errorf("error %v", err)
	}
}

func TestMemoryOfAStreamIsBounded(t *testing.T) {
	w := newWorld(t, Config{MaxFrame: 1 << 10})
	w.request(produceRequest(7, 1, "orders")) // waits for its lease
	var err error
	sent := 0
	for ; err == nil && sent < 1<<20; sent += 100 {
		err = w.stream.FromClient(make([]byte, 100), w.now)
	}
	if err == nil || sent > 3<<10 {
		t.Errorf("%d bytes were taken, error %v", sent, err)
	}
}

func TestResponsesArePairedInOrderAndNothingUnaskedPasses(t *testing.T) {
	w := newWorld(t, Config{})
	heartbeat := kmsg.NewPtrHeartbeatRequest()
	heartbeat.Version = 3
	first, second := w.request(heartbeat), w.request(heartbeat)
	resp := kmsg.NewPtrHeartbeatResponse()
	resp.Version, resp.ErrorCode = 3, 27
	w.respond(first, resp)
	if got := received(w, first, 3, kmsg.NewPtrHeartbeatResponse()); got.ErrorCode != 27 {
		t.Errorf("%+v", got)
	}
	for name, frame := range map[string][]byte{
		"another id":   responseFrame(second+1, resp),
		"too short":    {0, 0, 0, 3, 0, 0, 0},
		"an oversized": {0x7f, 0, 0, 0},
	} {
		s := *w.stream
		var v *Violation
		if err := s.FromBroker(frame, w.now); !errors.As(err, &v) || v.From != "broker" {
			t.Errorf("%s: %v", name, err)
		}
	}
	w.respond(second, resp)
	if err := w.stream.FromBroker(responseFrame(second, resp), w.now); err == nil {
		t.Error("a response that nobody asked for passed")
	}
}

func TestPipelinedRequestsWaitBehindTheBound(t *testing.T) {
	w := newWorld(t, Config{})
	heartbeat := kmsg.NewPtrHeartbeatRequest()
	var ids []int32
	for range maxPending + 10 {
		ids = append(ids, w.request(heartbeat))
	}
	if n := len(w.forwarded()); n != maxPending {
		t.Fatalf("%d were forwarded", n)
	}
	for _, id := range ids[:20] {
		w.respond(id, kmsg.NewPtrHeartbeatResponse())
	}
	if err := w.stream.Resume(w.now); err != nil {
		t.Fatal(err)
	}
	if n := len(w.forwarded()); n != 10 {
		t.Errorf("%d more were forwarded", n)
	}
}

func TestApiVersionsIsNarrowedToWhatIsParsed(t *testing.T) {
	for _, namesOnly := range []bool{false, true} {
		w := newWorld(t, Config{NamesOnly: namesOnly})
		req := kmsg.NewPtrApiVersionsRequest()
		req.Version = 3
		id := w.request(req)
		resp := kmsg.NewPtrApiVersionsResponse()
		resp.Version = 3
		for key := range int16(100) {
			k := kmsg.NewApiVersionsResponseApiKey()
			k.ApiKey, k.MaxVersion = key, 99
			resp.ApiKeys = append(resp.ApiKeys, k)
		}
		w.respond(id, resp)
		seen := 0
		for _, k := range received(w, id, 3, kmsg.NewPtrApiVersionsResponse()).ApiKeys {
			_, high, ok := kafka.Supported(k.ApiKey)
			if namesOnly && k.ApiKey <= 1 {
				high = 12
			}
			if !ok || k.MaxVersion != high {
				t.Errorf("%s up to %d", kafka.APIName(k.ApiKey), k.MaxVersion)
			}
			seen++
		}
		if seen == 0 {
			t.Error("nothing is left")
		}
	}
}

func TestANewerApiVersionsIsRefusedByBrokerAndModuleAlike(t *testing.T) {
	w := newWorld(t, Config{})
	frame := []byte{0, 0, 0, 12, 0, 18, 0, 5, 0, 0, 0, 77, 0xff, 0xff, 0, 0}
	if err := w.stream.FromClient(frame, w.now); err != nil {
		t.Fatal(err)
	}
	sent := w.forwarded()
	if len(sent) != 1 || binary.BigEndian.Uint16(sent[0][2:]) != 0x7fff || binary.BigEndian.Uint32(sent[0][4:]) != 77 {
		t.Fatalf("the broker received %x", sent)
	}
	resp := kmsg.NewPtrApiVersionsResponse()
	resp.ErrorCode = 35
	w.respond(77, resp)
	if got := received(w, 77, 0, kmsg.NewPtrApiVersionsResponse()); got.ErrorCode != 35 || len(got.ApiKeys) != 1 {
		t.Errorf("%+v", got)
	}
}

// Frames without a header would follow SaslHandshake 0; its version is never offered.
func TestVersionsThatAreNotPassedEndTheStream(t *testing.T) {
	for _, req := range []kmsg.Request{
		&kmsg.SASLHandshakeRequest{Version: 0, Mechanism: "PLAIN"}, &kmsg.FetchRequest{Version: 3}, &kmsg.ProduceRequest{Version: 2},
		&kmsg.ControlledShutdownRequest{Version: 1}, &kmsg.EnvelopeRequest{},
	} {
		w := newWorld(t, Config{})
		frame := kmsg.NewRequestFormatter().AppendRequest(nil, req, 1)
		if err := w.stream.FromClient(frame, w.now); !errors.Is(err, kafka.ErrVersion) || len(gathered(w.stream.ToBroker)) != 0 {
			t.Errorf("%T: %v", req, err)
		}
	}
}

// brokersOf is a response of each API that names brokers, with brokers 1 and 3 in it.
func brokersOf() map[string]struct {
	req  kmsg.Request
	resp kmsg.Response
} {
	type pair = struct {
		req  kmsg.Request
		resp kmsg.Response
	}
	all := map[string]pair{}
	add := func(req kmsg.Request, resp kmsg.Response, version int16) {
		req.SetVersion(version)
		resp.SetVersion(version)
		all[fmt.Sprintf("%T v%d", resp, version)] = pair{req, resp}
	}
	const leak = "leak.internal"
	for _, v := range []int16{0, 9, 13} {
		m := kmsg.NewPtrMetadataResponse()
		m.Brokers = []kmsg.MetadataResponseBroker{{NodeID: 1, Host: leak, Port: 1}, {NodeID: 3, Host: leak, Port: 1}}
		add(kmsg.NewPtrMetadataRequest(), m, v)
	}
	for _, v := range []int16{0, 3, 6} {
		f := kmsg.NewPtrFindCoordinatorResponse()
		f.NodeID, f.Host, f.Port = 1, leak, 1
		f.Coordinators = []kmsg.FindCoordinatorResponseCoordinator{{NodeID: 3, Host: leak, Port: 1}}
		add(kmsg.NewPtrFindCoordinatorRequest(), f, v)
	}
	for _, v := range []int16{0, 1, 2} {
		d := kmsg.NewPtrDescribeClusterResponse()
		d.EndpointType = 1
		d.Brokers = []kmsg.DescribeClusterResponseBroker{{NodeID: 1, Host: leak, Port: 1}, {NodeID: 3, Host: leak, Port: 1}}
		add(kmsg.NewPtrDescribeClusterRequest(), d, v)
	}
	q := kmsg.NewPtrDescribeQuorumResponse()
	q.Nodes = []kmsg.DescribeQuorumResponseNode{{NodeID: 1, Listeners: []kmsg.DescribeQuorumResponseNodeListener{{Name: "C", Host: leak, Port: 1}}}}
	add(kmsg.NewPtrDescribeQuorumRequest(), q, 2)
	p := kmsg.NewPtrProduceResponse()
	p.Brokers = []kmsg.ProduceResponseBroker{{NodeID: 1, Host: leak, Port: 1}}
	add(produceRequest(12, 1), p, 12)
	f := kmsg.NewPtrFetchResponse()
	f.Brokers = []kmsg.FetchResponseBroker{{NodeID: 1, Host: leak, Port: 1}}
	add(kmsg.NewPtrFetchRequest(), f, 17)
	s := kmsg.NewPtrShareFetchResponse()
	s.NodeEndpoints = []kmsg.ShareFetchResponseNodeEndpoint{{NodeID: 1, Host: leak, Port: 1}}
	share := kmsg.NewPtrShareFetchRequest()
	share.GroupID = &shareGroup
	add(share, s, 1)
	a := kmsg.NewPtrShareAcknowledgeResponse()
	a.NodeEndpoints = []kmsg.ShareAcknowledgeResponseNodeEndpoint{{NodeID: 1, Host: leak, Port: 1}}
	add(kmsg.NewPtrShareAcknowledgeRequest(), a, 1)
	return all
}

func TestNoBrokersOwnAddressReachesAClient(t *testing.T) {
	for name, pair := range brokersOf() {
		w := newWorld(t, Config{})
		w.respond(w.request(pair.req), pair.resp)
		got := gathered(w.stream.ToClient)
		if len(got) == 0 || bytes.Contains(got, []byte("leak.internal")) {
			t.Errorf("%s: the client received %q", name, got)
		}
	}
}

func TestClientsAreGivenTheListenerOfEachBroker(t *testing.T) {
	w := newWorld(t, Config{})
	resp := brokersOf()["*kmsg.MetadataResponse v9"].resp
	req := kmsg.NewPtrMetadataRequest()
	req.Version = 9
	id := w.request(req)
	w.respond(id, resp)
	got := received(w, id, 9, kmsg.NewPtrMetadataResponse()).Brokers
	if len(got) != 2 || got[0].Host != "proxy" || got[0].Port != 9001 || got[1].Host != "third" || got[1].Port != 33 {
		t.Errorf("%+v", got)
	}
}

func TestABrokerWithoutAListenerIsNotPassedOn(t *testing.T) {
	w := newWorld(t, Config{Brokers: Brokers{Host: "proxy", BasePort: 65534}})
	req := kmsg.NewPtrMetadataRequest()
	id := w.request(req)
	resp := kmsg.NewPtrMetadataResponse()
	resp.Brokers = []kmsg.MetadataResponseBroker{{NodeID: 2, Host: "leak.internal", Port: 1}}
	if err := w.stream.FromBroker(responseFrame(id, resp), w.now); err == nil || len(gathered(w.stream.ToClient)) != 0 {
		t.Errorf("error %v", err)
	}
}

func FuzzAStreamSurvivesAnyBytes(f *testing.F) {
	f.Add([]byte{0, 0, 0, 12, 0, 18, 0, 3, 0, 0, 0, 77, 0xff, 0xff, 0, 0}, []byte{0, 0, 0, 8, 0, 0, 0, 77, 0, 0, 0, 0})
	f.Add(kmsg.NewRequestFormatter().AppendRequest(nil, produceRequest(7, 1, "plain"), 1), []byte{})
	f.Add(kmsg.NewRequestFormatter().AppendRequest(nil, fetchRequest(12), 1), responseFrame(1, fetchResponse(12, "orders", batchOf("x", 0))))
	f.Fuzz(func(t *testing.T, client, broker []byte) {
		w := newWorld(t, Config{MaxFrame: 1 << 16}, abi.Rule{Pattern: "plain", Mode: abi.ModePlain})
		w.lease("orders")
		w.stream.FromClient(client, w.now)
		if len(gathered(w.stream.ToBroker)) > 0 && w.stream.err != nil {
			t.Error("a stream that ended still gives")
		}
		w.stream.FromBroker(broker, w.now)
		w.stream.Resume(w.now + DefaultProduceWait)
	})
}
