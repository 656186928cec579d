package envoy

import (
	"bytes"
	"errors"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// began is the front of a frame of size bytes.
func began(size, there int) []byte {
	b := make([]byte, 4+there)
	b[0], b[1], b[2], b[3] = byte(size>>24), byte(size>>16), byte(size>>8), byte(size)
	return b
}

func TestStreamThatAsksForTooMuchClosesAndNoOther(t *testing.T) {
	w := newWorld(t, Config{MaxMemory: 1 << 20})
	var streams []*Stream
	for range 10 {
		s := w.worker.NewStream()
		streams = append(streams, s)
		if err := s.FromClient(began(8<<20, 90<<10), w.now); err != nil {
			t.Fatal(err)
		}
	}
	greedy := w.worker.NewStream()
	err := greedy.FromClient(began(8<<20, 900<<10), w.now)
	var v *Violation
	if !errors.As(err, &v) || !bytes.Contains([]byte(err.Error()), []byte("max_memory_bytes")) {
		t.Fatalf("%v", err)
	}
	if w.worker.Memory() > 1<<20 {
		t.Errorf("%d bytes are held", w.worker.Memory())
	}
	for i, s := range streams {
		if err := s.Resume(w.now); err != nil {
			t.Errorf("stream %d: %v", i, err)
		}
		s.Close()
		s.Close()
	}
	if w.worker.Memory() != 0 {
		t.Errorf("%d bytes are held by nobody", w.worker.Memory())
	}
}

func TestStreamGivesBackWhatItTook(t *testing.T) {
	w := newWorld(t, Config{})
	w.lease("orders")
	w.root("orders")
	batch := w.sealedBatch("orders", 0, "one", 5)
	settled := 0
	for i := range 50 {
		id := w.request(produceRequest(9, 1, "orders"))
		gathered(w.stream.ToBroker)
		resp := kmsg.NewPtrProduceResponse()
		resp.Version = 9
		w.respond(id, resp)
		gathered(w.stream.ToClient)
		w.fetch(11, batch)
		gathered(w.stream.ToBroker)
		gathered(w.stream.ToClient)
		if i == 10 {
			settled = w.worker.Memory()
		}
	}
	if got := w.worker.Memory(); got != settled || got > 3*keptMemory {
		t.Errorf("%d bytes after 10 rounds, %d after 50", settled, got)
	}
	if err := w.stream.FromClient([]byte{0, 0, 0, 0}, w.now); err == nil {
		t.Fatal("an empty frame passed")
	}
	if got := w.worker.Memory(); got != 0 {
		t.Errorf("%d bytes are held by a stream that failed", got)
	}
}

func TestBuffersShrinkAfterABurst(t *testing.T) {
	f := newFrames(8 << 20)
	burst := append(began(4<<20, 4<<20), began(1000, 10)...) // and the next one's front
	if err := f.feed(burst); err != nil {
		t.Fatal(err)
	}
	frame, err := f.next()
	if err != nil || len(frame) != 4<<20 {
		t.Fatal(len(frame), err)
	}
	f.take(frame)
	f.settle()
	if cap(f.buf) > keptMemory || f.waiting() != 14 {
		t.Errorf("%d bytes are kept for %d", cap(f.buf), f.waiting())
	}
}

func TestSteadyFramesAllocateNothing(t *testing.T) {
	f := newFrames(1 << 20)
	piece := append(began(1000, 1000), began(500, 100)...)
	rest := make([]byte, 400)
	allocated := testing.AllocsPerRun(100, func() {
		for _, b := range [][]byte{piece, rest} {
			if err := f.feed(b); err != nil {
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
				f.take(frame)
			}
			f.settle()
		}
	})
	if allocated != 0 {
		t.Errorf("%v allocations", allocated)
	}
}
