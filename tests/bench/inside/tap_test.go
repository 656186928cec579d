package inside

import (
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"
)

func TestFramesAreFoundHoweverTheStreamIsCut(t *testing.T) {
	var stream []byte
	for _, size := range []int{10, 300, 1} {
		stream = binary.BigEndian.AppendUint32(stream, uint32(size))
		for i := range size {
			stream = append(stream, byte(i))
		}
	}
	for piece := 1; piece <= len(stream); piece++ {
		var sizes []int
		s := splitter{ended: func(head []byte, size int, _ time.Time) {
			sizes = append(sizes, size)
			if len(head) != min(size, headSize) || head[len(head)-1] != byte(len(head)-1) {
				t.Fatalf("pieces of %d: frame of %d bytes has head %x", piece, size, head)
			}
		}}
		for at := 0; at < len(stream); at += piece {
			s.feed(stream[at:min(at+piece, len(stream))], time.Time{})
		}
		if len(sizes) != 3 || sizes[0] != 10 || sizes[1] != 300 || sizes[2] != 1 {
			t.Fatalf("pieces of %d: frames of %v bytes", piece, sizes)
		}
	}
}

func TestARequestAndItsResponseAreTimedFromEndToEnd(t *testing.T) {
	const between = 20 * time.Millisecond
	tap := newTap()
	here, there := net.Pipe()
	client, broker := tap.wrap(here, false), tap.wrap(there, true)
	request := binary.BigEndian.AppendUint32(nil, 8+2+1)
	request = append(request, 0, produceAPI, 0, 9, 0, 0, 0, 7, 0, 1, 'c')
	response := binary.BigEndian.AppendUint32(nil, 4)
	response = append(response, 0, 0, 0, 7)
	exchange := func(from, to net.Conn, frame []byte) {
		done := make(chan error, 1)
		go func() {
			time.Sleep(between) // the reader is late: so is the last byte out
			_, err := io.ReadFull(to, make([]byte, len(frame)))
			done <- err
		}()
		if _, err := from.Write(frame); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	exchange(client, broker, request)
	exchange(broker, client, response)
	c := call{client: "c", api: produceAPI, correlation: 7}
	for name, at := range map[string]*times{"request": tap.requests[c], "response": tap.responses[c]} {
		if at == nil || at.out.Sub(at.in) < between {
			t.Errorf("%s: %v", name, at)
		}
	}
	if took := tap.took(produceAPI, "c"); len(took) != 1 || took[0] < 20 {
		t.Errorf("%v", took)
	}
}
