package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/host/config"
	hostexposure "github.com/wasm-e2ee/wasm-e2ee/host/exposure"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

type exposure struct {
	State  string    `type:"path" placeholder:"FILE" help:"The node's state file; default: the configuration's. Its sidecar may be running."`
	Config string    `type:"path" placeholder:"FILE" help:"The sidecar's configuration, for its timing; default: the default timing."`
	AsOf   time.Time `placeholder:"TIME" help:"Report as of this time, such as 2026-01-02T15:04:05Z, on what the file holds today; default: now."`
	JSON   bool      `name:"json" help:"Print JSON."`
}

// Run takes no lock and writes nothing: the file is only ever replaced as a whole, so that
// it can be read while a sidecar owns it.
func (c *exposure) Run() error {
	timing := keyring.DefaultTiming()
	if c.Config != "" {
		file, err := config.Read(c.Config)
		if err != nil {
			return err
		}
		timing = file.KX1()
		if c.State == "" {
			c.State = file.State
		}
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
	report, err := hostexposure.Of(view, timing, nil, c.AsOf)
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
