// Command mutants shows that the leak oracle and the nonce ledger can fail (PROTOCOL.md §4,
// V-2 and V-5): it runs the oracle against builds in which one erasure is switched off, the
// ledger against builds that use a key twice, and wants each to be red, and both against the
// tree as it is, which must be green.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"

	"github.com/wasm-e2ee/wasm-e2ee/tests/artifact"
)

// A judge is a test, and what it says of what should not be. That a mutant does not compile
// proves nothing.
type judge struct {
	test, folder string
	red          *regexp.Regexp
	flags        bool // takes a seed and a number of leaks
}

var (
	oracle = &judge{"^TestALeakOpensWhatTheClaimsSay$", "./tests/adversary", regexp.MustCompile(`leak of the .* opens, and must not: \d+ (values|identities)`), true}
	ledger = &judge{"^TestNoKeySealsTwiceThroughCrashes$", "./tests/adversary/ledger", regexp.MustCompile(`used again: kid .*`), false}
)

// A mutant forgets to forget.
type mutant struct {
	*judge
	name  string
	edits []artifact.Edit
}

var mutants = []mutant{
	{oracle, "none", nil},
	{oracle, "prekey: a superseded one is kept", []artifact.Edit{
		{File: "host/keyring/prekey.go", Old: "if p.mark >= 0 && c.state.grantsNext >= p.mark {", New: "if false {"},
	}},
	{oracle, "es: the producer keeps it with the epoch", []artifact.Edit{
		{File: "host/keyring/producer.go", Old: "	stack      ratchet.Stack\n", New: "	stack      ratchet.Stack\n	es         secretKey\n"},
		{File: "host/keyring/draft.go", Old: "e := &epoch{topic: topic,", New: "e := &epoch{es: *es, topic: topic,"},
	}},
	{oracle, "ts: a consumer keeps it after every group is past", []artifact.Edit{
		{File: "host/keyring/erase.go", Old: "if !x.expired(c, at) && c.state.node.covers(wire.RoleConsume, x.topic) == nil {", New: "if true {"},
	}},
	{oracle, "ts: the producer keeps it with the epoch", []artifact.Edit{
		{File: "host/keyring/producer.go", Old: "	stack      ratchet.Stack\n", New: "	stack      ratchet.Stack\n	ts         secretKey\n"},
		{File: "host/keyring/draft.go", Old: "e := &epoch{topic: topic,", New: "e := &epoch{ts: ts, topic: topic,"},
	}},
	{oracle, "leaf: what was handed out stays on the stack", []artifact.Edit{
		{File: "module/ratchet/stack.go", Old: "s.subtrees[s.n] = subtree{}", New: "_ = s.subtrees[s.n]"},
	}},
	{oracle, "leaf: the module keeps the last one", []artifact.Edit{
		{File: "module/filter/seal.go", Old: "	clear(f.leaf[:])\n", New: ""},
	}},
	{oracle, "share: what the group has passed", []artifact.Edit{
		{File: "host/keyring/sharer.go", Old: "return x.pastAt != 0 || x.past[group]", New: "return false"},
	}},
	{oracle, "revocation: the revoked are wrapped for", []artifact.Edit{
		{File: "host/keyring/authority.go", Old: "	return ok && at >= from\n", New: "	return false && ok && at >= from\n"},
	}},
	{oracle, "renewal: the old identity key is kept", []artifact.Edit{
		{File: "host/keyring/state.go", Old: "	renewal     *renewal // under way, nil for none\n", New: "	renewal     *renewal // under way, nil for none\n	former      secretKey\n"},
		{File: "host/keyring/renewal.go", Old: "		n.seed = s.renewal.seed\n", New: "		s.former = n.seed\n		n.seed = s.renewal.seed\n"},
	}},
	{oracle, "data plane: what it is told to forget stays", []artifact.Edit{
		{File: "module/filter/keys.go", Old: "		clear(r.node[:])\n		delete(f.roots, kid)\n", New: "		_ = r.node\n		delete(f.roots, kid)\n"},
	}},
	{ledger, "none", nil},
	{ledger, "lease: the subtree that was cut stays on the stack", []artifact.Edit{
		{File: "host/keyring/producer.go", Old: "e.stack.Cut(leaseLevel,", New: "(&[]ratchet.Stack{e.stack}[0]).Cut(leaseLevel,"},
	}},
	{ledger, "leaf: the one that was taken stays on the stack", []artifact.Edit{
		{File: "module/filter/keys.go", Old: "l.stack.Take(&f.leaf)", New: "(&[]ratchet.Stack{l.stack}[0]).Take(&f.leaf)"},
	}},
}

func main() {
	seed := flag.Uint64("seed", 1, "seed of the fleet")
	leaks := flag.Int("leaks", 100, "nodes to leak")
	only := flag.String("only", "", "mutants whose name begins so; all of them where it is empty")
	flag.Parse()
	failed := false
	for _, m := range mutants {
		if !strings.HasPrefix(m.name, *only) {
			continue
		}
		said, err := m.run(*seed, *leaks)
		if err != nil {
			fmt.Fprintln(os.Stderr, "mutants:", err)
			os.Exit(1)
		}
		switch {
		case said == "" && len(m.edits) == 0:
			fmt.Println("green, as it must be: nothing switched off,", m.folder)
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

// run returns the first of what the judge says, empty where it passes. An error is a
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
	cmd := exec.Command("go", "test", "-count=1", "-vet=off", "-overlay="+overlay, "-run="+m.test, m.folder)
	if m.flags {
		cmd.Args = append(cmd.Args, fmt.Sprint("-adversary.seed=", seed), fmt.Sprint("-adversary.leaks=", leaks))
	}
	cmd.Env = append(os.Environ(), fmt.Sprint("ADVERSARY_SEED=", seed), artifact.OverlayEnv+"="+overlay)
	cmd.Dir = artifact.Root()
	out, err := cmd.CombinedOutput()
	if err == nil {
		return "", nil
	}
	if said := m.red.Find(out); said != nil {
		return string(said), nil
	}
	return "", fmt.Errorf("%s: %w\n%s", m.name, err, out)
}
