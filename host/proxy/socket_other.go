//go:build !linux

package proxy

import "net"

// A socket is a TCP connection.
type socket struct{ *net.TCPConn }

// quick returns conn with what the system has for writing several pieces.
func quick(conn net.Conn) net.Conn {
	if c, ok := conn.(*net.TCPConn); ok {
		return &socket{c}
	}
	return conn
}

// writeAll writes the pieces, which it uses up, one after the other.
func (s *socket) writeAll(pieces [][]byte) (written int, err error) {
	buffers := net.Buffers(pieces)
	n, err := buffers.WriteTo(s.TCPConn)
	return int(n), err
}
