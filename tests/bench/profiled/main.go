// Command profiled is `wasm-e2ee proxy` that writes a profile of its processor time, from when
// it serves until it is told to end: for `go tool pprof`. Of the module's own time the profile
// knows the sum alone.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime/pprof"
	"syscall"

	"github.com/wasm-e2ee/wasm-e2ee/host/config"
	"github.com/wasm-e2ee/wasm-e2ee/host/sidecar"
)

func main() {
	configuration := flag.String("config", "", "the sidecar's YAML file")
	profile := flag.String("profile", "", "where the profile goes")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *configuration, *profile); err != nil {
		fmt.Fprintln(os.Stderr, "profiled:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, configuration, profile string) error {
	file, err := config.Read(configuration)
	if err != nil {
		return err
	}
	out, err := os.Create(profile)
	if err != nil {
		return err
	}
	s, err := sidecar.Start(ctx, file, file.Log.Logger())
	if err != nil {
		return errors.Join(err, out.Close())
	}
	if err := pprof.StartCPUProfile(out); err != nil {
		return err
	}
	err = s.Wait()
	pprof.StopCPUProfile()
	return errors.Join(err, out.Close())
}
