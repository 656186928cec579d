// Command mutants shows that the leak oracle can fail (PROTOCOL.md §4, V-2): it runs the
// oracle against builds in which one erasure is switched off, and wants each to be red, and
// against the tree as it is, which must be green.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"regexp"

	"github.com/wasm-e2ee/wasm-e2ee/tests/artifact"
)

// A mutant forgets to forget.
type mutant struct {
	name  string
	edits []artifact.Edit
}

var mutants = []mutant{
	{"none", nil},
	{"prekey: a superseded one is kept", []artifact.Edit{
		{File: "host/keyring/prekey.go", Old: "if p.mark >= 0 && c.state.grantsNext >= p.mark {", New: "if false {"},
	}},
	{"es: the producer keeps it with the epoch", []artifact.Edit{
		{File: "host/keyring/producer.go", Old: "	stack      ratchet.Stack\n", New: "	stack      ratchet.Stack\n	es         secretKey\n"},
		{File: "host/keyring/draft.go", Old: "e := &epoch{topic: topic,", New: "e := &epoch{es: *es, topic: topic,"},
	}},
	{"ts: a consumer keeps it after every group is past", []artifact.Edit{
		{File: "host/keyring/erase.go", Old: "if !x.expired(c, at) && c.state.node.covers(wire.RoleConsume, x.topic) == nil {", New: "if true {"},
	}},
	{"ts: the producer keeps it with the epoch", []artifact.Edit{
		{File: "host/keyring/producer.go", Old: "	stack      ratchet.Stack\n", New: "	stack      ratchet.Stack\n	ts         secretKey\n"},
		{File: "host/keyring/draft.go", Old: "e := &epoch{topic: topic,", New: "e := &epoch{ts: ts, topic: topic,"},
	}},
	{"leaf: what was handed out stays on the stack", []artifact.Edit{
		{File: "module/ratchet/stack.go", Old: "s.subtrees[s.n] = subtree{}", New: "_ = s.subtrees[s.n]"},
	}},
}

// red is what the oracle says of a key that should be gone. That a mutant does not compile
// proves nothing.
var red = regexp.MustCompile(`leak of the .* opens, and must not: \d+ values`)

func main() {
	seed := flag.Uint64("seed", 1, "seed of the fleet")
	leaks := flag.Int("leaks", 100, "nodes to leak")
	flag.Parse()
	failed := false
	for _, m := range mutants {
		said, err := m.run(*seed, *leaks)
		if err != nil {
			fmt.Fprintln(os.Stderr, "mutants:", err)
			os.Exit(1)
		}
		switch {
		case said == "" && len(m.edits) == 0:
			fmt.Println("green, as it must be: nothing switched off")
		case said == "":
			failed = true
			fmt.Printf("GREEN, and must be red: %s\n", m.name)
		case len(m.edits) == 0:
			failed = true
			fmt.Printf("RED, and must be green: nothing switched off\n    %s\n", said)
		default:
			fmt.Printf("red, as it must be: %s\n    %s\n", m.name, said)
		}
	}
	if failed {
		os.Exit(1)
	}
}

// run returns the first of what the oracle says, empty where it passes. An error is a
// failure of another kind.
func (m mutant) run(seed uint64, leaks int) (string, error) {
	dir, err := os.MkdirTemp("", "e2ee-mutants-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	overlay, err := artifact.Overlay(dir, m.edits...)
	if err != nil {
		return "", err
	}
	cmd := exec.Command("go", "test", "-count=1", "-vet=off", "-overlay="+overlay, "-run=^TestALeakOpensWhatTheClaimsSay$", "./tests/adversary",
		fmt.Sprint("-adversary.seed=", seed), fmt.Sprint("-adversary.leaks=", leaks))
	cmd.Dir = artifact.Root()
	out, err := cmd.CombinedOutput()
	if err == nil {
		return "", nil
	}
	if said := red.Find(out); said != nil {
		return string(said), nil
	}
	return "", fmt.Errorf("%s: %w\n%s", m.name, err, out)
}
