package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/wasm-e2ee/wasm-e2ee/host/config"
	hostenvoy "github.com/wasm-e2ee/wasm-e2ee/host/envoy"
	"github.com/wasm-e2ee/wasm-e2ee/host/sidecar"
)

type envoyConfig struct {
	Config    string   `required:"" type:"path" placeholder:"FILE" help:"The agent's YAML file. As with a sidecar, listen, advertised_host, client_tls, policy and module say how clients are served."`
	Out       string   `required:"" short:"o" type:"path" placeholder:"FILE" help:"Write the configuration to this new file."`
	Replace   bool     `help:"Replace a file that is there, once the new one is found good."`
	Bootstrap []string `placeholder:"HOST:PORT" help:"Brokers to begin with; default: the configuration's. May be repeated."`
	Admin     string   `default:"${envoyAdmin}" placeholder:"ADDRESS" help:"Where Envoy serves statistics: IP:PORT on loopback, or unix:/path. Default: ${default}."`
	Envoy     string   `type:"path" placeholder:"FILE" help:"The Envoy that is to accept the configuration; default: the one on the PATH, if any."`
}

func (c *envoyConfig) Run(ctx context.Context) error {
	file, err := config.Read(c.Config)
	if err != nil {
		return err
	}
	if err := file.CheckAgent(); err != nil {
		return err
	}
	if _, err := os.Lstat(c.Out); err == nil && !c.Replace {
		return fmt.Errorf("%s is there\nhint: --replace, or move it away first", c.Out)
	}
	if len(c.Bootstrap) > 0 {
		file.Bootstrap = c.Bootstrap
	}
	spec := hostenvoy.Spec{File: file, Admin: c.Admin}
	// No lock is taken: the state is only ever replaced as a whole, and an agent may own it.
	if spec.Node, err = viewState(file.State); err != nil {
		return err
	}
	path, err := sidecar.ModulePath(file.Module)
	if err != nil {
		return err
	}
	wasm, err := sidecar.FindModule(path)
	if err != nil {
		return err
	}
	if spec.Module, err = hostenvoy.ReadModule(ctx, path, wasm); err != nil {
		return err
	}
	if spec.Cluster, err = hostenvoy.Discover(ctx, &file.Cluster); err != nil {
		return err
	}
	binary, err := hostenvoy.Find(c.Envoy)
	if err != nil && c.Envoy != "" {
		return err
	}
	verdict := "checked by our own rules alone: no envoy is on the PATH, and --envoy names none"
	if err == nil {
		if spec.Envoy, err = hostenvoy.Version(ctx, binary); err != nil {
			return err
		}
		verdict = fmt.Sprintf("checked by our own rules and by Envoy %s (%s), which loaded the module", spec.Envoy, binary)
	}
	text, err := hostenvoy.Write(spec)
	if err != nil {
		return err
	}
	if err := c.keep(ctx, binary, text); err != nil {
		return err
	}
	fmt.Printf("%s: Kafka cluster %s, %d broker(s), node %s\n%s\nnext: WASM_E2EE_PAIRING_KEY=\"$(cat %s)\" envoy -c %s\n",
		c.Out, spec.Cluster.Cluster, len(spec.Cluster.Brokers), spec.Node.Node, verdict, file.Agent.PairingKeyFile, c.Out)
	return nil
}

// keep puts the configuration into its place once the Envoy at binary, "" for none, has accepted
// it.
func (c *envoyConfig) keep(ctx context.Context, binary string, text []byte) error {
	// Envoy goes by the end of a file's name.
	draft, err := os.CreateTemp(filepath.Dir(c.Out), ".envoy-*.yaml")
	if err != nil {
		return err
	}
	defer os.Remove(draft.Name())
	_, err = draft.Write(text)
	if err = errors.Join(err, draft.Chmod(0o644), draft.Sync(), draft.Close()); err != nil {
		return err
	}
	if binary != "" {
		if err := hostenvoy.Validate(ctx, binary, draft.Name()); err != nil {
			return err
		}
	}
	if c.Replace {
		return os.Rename(draft.Name(), c.Out)
	}
	return writeNew(c.Out, text, 0o644)
}
