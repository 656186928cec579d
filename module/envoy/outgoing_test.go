package envoy

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// longFrame is a Produce request of a record of so many bytes.
func longFrame(topic string, fill byte, size int) []byte {
	req := produceRequest(12, 1, topic)
	req.Topics[0].Partitions[0].Records = batchOf(string(bytes.Repeat([]byte{fill}, size)), 0)
	return kmsg.NewRequestFormatter(kmsg.FormatterClientID("tester")).AppendRequest(nil, req, 1)
}

func TestASteadyStreamOfLongRequestsTakesNoNewBuffers(t *testing.T) {
	w := newWorld(t, Config{})
	w.lease("orders")
	frame := longFrame("orders", 'x', 1<<20)
	r := rand.New(rand.NewPCG(1, 2))
	resp := kmsg.NewPtrProduceResponse()
	resp.Version = 12
	known := map[*byte]bool{}
	fresh := 0
	var stream []byte
	for round := range 100 {
		for stream = append(stream, frame...); len(stream) > len(frame)/2; {
			n := min(len(stream), 16<<10+r.IntN(1<<20))
			room := w.stream.ClientRoom().Room(n)
			copy(room, stream)
			if err := w.stream.FromClient(room, w.now); err != nil {
				t.Fatal(err)
			}
			w.stream.ToBroker(func([]byte) bool { return true })
			stream = stream[n:]
		}
		for range len(w.stream.pending) {
			w.respond(1, resp)
			w.stream.ToClient(func([]byte) bool { return true })
		}
		for _, b := range w.worker.spares.kept {
			if at := &b[:1][0]; !known[at] {
				known[at] = true
				if round > 50 {
					fresh++
				}
			}
		}
	}
	if fresh > 0 {
		t.Errorf("%d new buffers in the steady state", fresh)
	}
	if got := w.worker.spares.size; got > DefaultMaxMemory/sparesShare {
		t.Errorf("%d bytes are kept", got)
	}
}

func TestWhatWasNotHandedOnStaysAsItIsWhileMoreArrives(t *testing.T) {
	w := newWorld(t, Config{})
	var want []byte
	for i := range 20 {
		req := kmsg.NewPtrHeartbeatRequest()
		req.Group, req.MemberID = "workers", string(bytes.Repeat([]byte{byte('a' + i)}, 20<<10)) // goes on as it came
		frame := kmsg.NewRequestFormatter().AppendRequest(nil, req, 1)
		want = append(want, frame...)
		if err := w.stream.FromClient(frame, w.now); err != nil {
			t.Fatal(err)
		}
	}
	if got := gathered(w.stream.ToBroker); !bytes.Equal(got, want) {
		t.Errorf("%d bytes of %d, or others", len(got), len(want))
	}
}

func TestABufferThatIsFarTooLargeOrBeyondTheBoundIsNotTaken(t *testing.T) {
	p := spares{most: 4 << 20}
	p.give(make([]byte, 0, 3<<20))
	p.give(make([]byte, 0, 2<<20))
	if b := p.take(1 << 10); cap(b) > keptMemory {
		t.Errorf("%d bytes for 1 KiB", cap(b))
	}
	if b := p.take(1 << 20); cap(b) != 2<<20 || p.size != 0 {
		t.Errorf("%d bytes, and %d are left", cap(b), p.size)
	}
}
