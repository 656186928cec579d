package envoy

import (
	"bytes"
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wasm-e2ee/wasm-e2ee/abi/channel"
	"github.com/wasm-e2ee/wasm-e2ee/abi/plugin"
)

// requestFrame is a client's request.
func requestFrame(id int32, req kmsg.Request) []byte {
	return kmsg.NewRequestFormatter(kmsg.FormatterClientID("tester")).AppendRequest(nil, req, id)
}

func metadataRequest() kmsg.Request {
	req := kmsg.NewPtrMetadataRequest()
	req.Version = 9
	return req
}

var secret = []byte("secret in orders")

func TestAProduceWaitsInsideForItsLease(t *testing.T) {
	p := configured(t)
	p.connect(2)
	p.send(2, requestFrame(1, produceRequest(9, 1, "orders")), false)
	if len(p.received[2]) != 0 || len(p.calls) != 1 {
		t.Fatalf("%d bytes were forwarded before there was a lease, %d calls made", len(p.received[2]), len(p.calls))
	}
	p.callback()
	if got := p.received[2]; len(got) == 0 || bytes.Contains(got, secret) {
		t.Fatalf("the broker received %q", got)
	}
	p.tick(tickPeriod)
	for name, want := range map[string]int64{"sealed_batches_total": 1, "partitions_total.direction.seal": 1, "installed_leases": 1,
		"open_connections": 1, "connections_total": 1, "agent_handshakes_total": 1, "agent_calls_total": 1} {
		if got := p.total(name); got != want {
			t.Errorf("%s is %d, want %d", name, got, want)
		}
	}
}

func TestWhatIsReadyGoesOnBesideWhatWaits(t *testing.T) {
	p := configured(t)
	p.connect(2)
	metadata := requestFrame(1, metadataRequest())
	p.send(2, append(bytes.Clone(metadata), requestFrame(2, produceRequest(9, 1, "orders"))...), false)
	if !bytes.Equal(p.received[2], metadata) {
		t.Fatalf("the broker received %x, want the first request", p.received[2])
	}
	p.send(2, requestFrame(3, metadataRequest()), false)
	if len(p.received[2]) != len(metadata) {
		t.Error("a later request overtook the one that waits")
	}
	p.callback()
	if got := p.received[2]; len(got) < 2*len(metadata) || bytes.Contains(got, secret) {
		t.Errorf("the broker received %q", got)
	}
}

func TestAFetchIsHeldUntilTheRootCame(t *testing.T) {
	p := configured(t)
	w := newWorld(t, Config{})
	p.connect(2)
	fetch := fetchRequest(11)
	served := func(id int32) []byte {
		return responseFrame(id, fetchResponse(11, "orders", w.sealedBatch("orders", 0, "the value", 7)))
	}
	p.send(2, requestFrame(1, fetch), false)
	forwarded := len(p.received[2])
	p.answer(2, served(1), false)
	if bytes.Contains(p.given[2], []byte("the value")) || len(p.given[2]) == 0 {
		t.Fatalf("the client was given %q", p.given[2])
	}
	p.send(2, requestFrame(2, fetch), false)
	if len(p.received[2]) != forwarded {
		t.Fatal("the next fetch was not held")
	}
	p.callback()
	if len(p.received[2]) == forwarded {
		t.Fatal("the fetch did not go on when the root was there")
	}
	p.given[2] = nil
	w.next, w.peer = 0, nil
	p.answer(2, served(2), false)
	if !bytes.Contains(p.given[2], []byte("the value")) {
		t.Errorf("the client was given %q", p.given[2])
	}
}

func TestABrokersAnswerLetsRequestsGoOnThatWereTooMany(t *testing.T) {
	p := configured(t)
	p.connect(2)
	one := len(requestFrame(1, metadataRequest()))
	for id := range int32(maxPending + 1) {
		p.send(2, requestFrame(id, metadataRequest()), false)
	}
	if got := len(p.received[2]); got != maxPending*one {
		t.Fatalf("%d bytes were forwarded, want %d", got, maxPending*one)
	}
	resp := kmsg.NewPtrMetadataResponse()
	resp.Version = 9
	p.answer(2, responseFrame(0, resp), false)
	if got := len(p.received[2]); got != (maxPending+1)*one {
		t.Errorf("%d bytes were forwarded, want %d", got, (maxPending+1)*one)
	}
}

func TestNothingPassesWithoutAConfiguration(t *testing.T) {
	p := newProxy(t)
	p.vm.OnContextCreate(1, 0)
	if p.connect(2) == plugin.ActionContinue || !p.closed[2] {
		t.Error("a connection began")
	}
	p.vm.OnContextCreate(3, 1) // of a host that does not ask
	p.send(3, requestFrame(1, produceRequest(9, 1, "orders")), false)
	p.answer(4, []byte("of no connection"), false)
	if len(p.received[3])+len(p.given[4]) != 0 || !p.closed[3] || !p.closed[4] {
		t.Errorf("passed: %q, %q", p.received[3], p.given[4])
	}
	p.vm.OnTick(1)
	p.vm.OnHTTPCallResponse(0, 0)
	p.vm.OnDelete(1)
	p.said("no configuration that it accepts", "hint")
}

func TestABadConfigurationIsRefused(t *testing.T) {
	noKey := func(*[channel.KeySize]byte) error { return errors.New("the key is missing") }
	zeros := func(*[channel.KeySize]byte) error { return nil }
	for name, c := range map[string]struct {
		config string
		key    PairingKey
		words  string
	}{
		"not JSON": {"{", nil, "hint"},
		"no realm": {strings.Replace(testConfig, "0402", "", 1), nil, "realm"},
		"no key":   {testConfig, noKey, "the key is missing"},
		"zeros":    {testConfig, zeros, "pairing key is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProxy(t)
			p.config = []byte(c.config)
			if c.key != nil {
				p.vm.key = c.key
			}
			p.vm.OnContextCreate(1, 0)
			if p.vm.OnConfigure(1) {
				t.Error("accepted")
			}
			p.said("configuration refused", c.words)
			if p.connect(2) == plugin.ActionContinue || p.ticks != 0 {
				t.Error("it goes on")
			}
		})
	}
}

func TestAMachineHasOneConfiguration(t *testing.T) {
	p := configured(t)
	p.vm.key = nil // it is gone from the environment
	p.vm.OnContextCreate(5, 0)
	if !p.vm.OnConfigure(5) {
		t.Error("the same one is refused")
	}
	p.config = []byte(strings.Replace(testConfig, "9000", "9001", 1))
	p.vm.OnContextCreate(6, 0)
	if p.vm.OnConfigure(6) {
		t.Error("another one is accepted")
	}
	p.said("configuration refused", "vm_id")
}

// TestAPanicClosesItsConnectionAlone has each function of the host panic once, in place of the
// bugs that we do not know.
func TestAPanicClosesItsConnectionAlone(t *testing.T) {
	metadata := requestFrame(1, metadataRequest())
	for _, where := range []string{"now", "buffer 2", "set buffer 2", "call", "buffer 3", "set buffer 3"} {
		t.Run(where, func(t *testing.T) {
			p := configured(t)
			p.connect(2)
			p.connect(3)
			if strings.HasSuffix(where, "3") {
				p.send(2, metadata, false)
				p.received[2] = nil
			}
			p.panicAt = where
			switch {
			case strings.HasSuffix(where, "3"):
				p.answer(2, []byte("an answer"), false)
			case where == "call":
				p.send(2, requestFrame(1, produceRequest(9, 1, "orders")), false)
			default:
				p.send(2, metadata, false)
			}
			if !p.closed[2] || len(p.received[2])+len(p.given[2]) != 0 {
				t.Errorf("closed %v, passed %q and %q", p.closed[2], p.received[2], p.given[2])
			}
			p.said("closed by a bug in the module", "hint", "a bug, for the test")
			p.send(3, metadata, false)
			if p.closed[3] || !bytes.Equal(p.received[3], metadata) {
				t.Error("another connection does not go on")
			}
			p.tick(tickPeriod)
			if p.total("closed_connections_total.fault.module") != 1 {
				t.Error("it is not counted")
			}
		})
	}
}

func TestAPanicOfAWaitingConnectionLeavesTheOthersGoOn(t *testing.T) {
	p := configured(t)
	for id := range uint32(3) {
		p.connect(2 + id)
		p.send(2+id, requestFrame(1, produceRequest(9, 1, "orders")), false)
	}
	p.vm.connections[3].stream.waiting.work[0].partition = nil
	p.callback()
	if !p.closed[3] || len(p.received[3]) != 0 {
		t.Errorf("closed %v, received %q", p.closed[3], p.received[3])
	}
	for _, id := range []uint32{2, 4} {
		if p.closed[id] || len(p.received[id]) == 0 {
			t.Errorf("connection %d: closed %v, %d bytes", id, p.closed[id], len(p.received[id]))
		}
	}
}

func TestAViolationIsSaidOnceAndCounted(t *testing.T) {
	p := configured(t)
	for id := range uint32(3) {
		p.connect(2 + id)
		p.send(2+id, append([]byte{byte(64 + id), 0x77, byte(id)}, "GET / HTTP/1.1\r\n\r\n"...), false)
		if !p.closed[2+id] || len(p.received[2+id]) != 0 {
			t.Errorf("connection %d goes on, with %q", 2+id, p.received[2+id])
		}
	}
	p.said("connection closed", "from=client", "reason=", "client=10.0.0.9:55555")
	p.tick(tickPeriod)
	if got := p.total("closed_connections_total.fault.client"); got != 3 {
		t.Errorf("%d are counted", got)
	}
}

func TestAClientThatEndsIsServedBefore(t *testing.T) {
	p := configured(t)
	p.connect(2)
	p.send(2, requestFrame(1, produceRequest(9, 0, "orders")), true)
	if p.closed[2] || len(p.received[2]) != 0 {
		t.Fatalf("closed %v, received %q", p.closed[2], p.received[2])
	}
	p.callback()
	if len(p.received[2]) == 0 || bytes.Contains(p.received[2], secret) {
		t.Errorf("received %q", p.received[2])
	}
	p.connect(3)
	frame := requestFrame(1, metadataRequest())
	p.send(3, frame[:len(frame)-1], true)
	if !p.closed[3] || len(p.received[3]) != 0 {
		t.Errorf("half a request: closed %v, received %q", p.closed[3], p.received[3])
	}
}

func TestAClientThatSendsNothingMoreIsAnswered(t *testing.T) {
	p := configured(t)
	p.connect(2)
	p.send(2, requestFrame(1, metadataRequest()), true)
	resp := kmsg.NewPtrMetadataResponse()
	resp.Version = 9
	p.answer(2, responseFrame(1, resp), false)
	if p.tick(tickPeriod); p.closed[2] || len(p.given[2]) == 0 {
		t.Errorf("closed %v, given %d bytes", p.closed[2], len(p.given[2]))
	}
}

func TestABrokerThatEndsIsHeardBefore(t *testing.T) {
	p := configured(t)
	p.connect(2)
	p.send(2, requestFrame(1, metadataRequest()), false)
	resp := kmsg.NewPtrMetadataResponse()
	resp.Version = 9
	p.answer(2, responseFrame(1, resp), true)
	if p.closed[2] || len(p.given[2]) == 0 {
		t.Errorf("closed %v, given %d bytes", p.closed[2], len(p.given[2]))
	}
	if p.tick(tickPeriod); !p.closed[2] {
		t.Error("it stays open")
	}
}

func TestABrokerThatClosesInsteadOfAnsweringIsCounted(t *testing.T) {
	p := configured(t)
	for id := range uint32(3) {
		p.connect(2 + id)
		if id != 1 {
			p.send(2+id, requestFrame(1, metadataRequest()), id == 2) // which has gone meanwhile
		}
		p.answer(2+id, nil, true)
	}
	p.tick(tickPeriod)
	p.said("broker closed the connection", "unanswered=Metadata", "version=9")
	if got := p.total("closed_connections_total.fault.broker"); got != 1 {
		t.Errorf("%d are counted, want that of the client that waits for an answer", got)
	}
}

func TestAnAgentThatDoesNotAnswerIsAskedAgain(t *testing.T) {
	p := configured(t)
	p.connect(2)
	p.send(2, requestFrame(1, produceRequest(9, 1, "orders")), false)
	p.calls = nil // lost
	p.tick(lostTime)
	p.tick(firstRetry * 2)
	if len(p.calls) != 1 {
		t.Fatalf("%d calls are made", len(p.calls))
	}
	p.respond("", nil, 0)
	p.said("key channel: the agent cannot be reached", "hint")
	p.noCall = true
	p.tick(1000)
	p.said("makes no call to the agent", "hint", "agent_cluster=agent")
	if p.total("agent_failures_total") == 0 || bytes.Contains(p.received[2], secret) {
		t.Errorf("%d failures are counted, the broker received %q", p.total("agent_failures_total"), p.received[2])
	}
}

func TestAnEndedMachineHoldsNothing(t *testing.T) {
	p := configured(t)
	p.connect(2)
	p.send(2, requestFrame(1, produceRequest(9, 1, "orders")), false)
	p.callback()
	p.tick(tickPeriod)
	p.vm.OnClose(2)
	p.vm.OnDelete(2)
	p.vm.OnDelete(1)
	for _, name := range []string{"open_connections", "installed_leases"} {
		if got := p.total(name); got != 0 {
			t.Errorf("%s stays at %d", name, got)
		}
	}
	if n := len(p.vm.connections) + len(p.vm.waiting) + p.vm.plane.worker.Memory(); n != 0 {
		t.Errorf("contexts or %d bytes stay", n)
	}
}

// TestMetricsAreTheSidecars reads the list that operators have: what it has of a data plane is
// here under the same name and with every label.
func TestMetricsAreTheSidecars(t *testing.T) {
	p := configured(t)
	text, err := os.ReadFile("../../examples/sidecar/OPERATING.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile("(?m)^\\| `wasm_e2ee_(\\w+)` \\| (\\w+) \\| ([^|]*)\\|").FindAllStringSubmatch(string(text), -1)
	n := 0
	for _, row := range rows {
		if row[1] == "epochs_begun_total" {
			break // the agent's follow
		}
		n++
		pattern := "^wasm_e2ee_" + row[1]
		for _, label := range regexp.MustCompile("`(\\w+)`").FindAllStringSubmatch(row[3], -1) {
			pattern += `\.` + label[1] + `\.\w+`
		}
		found := 0
		for name := range p.names {
			if regexp.MustCompile(pattern + "$").MatchString(name) {
				found++
			}
		}
		if found == 0 || strings.Contains(pattern, "status") && found < 10 {
			t.Errorf("%d metrics are %s", found, pattern)
		}
	}
	if n < 15 {
		t.Errorf("the list has %d metrics of a data plane", n)
	}
}

func TestALineHoldsWhatPeersChose(t *testing.T) {
	for in, want := range map[string]string{"a.b-c:1": "a.b-c:1", "": `""`, "two words": `"two words"`, "a\nb": `"a\nb"`, "k=v": `"k=v"`, "\xff": `"\xff"`, `"`: `"\""`} {
		if got := quoted(in); got != want {
			t.Errorf("%q is written %s, want %s", in, got, want)
		}
	}
}
