package envoy

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
	"pgregory.net/rapid"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/channel"
	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
)

// TestNoOrderOfEventsForwardsPlaintextOrLosesAnAnswer mixes requests of all kinds, cut
// anywhere, with keys that come, fail and expire, and with time.
func TestNoOrderOfEventsForwardsPlaintextOrLosesAnAnswer(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t, Config{}, abi.Rule{Pattern: "plain", Mode: abi.ModePlain})
		var unsent []byte     // of the client's, not yet with the module
		var awaited []int32   // correlation ids that the client expects, in order
		var atBroker [][]byte // requests without an answer
		leases := uint32(0)
		check := func(err error) {
			if err != nil {
				rt.Fatal(err)
			}
			if gathered(w.stream.ToClient) != nil {
				rt.Fatal("a client was written to while its broker was silent")
			}
			for _, frame := range w.forwarded() {
				if text := []byte("secret in orders"); bytes.Contains(frame, text) {
					rt.Fatal("plaintext was forwarded")
				}
				h, err := kafka.ParseRequestHeader(frame)
				if err != nil {
					rt.Fatal(err)
				}
				if r, err := kafka.ParseProduceRequest(h.Version, frame[h.Size:]); h.Key != kafka.KeyProduce || err != nil || r.Acks != 0 {
					atBroker = append(atBroker, frame)
				}
			}
		}
		answer := func() {
			frame := atBroker[0]
			atBroker = atBroker[1:]
			h, _ := kafka.ParseRequestHeader(frame)
			var resp kmsg.Response = kmsg.NewPtrHeartbeatResponse()
			switch h.Key {
			case kafka.KeyProduce:
				resp = kmsg.NewPtrProduceResponse()
			case kafka.KeyFetch:
				resp = fetchResponse(h.Version, "orders", w.sealedBatch("orders", 0, "x", int64(w.now-start)))
			case kafka.KeyApiVersions:
				resp = kmsg.NewPtrApiVersionsResponse()
			}
			resp.SetVersion(h.Version)
			w.respond(h.CorrelationID, resp)
			b := gathered(w.stream.ToClient)
			if len(b) < 8 || len(awaited) == 0 || int32(binary.BigEndian.Uint32(b[4:])) != awaited[0] {
				rt.Fatalf("the client awaits %v and received %x", awaited, b[:min(len(b), 8)])
			}
			awaited = awaited[1:]
			check(w.stream.Resume(w.now))
		}
		send := func(n int) {
			b := unsent[:n]
			unsent = unsent[n:]
			check(w.stream.FromClient(b, w.now))
		}
		give := func(q channel.Request) channel.Answer {
			status := rapid.SampledFrom([]abi.Status{abi.StatusOK, abi.StatusOK, abi.StatusPending, abi.StatusUnavailable, abi.StatusNoRecipient,
				abi.StatusUnreadable, abi.StatusShuttingDown}).Draw(rt, "status")
			switch {
			case status != abi.StatusOK:
				return channel.Answer{Status: status}
			case q.Op == channel.OpLease:
				leases++
				l := leaseOf(q.Topic)
				l.Kid, l.Level, l.Start, l.UseBy = abi.Kid{byte(leases)}, abi.TreeDepth-1, 2*leases, w.now+3000
				return channel.Answer{Body: l.Append(nil)}
			}
			return generous(true)(q)
		}
		rt.Repeat(map[string]func(*rapid.T){
			"produce": func(rt *rapid.T) {
				topics := rapid.SampledFrom([][]string{{"orders"}, {"plain"}, {"orders", "plain"}}).Draw(rt, "topics")
				req := produceRequest(rapid.SampledFrom([]int16{3, 7, 9, 12}).Draw(rt, "version"), 1, topics...)
				w.next++
				awaited = append(awaited, w.next)
				unsent = append(unsent, kmsg.NewRequestFormatter().AppendRequest(nil, req, w.next)...)
			},
			"without acks": func(*rapid.T) {
				w.next++
				unsent = append(unsent, kmsg.NewRequestFormatter().AppendRequest(nil, produceRequest(7, 0, "plain"), w.next)...)
			},
			"other": func(rt *rapid.T) {
				var req kmsg.Request = kmsg.NewPtrHeartbeatRequest()
				if rapid.Bool().Draw(rt, "fetch") {
					req = fetchRequest(12)
				}
				w.next++
				awaited = append(awaited, w.next)
				unsent = append(unsent, kmsg.NewRequestFormatter().AppendRequest(nil, req, w.next)...)
			},
			"send":  func(rt *rapid.T) { send(rapid.IntRange(0, len(unsent)).Draw(rt, "bytes")) },
			"agent": func(*rapid.T) { w.exchange(give); check(w.stream.Resume(w.now)) },
			"time": func(rt *rapid.T) {
				w.now += uint64(rapid.SampledFrom([]int{1, 100, 500, 5000, 70_000}).Draw(rt, "ms"))
				check(w.stream.Resume(w.now))
			},
			"broker": func(rt *rapid.T) {
				if len(atBroker) == 0 {
					rt.Skip("nothing was asked")
				}
				answer()
			},
		})
		// Whatever happened, every request is answered in the end.
		send(len(unsent))
		for range 20 * len(awaited) {
			if len(atBroker) > 0 {
				answer()
			}
			w.now += 1000
			check(w.stream.Resume(w.now))
		}
		if len(awaited) > 0 || len(w.stream.pending) > 0 || w.stream.Waiting() {
			rt.Fatalf("%v are not answered", slices.Clone(awaited))
		}
	})
}
