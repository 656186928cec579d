// Command wasm-e2ee is the product's one program: the sidecar, the keeper of a realm, and
// the tools that prove and explain them. This package parses flags and wires packages
// together, nothing else.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"syscall"

	"github.com/alecthomas/kong"

	hostenvoy "github.com/wasm-e2ee/wasm-e2ee/host/envoy"
)

// Exit codes: 0 is success, 1 that the work failed or a check did not hold, 2 that the
// command line is wrong, 130 that a signal cut the work short. A sidecar is meant to run
// until a signal, and ends with 0.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130
)

type commands struct {
	Realm struct {
		Init   realmInit   `cmd:"" help:"Make a realm: its root key, and an issuer that signs its nodes."`
		Issue  realmIssue  `cmd:"" help:"Turn a node's request into a credential."`
		Ticket realmTicket `cmd:"" help:"Print a ticket: one node enrols with it, once."`
		Revoke realmRevoke `cmd:"" help:"End a node's credential before its time."`
	} `cmd:"" help:"Make and run a realm: who may produce and consume what."`
	Issuer issuer `cmd:"" help:"Answer nodes that enrol with a ticket or renew, until a signal."`
	Enroll enroll `cmd:"" help:"Make a node's identity, and get its credential: with a ticket, or by file (--csr, then --credential)."`
	Proxy  proxy  `cmd:"" help:"Run the sidecar."`
	Agent  struct {
		Serve agentServe `cmd:"" default:"withargs" help:"Run the agent (the default)."`
		Pair  agentPair  `cmd:"" help:"Make a pairing key: for the agent, and for its data planes."`
	} `cmd:"" help:"Run the agent alone, for data planes elsewhere on the machine."`
	Envoy struct {
		Config envoyConfig `cmd:"" help:"Write the configuration of an Envoy that runs e2ee.wasm, from what the cluster says of its brokers."`
	} `cmd:"" help:"Run the data plane in Envoy, beside an agent."`
	Demo     demo     `cmd:"" help:"Show all of it: what was sent, what the broker holds, what was received, and an attack."`
	Exposure exposure `cmd:"" help:"Say what would be readable, and until when, if a node's state leaked now."`
	Inspect  inspect  `cmd:"" help:"Explain any of our bytes, field by field."`
	Test     test     `cmd:"" help:"Prove a module: run the conformance suite against it."`
	Version  version  `cmd:"" help:"Print versions."`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// After the first signal the next one ends the process the usual way.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:]))
}

func run(ctx context.Context, args []string) int {
	var c commands
	helped := 0
	if len(args) == 0 {
		args, helped = []string{"--help"}, exitUsage
	}
	parser, err := kong.New(&c, kong.Name("wasm-e2ee"),
		kong.Description("End-to-end encryption for Apache Kafka that applications do not notice."),
		kong.Vars{"envoyAdmin": hostenvoy.DefaultAdmin}, kong.BindTo(ctx, (*context.Context)(nil)), kong.Exit(func(int) { os.Exit(helped) }))
	if err != nil {
		panic(err) // the command table is wrong: a bug
	}
	command, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintf(os.Stderr, "wasm-e2ee: %v\nhint: %s --help\n", err, misused(err))
		return exitUsage
	}
	err = command.Run()
	switch {
	case err == nil:
		return 0
	case ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "wasm-e2ee: interrupted")
		return exitInterrupted
	default:
		fmt.Fprintf(os.Stderr, "wasm-e2ee: %s\n", printed(err))
		return exitFailed
	}
}

// misused is the command whose help explains a mistake on the command line.
func misused(err error) string {
	name := "wasm-e2ee"
	var mistake *kong.ParseError
	if errors.As(err, &mistake) {
		for _, step := range mistake.Context.Path {
			if step.Command != nil {
				name += " " + step.Command.Name
			}
		}
	}
	return name
}

// printed puts each hint of an error on a line of its own, wherever in the text it stood.
func printed(err error) string {
	return inlineHint.ReplaceAllString(err.Error(), "\nhint: $1$2")
}

// inlineHint is a hint in the middle of a line: "; hint: …" to the line's end, or in
// parentheses.
var inlineHint = regexp.MustCompile(`(?m)(?:; hint: (.*)| \(hint: (.*)\))$`)
