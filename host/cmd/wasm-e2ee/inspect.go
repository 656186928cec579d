package main

import (
	"io"
	"os"

	hostinspect "github.com/wasm-e2ee/wasm-e2ee/host/inspect"
)

type inspect struct {
	File string `arg:"" default:"-" help:"A file, or - for standard input: a state, credential or request file, an issuer's book, or a ticket; or a record value, control message or record batch, as bytes, hex or base64."`
}

func (c *inspect) Run() error {
	in := os.Stdin
	if c.File != "-" {
		f, err := os.Open(c.File)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	defer clear(b) // it may be a state file
	return hostinspect.Describe(os.Stdout, b)
}
