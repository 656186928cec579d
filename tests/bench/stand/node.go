package stand

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/wasm-e2ee/wasm-e2ee/host/process"
	"github.com/wasm-e2ee/wasm-e2ee/tests/artifact"
	"github.com/wasm-e2ee/wasm-e2ee/tests/bench/run"
)

// Topics of a node of a Stand: names that begin so are sealed, or passed through.
const (
	SealedTopics = "sealed-"
	PlainTopics  = "plain-"
)

// A node is a realm of its own with one node in it, which produces and consumes.
type node struct {
	dir, program, module string
}

func newNode(ctx context.Context, o run.Options, dir string) (n node, err error) {
	n.dir = dir
	if n.program, err = filepath.Abs(o.Program); err != nil {
		return n, err
	}
	if n.module, err = filepath.Abs(o.Module); err != nil {
		return n, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return n, err
	}
	for _, args := range [][]string{
		{"realm", "init", "--dir", n.file("realm")},
		{"enroll", "--state", n.file("node.state"), "--csr", n.file("node.csr"),
			"--produce", SealedTopics + "*", "--consume", SealedTopics + "*", "--group", "bench"},
		{"realm", "issue", "--dir", n.file("realm"), "--csr", n.file("node.csr"), "--out", n.file("node.cred")},
		{"enroll", "--state", n.file("node.state"), "--credential", n.file("node.cred")},
		{"agent", "pair", "--out", n.file("pairing.key")},
	} {
		if _, err := process.Run(ctx, process.Spec{Name: "wasm-e2ee " + args[0], Args: append([]string{n.program}, args...)}); err != nil {
			return n, err
		}
	}
	return n, nil
}

func (n node) file(name string) string { return filepath.Join(n.dir, name) }

// start runs `wasm-e2ee proxy`, `wasm-e2ee agent` or another program with the same configuration,
// with the program's defaults, until it says ready, and then something that found matches.
func (n node) start(ctx context.Context, command []string, bootstrap, ready string, found *regexp.Regexp) (*process.Process, string, error) {
	config, err := yaml.Marshal(map[string]any{
		"bootstrap": strings.Split(bootstrap, ","),
		"listen":    "127.0.0.1:0",
		"state":     n.file("node.state"),
		"module":    n.module,
		"policy":    map[string]any{"plain": []string{PlainTopics + "*"}},
		"agent":     map[string]any{"listen": "unix:" + n.file("agent.sock"), "pairing_key_file": n.file("pairing.key")},
	})
	if err != nil {
		return nil, "", err
	}
	file := n.file("configuration.yaml")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		return nil, "", err
	}
	p, err := process.Start(process.Spec{Name: command[0], Args: append(command, "--config", file)})
	if err != nil {
		return nil, "", err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := p.WaitFor(ctx, ready); err != nil {
		p.Kill()
		return nil, "", err
	}
	for ctx.Err() == nil { // the rest of that line
		if match := found.FindStringSubmatch(p.Output()); match != nil {
			return p, match[1], nil
		}
		time.Sleep(time.Millisecond)
	}
	p.Kill()
	return nil, "", fmt.Errorf("%s: nothing like %s in what it printed:\n%s", command[0], found, p.Output())
}

// A Server is a running sidecar.
type Server struct {
	*process.Process
	Addr string // bootstrap, host:port
}

var listening = regexp.MustCompile(`msg=serving.* listen=(\S+)`)

// StartSidecar makes a node and runs its sidecar.
func StartSidecar(ctx context.Context, o run.Options, dir, bootstrap string) (*Server, error) {
	n, err := newNode(ctx, o, dir)
	if err != nil {
		return nil, err
	}
	command := []string{n.program, "proxy"}
	if o.Profile != "" {
		program := n.file("profiled")
		if _, err := process.Run(ctx, process.Spec{Name: "go build", Dir: artifact.Root(), Args: []string{"go", "build", "-o", program, "./tests/bench/profiled"}}); err != nil {
			return nil, err
		}
		command = []string{program, "-profile", o.Profile}
	}
	p, addr, err := n.start(ctx, command, bootstrap, "msg=serving", listening)
	return &Server{p, addr}, err
}

// An Agent is a running `wasm-e2ee agent`.
type Agent struct {
	*process.Process
	Socket     string // path of the Unix socket where data planes are served
	PairingKey string // the key, as its file has it
	Realm      string // its id, in hexadecimal digits
}

var realm = regexp.MustCompile(` realm=([0-9a-f]+)`)

// StartAgent makes a node and runs its agent, for data planes elsewhere.
func StartAgent(ctx context.Context, o run.Options, dir, bootstrap string) (*Agent, error) {
	n, err := newNode(ctx, o, dir)
	if err != nil {
		return nil, err
	}
	key, err := os.ReadFile(n.file("pairing.key"))
	if err != nil {
		return nil, err
	}
	p, id, err := n.start(ctx, []string{n.program, "agent"}, bootstrap, `msg="serving keys to data planes"`, realm)
	return &Agent{p, n.file("agent.sock"), string(key), id}, err
}
