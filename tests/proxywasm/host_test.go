package proxywasm

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/tests/artifact"
)

// guest is the filter of testdata/guest.
var guest = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "proxywasm-guest-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "guest.wasm")
	cmd := exec.Command("go", append(append([]string{}, artifact.Flags...), "-o", file, "./tests/proxywasm/testdata/guest")...)
	cmd.Dir = artifact.Root()
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOFLAGS=", "GOEXPERIMENT=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building the guest: %w\n%s", err, out)
	}
	return os.ReadFile(file)
})

// An echo is an upstream that sends back what it gets, and waits for the end.
func echo(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				io.Copy(conn, conn)
			}()
		}
	}()
	return ln.Addr().String()
}

// run starts the guest before an echo.
func run(t *testing.T, o Options) *Proxy {
	t.Helper()
	module, err := guest()
	if err != nil {
		t.Fatal(err)
	}
	o.Module = module
	if o.Listeners == nil {
		o.Listeners = []Listener{{Address: "127.0.0.1:0", Upstream: echo(t)}}
	}
	p, err := Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

type client struct {
	*net.TCPConn
	t     *testing.T
	lines *bufio.Reader
}

func dial(t *testing.T, p *Proxy) *client {
	t.Helper()
	conn, err := net.Dial("tcp", p.Addr(0))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(60 * time.Second))
	return &client{conn.(*net.TCPConn), t, bufio.NewReader(conn)}
}

// says sends a line and wants another one back.
func (c *client) says(line, want string) {
	c.t.Helper()
	if _, err := c.Write([]byte(line + "\n")); err != nil {
		c.t.Fatal(err)
	}
	if got, err := c.lines.ReadString('\n'); err != nil || got != want+"\n" {
		c.t.Errorf("%s: %q, %v; want %q", line, got, err, want)
	}
}

// gone wants the connection closed.
func (c *client) gone() {
	c.t.Helper()
	if b, err := io.ReadAll(c.lines); len(b) != 0 || os.IsTimeout(err) {
		c.t.Errorf("%q, %v; want the connection closed", b, err)
	}
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !f(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

func TestAStreamIsToldWhatEnvoyTells(t *testing.T) {
	t.Parallel()
	p := run(t, Options{Configuration: []byte("good"), Environment: map[string]string{"GUEST": "env"}})
	if got := p.Logged("configure good with env"); got != 3 {
		t.Errorf("configured %d times: canary, main thread and worker are 3", got)
	}
	c := dial(t, p)
	c.says("up hello", "HELLO")
	c.CloseWrite()
	c.gone()
	eventually(t, "the context is deleted", func() bool { return p.State()[0].Streams == 0 })
	var lines []string
	for _, line := range p.Log() {
		if strings.Contains(line.Text, "2") {
			lines = append(lines, line.Text)
		}
	}
	want := []string{"create 2 of 1", `new 2, upstream "" 1`, "end of 2", "upstream of 2 closed by 0", "closed 2 by 1", "done 2", "log 2", "delete 2"}
	if got := strings.Join(lines, "\n"); got != strings.Join(want, "\n") {
		t.Errorf("the stream was told\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
}

func TestBuffersAreEditedAsInEnvoy(t *testing.T) {
	t.Parallel()
	c := dial(t, run(t, Options{Configuration: []byte("x")}))
	c.says("edit", "<edit")
	if got, _ := c.lines.ReadString('\n'); got != ">002\n" {
		t.Errorf("%q: prepend and append are fine, an edit inside is a bad argument", got)
	}
	for _, part := range []string{"up in ", "two ", "parts"} {
		c.Write([]byte(part))
		time.Sleep(20 * time.Millisecond)
	}
	c.says("", "IN TWO PARTS")
}

func TestAStreamWaitsForTicksAndAnswers(t *testing.T) {
	t.Parallel()
	agent := http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.URL.Path == "/slow" {
			<-r.Context().Done()
		}
		fmt.Fprintf(w, "%s %s %s %s %s", r.Method, r.URL.Path, r.Host, r.Header.Get("x-one"), body)
	})}
	socket := filepath.Join(t.TempDir(), "agent.sock")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	go agent.Serve(ln)
	defer agent.Close()
	p := run(t, Options{Configuration: []byte("x"), Environment: map[string]string{"GUEST": "hold"},
		Clusters: map[string]string{"agent": "unix:" + socket, "nobody": "127.0.0.1:1"}})
	c := dial(t, p)
	c.says("later on", "later on")
	c.says("call agent /path", "1 200 true 0 POST /path guest 1 body")
	c.says("call agent /slow", "1 504 true 0 upstream request timeout")
	c.says("call nobody /path", "1 503 true 0 upstream connect error or disconnect/reset before headers")
	c.says("call unknown /path", "call 2")
}

func TestWhatTheHostKnows(t *testing.T) {
	t.Parallel()
	p := run(t, Options{Configuration: []byte("x"), Workers: 2, Name: "n", RootID: "r", VMID: "v", Clock: NewClock(time.Unix(7, 0)),
		Environment: map[string]string{"GUEST": "ticks"}})
	c, other := dial(t, p), dial(t, p)
	for path, want := range map[string]string{"plugin_name": "n 0", "plugin_root_id": "r 0", "plugin_vm_id": "v 0", "connection.id": "0 0", "no.such": " 1",
		"source.address": c.LocalAddr().String() + " 0", "upstream.address": p.opts.Listeners[0].Upstream + " 0"} {
		c.says("prop "+path, want)
	}
	c.says("share one", `"" 1, 0 8, "one" true`)
	other.says("share two", `"one" 0, 0 8, "two" true`)
	c.says("metric", "42 0, 2 1")
	if got := p.Metrics(); got["guest_gauge"] != 42 || got["guest_streams_total"] != 2 {
		t.Errorf("metrics %v", got)
	}
	c.says("odd", "1 2 1, 12 0, 2 0")
	c.says("print", "print")
	c.says("exit", "exit") // proc_exit returns
	if p.Logged("printed") != 1 || p.Logged("complained") != 1 {
		t.Errorf("log %v", p.Log())
	}
	p.opts.Clock.Advance(time.Second)
	if got := p.Logged("tick at 8000000000"); got != 3 {
		t.Errorf("%d ticks of three machines", got)
	}
}

func TestATrapClosesItsWorkersStreamsAlone(t *testing.T) {
	t.Parallel()
	p := run(t, Options{Configuration: []byte("x"), Workers: 2, Reload: time.Millisecond})
	a, b, same := dial(t, p), dial(t, p), dial(t, p)
	a.says("up a", "A")
	b.says("up b", "B")
	same.says("up c", "C")
	a.Write([]byte("trap\n"))
	a.gone()
	same.Write([]byte("up d\n"))
	same.gone()
	b.says("up e", "E")
	dial(t, p).says("up other", "OTHER") // the other worker's turn
	dial(t, p).says("up again", "AGAIN")
	if s := p.State(); s[0].Loads != 2 || s[1].Loads != 1 {
		t.Errorf("%+v", s)
	}
}

func TestAMachineIsNotMadeAnewTooOften(t *testing.T) {
	t.Parallel()
	p := run(t, Options{Configuration: []byte("x"), Reload: time.Hour})
	p.Trap(0)
	dial(t, p).gone()
	if s := p.State()[0]; s.Loads != 1 || !s.Failed || s.Connections != 0 {
		t.Errorf("%+v", s)
	}
}

func TestTheFilterClosesAStream(t *testing.T) {
	t.Parallel()
	p := run(t, Options{Configuration: []byte("x")})
	c := dial(t, p)
	c.Write([]byte("close\n"))
	c.gone()
	if p.Logged("closed 2 by 1") != 1 {
		t.Errorf("log %v", p.Log())
	}
}

func TestHeldUpstreamBytesComeWithMoreOfThem(t *testing.T) {
	t.Parallel()
	p := run(t, Options{Configuration: []byte("x")})
	c := dial(t, p)
	c.Write([]byte("(\n"))
	eventually(t, "the answer is held", func() bool { return p.Logged("held 2") == 1 })
	c.says(")", "(")
	if got, _ := c.lines.ReadString('\n'); got != ")\n" {
		t.Errorf("%q", got)
	}
}

// TestNothingIsReadBeyondTheLimit has the filter stop a stream without taking the bytes, and a
// client that does not read: in both cases the proxy stops reading.
func TestNothingIsReadBeyondTheLimit(t *testing.T) {
	t.Parallel()
	const limit = 128 << 10
	p := run(t, Options{Configuration: []byte("x"), BufferLimit: limit})
	stalled := dial(t, p)
	stalled.Write([]byte("stall "))
	slow := dial(t, p)
	for _, c := range []*client{stalled, slow} {
		c.SetWriteDeadline(time.Now().Add(time.Second))
		if n, err := c.Write(bytes.Repeat([]byte("up x\n"), 8<<20)); err == nil || n > 32<<20 {
			t.Errorf("%d bytes were taken: %v", n, err)
		}
	}
	p.workers[0].do(func() {
		for c := range p.workers[0].conns {
			if n := len(c.fromClient); n > limit+readSize {
				t.Errorf("%d bytes held", n)
			}
			if n := c.down.pending; n > 2*limit+readSize {
				t.Errorf("%d bytes for the client", n)
			}
		}
	})
}

func TestADrainedProxyFinishesWhatItHas(t *testing.T) {
	t.Parallel()
	p := run(t, Options{Configuration: []byte("x")})
	c := dial(t, p)
	c.says("up a", "A")
	p.Drain()
	c.says("up b", "B")
	if _, err := net.Dial("tcp", p.Addr(0)); err == nil {
		t.Error("a drained proxy accepts")
	}
}

func TestAPausedClientIsNotRead(t *testing.T) {
	t.Parallel()
	p := run(t, Options{Configuration: []byte("x")})
	c := dial(t, p)
	c.says("up a", "A") // the read after it is under way, and brings b
	p.PauseReading(c.LocalAddr().String(), true)
	c.says("up b", "B")
	c.Write([]byte("up c\n"))
	c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if _, err := c.lines.ReadString('\n'); !os.IsTimeout(err) {
		t.Errorf("read while paused: %v", err)
	}
	c.SetReadDeadline(time.Now().Add(60 * time.Second))
	p.PauseReading(c.LocalAddr().String(), false)
	if got, err := c.lines.ReadString('\n'); got != "C\n" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestWithoutAnUpstreamTheClientIsClosed(t *testing.T) {
	t.Parallel()
	p := run(t, Options{Configuration: []byte("x"), Listeners: []Listener{{Address: "127.0.0.1:0", Upstream: "127.0.0.1:1"}}})
	dial(t, p).gone()
}

func TestWhatEnvoyRefusesIsRefused(t *testing.T) {
	t.Parallel()
	module, err := guest()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Start(Options{Module: module, Configuration: []byte("refuse")}); err == nil || !strings.Contains(err.Error(), "proxy_on_configure\n[error] refused") {
		t.Errorf("a refused configuration: %v", err)
	}
	for want, imports := range map[string]string{
		"imports env.proxy_get_propertz, which":                       "\x03env\x12proxy_get_propertz",
		"imports wasi_snapshot_preview1.path_create_directory, which": "\x16wasi_snapshot_preview1\x15path_create_directory",
		"imports env.proxy_log with another signature":                "\x03env\x09proxy_log",
		"no proxy_abi_version_0_2_1":                                  "",
	} {
		abi := "proxy_abi_version_0_2_1"
		if imports == "" {
			abi = "proxy_abi_version_0_9_9"
		}
		if _, err := Start(Options{Module: smallModule(imports, abi)}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// smallModule is a module in the binary format that imports one function (i32) -> i32, or none,
// and exports one that does nothing, under two names.
func smallModule(imports, abi string) []byte {
	section := func(id byte, content string) string { return string([]byte{id, byte(len(content))}) + content }
	name := func(s string) string { return string([]byte{byte(len(s))}) + s }
	module, own := "\x00asm\x01\x00\x00\x00"+section(1, "\x02\x60\x01\x7f\x01\x7f\x60\x00\x00"), "\x00"
	if imports != "" {
		module += section(2, "\x01"+imports+"\x00\x00")
		own = "\x01"
	}
	module += section(3, "\x01\x00") + section(7, "\x02"+name(abi)+"\x00"+own+name("malloc")+"\x00"+own)
	return []byte(module + section(10, "\x01\x04\x00\x41\x00\x0b"))
}
