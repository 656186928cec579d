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
	"syscall"

	"github.com/alecthomas/kong"
)

// Exit codes: 0 is success, 1 that the work failed or a check did not hold, 2 that the
// command line is wrong.
const (
	exitFailed = 1
	exitUsage  = 2
)

type commands struct {
	Realm struct {
		Init  realmInit  `cmd:"" help:"Make a realm: its root key, an issuer, and the public file for its nodes."`
		Issue realmIssue `cmd:"" help:"Turn a node's request into a credential."`
	} `cmd:"" help:"Make and run a realm: who may produce and consume what."`
	Enroll  enroll  `cmd:"" help:"Make a node's identity and request (--csr), then take its credential (--credential)."`
	Proxy   proxy   `cmd:"" help:"Run the sidecar."`
	Demo    demo    `cmd:"" help:"Show all of it: what was sent, what the broker holds, what was received, and an attack."`
	Inspect inspect `cmd:"" help:"Explain any of our bytes, field by field."`
	Test    test    `cmd:"" help:"Prove a module: run the conformance suite against it."`
	Version version `cmd:"" help:"Print versions."`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// After the first signal the next one ends the process the usual way.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:]))
}

func run(ctx context.Context, args []string) int {
	var c commands
	parser, err := kong.New(&c, kong.Name("wasm-e2ee"),
		kong.Description("End-to-end encryption for Apache Kafka that applications do not notice."),
		kong.BindTo(ctx, (*context.Context)(nil)), kong.UsageOnError())
	if err != nil {
		panic(err) // the command table is wrong: a bug
	}
	command, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintf(os.Stderr, "wasm-e2ee: %v\nhint: wasm-e2ee --help\n", err)
		return exitUsage
	}
	if err := command.Run(); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintf(os.Stderr, "wasm-e2ee: %v\n", err)
		return exitFailed
	}
	return 0
}
