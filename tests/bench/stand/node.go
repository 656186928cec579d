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

	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/process"
)

// Topics of a sidecar of a Stand: names that begin so are sealed, or passed through.
const (
	SealedTopics = "sealed-"
	PlainTopics  = "plain-"
)

// A Server is a running program that clients connect to.
type Server struct {
	*process.Process
	Addr string // bootstrap, host:port
}

var listening = regexp.MustCompile(`msg=serving.* listen=(\S+)`)

// StartSidecar makes a realm of one node, which produces and consumes, and runs `wasm-e2ee
// proxy` for it with the program's defaults.
func StartSidecar(ctx context.Context, dir, program, bootstrap string) (*Server, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	program, err := filepath.Abs(program)
	if err != nil {
		return nil, err
	}
	file := func(name string) string { return filepath.Join(dir, name) }
	for _, args := range [][]string{
		{"realm", "init", "--dir", file("realm")},
		{"enroll", "--state", file("node.state"), "--csr", file("node.csr"),
			"--produce", SealedTopics + "*", "--consume", SealedTopics + "*", "--group", "bench"},
		{"realm", "issue", "--dir", file("realm"), "--csr", file("node.csr"), "--out", file("node.cred")},
		{"enroll", "--state", file("node.state"), "--credential", file("node.cred")},
	} {
		if _, err := process.Run(ctx, process.Spec{Name: "wasm-e2ee " + args[0], Args: append([]string{program}, args...)}); err != nil {
			return nil, err
		}
	}
	config, err := yaml.Marshal(map[string]any{
		"bootstrap": strings.Split(bootstrap, ","),
		"listen":    "127.0.0.1:0",
		"state":     file("node.state"),
		"policy":    map[string]any{"plain": []string{PlainTopics + "*"}},
	})
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(file("proxy.yaml"), config, 0o600); err != nil {
		return nil, err
	}
	p, err := process.Start(process.Spec{Name: "sidecar", Args: []string{program, "proxy", "--config", file("proxy.yaml")}})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := p.WaitFor(ctx, "msg=serving"); err != nil {
		p.Kill()
		return nil, err
	}
	for ctx.Err() == nil { // the rest of that line
		if found := listening.FindStringSubmatch(p.Output()); found != nil {
			return &Server{p, found[1]}, nil
		}
		time.Sleep(time.Millisecond)
	}
	p.Kill()
	return nil, fmt.Errorf("the sidecar does not say where it listens:\n%s", p.Output())
}
