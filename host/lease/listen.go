package lease

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
)

// socketMode lets the owner's group connect: a proxy often runs as another user. Whoever
// connects has still to be paired.
const socketMode = 0o660

// Listen opens addr, "unix:/path" or IP:PORT on loopback. A socket that a process left which is
// gone is replaced.
func Listen(addr string) (net.Listener, error) {
	path, unix := strings.CutPrefix(addr, "unix:")
	if !unix {
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			return nil, fmt.Errorf("agent.listen: %w\nhint: it is taken, or not this machine's; every agent of a machine needs its own", err)
		}
		return ln, nil
	}
	ln, err := net.Listen("unix", path)
	if errors.Is(err, syscall.EADDRINUSE) && abandoned(path) {
		if err = os.Remove(path); err == nil {
			ln, err = net.Listen("unix", path)
		}
	}
	if err == nil {
		if err = os.Chmod(path, socketMode); err != nil {
			ln.Close()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("agent.listen: %w\nhint: the directory must exist, and every agent of a machine needs its own socket", err)
	}
	return ln, nil
}

// abandoned reports whether path is a socket that nobody listens on.
func abandoned(path string) bool {
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Type() != os.ModeSocket {
		return false
	}
	c, err := net.Dial("unix", path)
	if err == nil {
		c.Close()
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}
