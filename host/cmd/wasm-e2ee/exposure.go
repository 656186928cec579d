package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/agent"
	"github.com/wasm-e2ee/wasm-e2ee/host/config"
	hostexposure "github.com/wasm-e2ee/wasm-e2ee/host/exposure"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

type exposure struct {
	Agent   string    `placeholder:"URL" help:"Ask a running sidecar where it serves metrics, such as http://127.0.0.1:9464; its memory is reported too."`
	State   string    `type:"path" placeholder:"FILE" help:"The node's state file; default: the configuration's. Its sidecar may be running."`
	Config  string    `type:"path" placeholder:"FILE" help:"The sidecar's configuration, for its timing; default: the default timing."`
	AsOf    time.Time `placeholder:"TIME" help:"Report as of this time, such as 2026-01-02T15:04:05Z, on what the file holds today; default: now."`
	Grants  bool      `help:"Also read the grants from the configuration's Kafka, to list the epochs that each prekey opens; needs --config."`
	Offsets bool      `help:"Also read the exposed topics from the configuration's Kafka, from their start, to list at which offsets each epoch's records are; needs --config."`
	JSON    bool      `name:"json" help:"Print JSON."`
}

// Run takes no lock and writes nothing: the file is only ever replaced as a whole, so that
// it can be read while a sidecar owns it.
func (c *exposure) Run(ctx context.Context) error {
	report, err := c.report(ctx)
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

func (c *exposure) report(ctx context.Context) (*hostexposure.Report, error) {
	if c.Agent != "" {
		if c.State != "" || c.Config != "" || c.Grants || c.Offsets {
			return nil, errors.New("--agent asks a running sidecar, the other flags look at files and Kafka\nhint: either the one or the others")
		}
		return askAgent(ctx, c.Agent, c.AsOf)
	}
	timing := keyring.DefaultTiming()
	var file *config.File
	if c.Config != "" {
		var err error
		if file, err = config.Read(c.Config); err != nil {
			return nil, err
		}
		timing = file.KX1()
		if c.State == "" {
			c.State = file.State
		}
	}
	if (c.Grants || c.Offsets) && file == nil {
		return nil, errors.New("--grants and --offsets ask Kafka\nhint: --config FILE of the sidecar says where it is")
	}
	if c.State == "" {
		return nil, errors.New("no state file\nhint: --state FILE, --config FILE of the sidecar, or --agent URL of a running one")
	}
	view, err := viewState(c.State)
	if err != nil {
		return nil, err
	}
	if c.AsOf.IsZero() {
		c.AsOf = time.Now()
	}
	var grants []*wire.Grant
	var shares []*wire.KeyShare
	if c.Grants {
		if grants, shares, err = readGrants(ctx, file, view, timing); err != nil {
			return nil, err
		}
	}
	report, err := hostexposure.Of(view, timing, grants, c.AsOf)
	if err != nil {
		return nil, err
	}
	report.AddShares(shares)
	if c.Offsets {
		err = addOffsets(ctx, file, report)
	}
	return report, err
}

// addOffsets reads where the records of the exposed epochs are.
func addOffsets(ctx context.Context, file *config.File, report *hostexposure.Report) error {
	kafka, err := file.Kafka()
	if err != nil {
		return err
	}
	spans, err := agent.ReadOffsets(ctx, kafka, report.Topics())
	if err != nil {
		return err
	}
	found := make(map[string]map[int32]hostexposure.Range, len(spans))
	for kid, partitions := range spans {
		ranges := make(map[int32]hostexposure.Range, len(partitions))
		for p, s := range partitions {
			ranges[p] = hostexposure.Range(s)
		}
		found[hex.EncodeToString(kid[:])] = ranges
	}
	report.AddOffsets(func(kid string) map[int32]hostexposure.Range { return found[kid] })
	return nil
}

// answerLimit bounds a running sidecar's answer in time, and in bytes: 2^20 keys with room.
const (
	answerLimit = time.Minute
	answerBytes = 1 << 30
)

// askAgent gets the report of a running sidecar, as of a time or, for the zero time, now.
func askAgent(ctx context.Context, base string, asOf time.Time) (*hostexposure.Report, error) {
	const hint = "hint: the sidecar's configuration needs `metrics: {listen: 127.0.0.1:9464}`, and --agent http://127.0.0.1:9464 that address"
	at, err := url.Parse(base)
	if err != nil || at.Scheme != "http" && at.Scheme != "https" || at.Host == "" {
		return nil, fmt.Errorf("--agent %s is not an address\n%s", base, hint)
	}
	at = at.JoinPath("exposure")
	if !asOf.IsZero() {
		at.RawQuery = url.Values{"as_of": {asOf.Format(time.RFC3339)}}.Encode()
	}
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, fmt.Errorf("sidecar: %w\n%s", err, hint)
	}
	defer response.Body.Close()
	body := io.LimitReader(response.Body, answerBytes)
	if response.StatusCode != http.StatusOK {
		why, _ := io.ReadAll(io.LimitReader(body, 1000)) // what there is of it
		return nil, fmt.Errorf("sidecar at %s: %s: %s\n%s", at.Host, response.Status, strings.TrimSpace(string(why)), hint)
	}
	report := &hostexposure.Report{}
	if err := json.NewDecoder(body).Decode(report); err != nil {
		return nil, fmt.Errorf("sidecar at %s: its answer is not a report: %w\n%s", at.Host, err, hint)
	}
	return report, nil
}

// readGrants reads what may be wrapped for the prekeys held. No grants are not nil.
func readGrants(ctx context.Context, file *config.File, view keyring.View, timing keyring.Timing) ([]*wire.Grant, []*wire.KeyShare, error) {
	if len(view.Prekeys) == 0 {
		return []*wire.Grant{}, nil, nil
	}
	kafka, err := file.Kafka()
	if err != nil {
		return nil, nil, err
	}
	grants, shares, err := agent.ReadGrants(ctx, kafka, view.Node, view.Prekeys[0].Created.Add(-timing.Skew))
	return append([]*wire.Grant{}, grants...), shares, err
}

// viewState reads a state file, and warns where others can too.
func viewState(path string) (keyring.View, error) {
	info, err := os.Stat(path)
	if err != nil {
		return keyring.View{}, err
	}
	if info.IsDir() {
		return keyring.View{}, fmt.Errorf("%s is a directory\nhint: --state names the state file in it, such as %s", path, filepath.Join(path, "node.state"))
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
