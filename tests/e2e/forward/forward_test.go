package forward

import (
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"testing"

	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/deps"
)

func TestOwnersOfConnectionsAreFound(t *testing.T) {
	if _, err := os.Stat("/proc/net/tcp"); err != nil {
		deps.Missing(t, "needs /proc; hint: run on Linux")
	}
	echo, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	go func() {
		for {
			c, err := echo.Accept()
			if err != nil {
				return
			}
			go func() { io.Copy(c, c); c.Close() }()
		}
	}()
	f, err := Listen(echo.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c, err := net.Dial("tcp4", f.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if got := f.Owners(); !slices.Equal(got, []int{os.Getpid()}) {
		t.Fatalf("owners %v, want this process, %d", got, os.Getpid())
	}

	// Another process is told apart.
	python, err := exec.LookPath("python3")
	if err != nil {
		deps.Missing(t, "needs python3; hint: apt-get install python3")
	}
	host, port, _ := net.SplitHostPort(f.Addr())
	other := exec.Command(python, "-c", `import socket,sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
s.send(b"x")
s.recv(1)`, host, port)
	if out, err := other.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if got := f.Owners(); len(got) != 2 || got[1] != other.Process.Pid {
		t.Fatalf("owners %v, want %d last", got, other.Process.Pid)
	}
}
