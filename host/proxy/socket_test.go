package proxy

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// sockets returns the two ends of a connection.
func sockets(t *testing.T) (near, far *socket) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	near, far = quick(conn).(*socket), quick(accepted).(*socket)
	t.Cleanup(func() { near.Close(); far.Close() })
	return near, far
}

func TestSocketCarriesEveryPieceInOrder(t *testing.T) {
	near, far := sockets(t)
	var want []byte
	var pieces [][]byte
	for i := range 100 { // more than one call takes, and more than the system buffers
		p := make([]byte, []int{0, 1, 100, 70_000, 700_000}[i%5])
		rand.Read(p)
		pieces, want = append(pieces, p), append(want, p...)
	}
	done := make(chan error, 1)
	go func() {
		n, err := near.writeAll(pieces)
		if err == nil && n != len(want) {
			err = io.ErrShortWrite
		}
		done <- errors.Join(err, near.CloseWrite())
	}()
	got, err := io.ReadAll(far)
	if err := errors.Join(err, <-done); err != nil || !bytes.Equal(got, want) {
		t.Errorf("error %v, %d of %d bytes, equal: %v", err, len(got), len(want), bytes.Equal(got, want))
	}
}

func TestSocketFailsAsAnyConnectionDoes(t *testing.T) {
	near, far := sockets(t)
	if err := near.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	var timeout net.Error
	if n, err := near.Read(make([]byte, 1)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("after its deadline: %d bytes, %v", n, err)
	}
	near.Close()
	if n, err := near.Write([]byte("x")); n != 0 || !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: %d bytes, %v", n, err)
	}
	if n, err := far.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("the other end is closed: %d bytes, %v", n, err)
	}
	var broken error
	for range 1000 { // until the system has heard that nobody reads
		if _, broken = far.Write(make([]byte, 100_000)); broken != nil {
			break
		}
	}
	var netErr net.Error
	if !errors.As(broken, &netErr) {
		t.Errorf("writing to it: %v", broken)
	}
}
