package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/agent"
	"github.com/wasm-e2ee/wasm-e2ee/host/config"
	hostexposure "github.com/wasm-e2ee/wasm-e2ee/host/exposure"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

type exposure struct {
	State  string    `type:"path" placeholder:"FILE" help:"The node's state file; default: the configuration's. Its sidecar may be running."`
	Config string    `type:"path" placeholder:"FILE" help:"The sidecar's configuration, for its timing; default: the default timing."`
	AsOf   time.Time `placeholder:"TIME" help:"Report as of this time, such as 2026-01-02T15:04:05Z, on what the file holds today; default: now."`
	Grants bool      `help:"Also read the grants from the configuration's Kafka, to list the epochs that each prekey opens; needs --config."`
	JSON   bool      `name:"json" help:"Print JSON."`
}

// Run takes no lock and writes nothing: the file is only ever replaced as a whole, so that
// it can be read while a sidecar owns it.
func (c *exposure) Run(ctx context.Context) error {
	timing := keyring.DefaultTiming()
	var file *config.File
	if c.Config != "" {
		var err error
		if file, err = config.Read(c.Config); err != nil {
			return err
		}
		timing = file.KX1()
		if c.State == "" {
			c.State = file.State
		}
	}
	if c.Grants && file == nil {
		return errors.New("--grants asks Kafka\nhint: --config FILE of the sidecar says where it is")
	}
	if c.State == "" {
		return errors.New("no state file\nhint: --state FILE, or --config FILE of the sidecar")
	}
	view, err := viewState(c.State)
	if err != nil {
		return err
	}
	if c.AsOf.IsZero() {
		c.AsOf = time.Now()
	}
	var grants []*wire.Grant
	if c.Grants {
		if grants, err = readGrants(ctx, file, view, timing); err != nil {
			return err
		}
	}
	report, err := hostexposure.Of(view, timing, grants, c.AsOf)
	if err != nil {
		return err
	}
	if c.JSON {
		out := json.NewEncoder(os.Stdout)
		out.SetIndent("", "  ")
		return out.Encode(report)
	}
	return report.WriteText(os.Stdout)
}

// readGrants reads those that may be wrapped for the prekeys held. None is not nil.
func readGrants(ctx context.Context, file *config.File, view keyring.View, timing keyring.Timing) ([]*wire.Grant, error) {
	if len(view.Prekeys) == 0 {
		return []*wire.Grant{}, nil
	}
	kafka, err := file.Kafka()
	if err != nil {
		return nil, err
	}
	grants, err := agent.ReadGrants(ctx, kafka, view.Node, view.Prekeys[0].Created.Add(-timing.Skew))
	return append([]*wire.Grant{}, grants...), err
}

// viewState reads a state file, and warns where others can too.
func viewState(path string) (keyring.View, error) {
	info, err := os.Stat(path)
	if err != nil {
		return keyring.View{}, err
	}
	if perm := info.Mode().Perm(); runtime.GOOS != "windows" && perm&0o077 != 0 {
		fmt.Fprintf(os.Stderr, "warning: %s has mode %04o: other users of this machine can read it\n", path, perm)
	}
	raw, err := os.ReadFile(path)
	defer clear(raw)
	if err != nil {
		return keyring.View{}, err
	}
	state, err := keyring.ParseState(raw)
	if err != nil {
		return keyring.View{}, fmt.Errorf("%s: %w\nhint: name the file that `wasm-e2ee enroll` made", path, err)
	}
	defer state.Wipe()
	return state.View(), nil
}
