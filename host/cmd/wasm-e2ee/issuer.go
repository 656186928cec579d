package main

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	hostissuer "github.com/wasm-e2ee/wasm-e2ee/host/issuer"
)

type issuer struct {
	connect

	Dir   string        `required:"" type:"path" placeholder:"DIR" help:"The realm's directory; the root key need not be there."`
	Valid time.Duration `default:"1h" help:"How long a list of the revoked is good; it is renewed twice as often."`
	Log   slog.Level    `default:"info" help:"debug, info, warn or error."`
}

func (c *issuer) Run(ctx context.Context) error {
	kafka, err := c.kafka()
	if err != nil {
		return err
	}
	key, err := readIssuer(c.Dir)
	if err != nil {
		return err
	}
	defer key.Wipe()
	return hostissuer.Run(ctx, hostissuer.Config{
		Issuer: key, Book: filepath.Join(c.Dir, hostissuer.BookFile), Kafka: kafka, Fresh: c.Valid,
		Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: c.Log})),
	})
}
