package aead

import (
	"bufio"
	_ "embed"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"github.com/wasm-e2ee/wasm-e2ee/host/process"
)

// node is the guest in Node: a line with a call goes in, a line with its outcome comes out.
type node struct {
	version string
	process *process.Process
	in      io.WriteCloser
	out     *bufio.Reader
}

//go:embed node.mjs
var script string

func startNode(guest string) (*node, error) {
	program, err := exec.LookPath("node")
	if err != nil {
		return nil, fmt.Errorf("%w\nhint: apt-get install nodejs, version 20", err)
	}
	in, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer in.Close()
	read, out, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer out.Close()
	n := &node{in: write, out: bufio.NewReader(read)}
	n.process, err = process.Start(process.Spec{Name: "node", Stdin: in, Stdout: out,
		Args: []string{program, "--no-warnings", "--input-type=module", "--eval", script, guest}})
	if err != nil {
		return nil, err
	}
	line, err := n.out.ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("node does not start the guest: %w\n%s", err, n.process.Output())
	}
	n.version = strings.TrimSpace(line)
	return n, nil
}

func (n *node) call(op string, size, messages uint32) error {
	if _, err := fmt.Fprintf(n.in, "%s %d %d\n", op, size, messages); err != nil {
		return err
	}
	line, err := n.out.ReadString('\n')
	if err != nil || line != "1\n" {
		return fmt.Errorf("the guest's %s in node: %q %v\n%s", op, line, err, n.process.Output())
	}
	return nil
}

func (n *node) close() {
	n.in.Close()
	n.process.Kill()
}
