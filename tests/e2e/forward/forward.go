// Package forward stands in front of a broker and notes which process opens each connection
// to it. A cluster that advertises forwarders' addresses thereby shows every client that
// learned a broker's own address instead of its sidecar's.
package forward

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A Forwarder passes TCP connections on to one address.
type Forwarder struct {
	listener net.Listener
	target   string
	wg       sync.WaitGroup

	mu     sync.Mutex
	closed bool
	conns  map[net.Conn]struct{}
	owners []int // of each connection, in order; 0: none was found
}

// Listen starts a forwarder on a free port of the loopback address. Connections are passed
// on to target, which need not listen yet.
func Listen(target string) (*Forwarder, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	f := &Forwarder{listener: l, target: target, conns: map[net.Conn]struct{}{}}
	f.wg.Go(f.serve)
	return f, nil
}

// Addr is where the forwarder listens, host:port.
func (f *Forwarder) Addr() string { return f.listener.Addr().String() }

// Owners are the process ids that opened the connections so far, in order. Each is looked up
// before a byte is passed on, while the client waits for its answer; one that is not found is
// 0. A connection on which the client never spoke is not counted.
func (f *Forwarder) Owners() []int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]int(nil), f.owners...)
}

// Close stops the forwarder and its connections.
func (f *Forwarder) Close() {
	f.mu.Lock()
	f.closed = true
	for c := range f.conns {
		c.Close()
	}
	f.mu.Unlock()
	f.listener.Close()
	f.wg.Wait()
}

func (f *Forwarder) serve() {
	for {
		c, err := f.listener.Accept()
		if err != nil {
			return
		}
		f.wg.Go(func() { f.pass(c) })
	}
}

func (f *Forwarder) pass(client net.Conn) {
	defer client.Close()
	if !f.keep(client) {
		return
	}
	defer f.drop(client)
	local, remote := client.RemoteAddr().(*net.TCPAddr).Port, client.LocalAddr().(*net.TCPAddr).Port
	pid, err := Owner(local, remote)
	if err != nil {
		pid = 0
	}
	// A client that hangs up without a word has learned nothing.
	first := make([]byte, 64<<10)
	n, err := client.Read(first)
	if err != nil {
		return
	}
	first = first[:n]
	if pid == 0 {
		pid = owner(local, remote)
	}
	f.note(pid)
	server, err := net.Dial("tcp4", f.target)
	if err != nil {
		return
	}
	defer server.Close()
	if !f.keep(server) {
		return
	}
	defer f.drop(server)
	if _, err := server.Write(first); err != nil {
		return
	}
	done := make(chan struct{}, 2)
	for _, pair := range [][2]net.Conn{{server, client}, {client, server}} {
		go func() {
			io.Copy(pair[0], pair[1])
			pair[0].Close()
			done <- struct{}{}
		}()
	}
	<-done
	<-done
}

func (f *Forwarder) note(pid int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.owners = append(f.owners, pid)
}

func (f *Forwarder) keep(c net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.conns[c] = struct{}{}
	return !f.closed
}

func (f *Forwarder) drop(c net.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.conns, c)
}

// owner is Owner with a few tries: the kernel's tables are not read in one piece, and may lack
// a connection that is there. 0 is not found.
func owner(local, remote int) int {
	for range 5 {
		if pid, err := Owner(local, remote); err == nil {
			return pid
		}
		time.Sleep(5 * time.Millisecond)
	}
	return 0
}

// Owner is the id of the process that holds the loopback TCP connection from port local to
// port remote, found in /proc as the kernel tells it.
func Owner(local, remote int) (int, error) {
	inode, err := inodeOf(local, remote)
	if err != nil {
		return 0, err
	}
	want := "socket:[" + inode + "]"
	links, err := filepath.Glob("/proc/[0-9]*/fd/[0-9]*")
	if err != nil {
		return 0, err
	}
	for _, link := range links {
		if to, err := os.Readlink(link); err == nil && to == want {
			return strconv.Atoi(strings.Split(link, "/")[2])
		}
	}
	return 0, fmt.Errorf("no process holds socket %s", inode)
}

// inodeOf finds a connection's socket in /proc/net/tcp, or in tcp6, where sockets that speak
// both families appear.
func inodeOf(local, remote int) (string, error) {
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		file, err := os.Open(table)
		if err != nil {
			return "", err
		}
		defer file.Close()
		from, to := fmt.Sprintf(":%04X", local), fmt.Sprintf(":%04X", remote)
		for lines := bufio.NewScanner(file); lines.Scan(); {
			// sl local rem st tx:rx tr:tm retrnsmt uid timeout inode …
			f := strings.Fields(lines.Text())
			if len(f) > 9 && strings.HasSuffix(f[1], from) && strings.HasSuffix(f[2], to) {
				return f[9], nil
			}
		}
	}
	return "", fmt.Errorf("no connection from port %d to port %d", local, remote)
}
