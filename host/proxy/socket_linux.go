package proxy

import (
	"io"
	"net"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A socket is a TCP connection whose reads and writes are system calls that Go's runtime is not
// told of. At the first call after each pause the runtime wakes its monitor thread, in case
// the call blocks. These do not, since the socket is non-blocking; and between requests that
// come a millisecond apart that thread took more than all other work on them.
//
// At most one goroutine may read, and one write.
type socket struct {
	*net.TCPConn
	raw     syscall.RawConn
	in, out transfer
}

// A transfer is one direction's call.
type transfer struct {
	vector []unix.Iovec
	try    func(fd uintptr) bool // makes it; false where the socket is not ready
	n      int
	errno  syscall.Errno
}

// maxCall bounds the bytes of one call: while it lasts the collector cannot stop its goroutine.
const maxCall = 256 << 10

// quick returns conn with such reads and writes, where it is one that can have them.
func quick(conn net.Conn) net.Conn {
	c, ok := conn.(*net.TCPConn)
	if !ok {
		return conn
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return conn
	}
	s := &socket{TCPConn: c, raw: raw}
	s.in.try = func(fd uintptr) bool { return s.in.call(unix.SYS_READV, fd) }
	s.out.try = func(fd uintptr) bool { return s.out.call(unix.SYS_WRITEV, fd) }
	return s
}

func (t *transfer) call(number, fd uintptr) bool {
	for {
		n, _, errno := unix.RawSyscall(number, fd, uintptr(unsafe.Pointer(unsafe.SliceData(t.vector))), uintptr(len(t.vector)))
		t.n, t.errno = int(n), errno
		if errno != unix.EINTR {
			return errno != unix.EAGAIN
		}
	}
}

// add puts the bytes into the vector as far as it has room for them and returns what is left.
func (t *transfer) add(b []byte, room *int) []byte {
	if len(t.vector) == cap(t.vector) {
		return b
	}
	n := min(len(b), *room)
	if n > 0 {
		piece := unix.Iovec{Base: unsafe.SliceData(b)}
		piece.SetLen(n)
		t.vector = append(t.vector, piece)
		*room -= n
	}
	return b[n:]
}

func (s *socket) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	t, room := &s.in, maxCall
	if t.vector == nil {
		t.vector = make([]unix.Iovec, 0, 1)
	}
	t.add(b, &room)
	err := s.do("read", t, s.raw.Read)
	runtime.KeepAlive(b)
	if err == nil && t.n == 0 {
		err = io.EOF
	}
	return t.n, err
}

func (s *socket) Write(b []byte) (int, error) { return s.writeAll([][]byte{b}) }

// writeAll writes the pieces, which it uses up, one after the other.
func (s *socket) writeAll(pieces [][]byte) (written int, err error) {
	t := &s.out
	if t.vector == nil {
		t.vector = make([]unix.Iovec, 0, 32)
	}
	for {
		for len(pieces) > 0 && len(pieces[0]) == 0 {
			pieces = pieces[1:]
		}
		if len(pieces) == 0 {
			return written, nil
		}
		room := maxCall
		for _, p := range pieces {
			if len(t.add(p, &room)) > 0 {
				break
			}
		}
		err := s.do("write", t, s.raw.Write)
		runtime.KeepAlive(pieces)
		written += t.n
		if err != nil {
			return written, err
		}
		for n := t.n; n > 0; {
			m := min(n, len(pieces[0]))
			if n, pieces[0] = n-m, pieces[0][m:]; len(pieces[0]) == 0 {
				pieces = pieces[1:]
			}
		}
	}
}

// do waits until the socket is ready and makes the call. Its errors are net.TCPConn's.
func (s *socket) do(op string, t *transfer, wait func(func(uintptr) bool) error) error {
	err := wait(t.try)
	clear(t.vector)
	t.vector = t.vector[:0]
	switch {
	case err != nil:
		t.n = 0
		return err
	case t.errno != 0:
		t.n = 0
		return &net.OpError{Op: op, Net: "tcp", Source: s.LocalAddr(), Addr: s.RemoteAddr(), Err: os.NewSyscallError(op, t.errno)}
	}
	return nil
}
