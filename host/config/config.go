// Package config reads the YAML file of `wasm-e2ee proxy` and `wasm-e2ee agent`. Each key has a unit and a
// default; a key that is not known is an error, since a misspelt policy must not turn into
// a weaker one. No key turns protection off for a topic without naming the topic.
package config

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// A File is the whole configuration. Relative paths in it are relative to the file.
type File struct {
	Cluster        `yaml:",inline"`
	Listen         string        `yaml:"listen"`          // the bootstrap address for local clients; default 127.0.0.1:19092
	AdvertisedHost string        `yaml:"advertised_host"` // the host that clients are told; default: the address they came in on
	State          string        `yaml:"state"`           // the node's state file, from `wasm-e2ee enroll`
	Module         string        `yaml:"module"`          // e2ee.wasm; default: beside the executable
	CacheDir       string        `yaml:"cache_dir"`       // of compiled code; default: the user's cache directory
	ProduceWait    time.Duration `yaml:"produce_wait"`    // how long a Produce waits for its epoch; default 8s
	ClientTLS      ClientTLS     `yaml:"client_tls"`      // on the local side
	Policy         Policy        `yaml:"policy"`
	Timing         Timing        `yaml:"timing"`
	Metrics        Metrics       `yaml:"metrics"`
	Agent          Agent         `yaml:"agent"`
	Log            Log           `yaml:"log"`
}

// ClientTLS is what the local side serves; without it local clients connect in plain.
type ClientTLS struct {
	Cert string `yaml:"cert"` // PEM file
	Key  string `yaml:"key"`  // PEM file
}

// Policy says what happens to which topics. A pattern is a topic's name, or a prefix that
// ends in "*". Topics that no pattern matches are encrypted.
type Policy struct {
	Plain         []string            `yaml:"plain"`          // passed through untouched
	RequireGroups map[string][]string `yaml:"require_groups"` // topic pattern: groups that must be able to read before anything is produced
	OnUnreadable  OnUnreadable        `yaml:"on_unreadable"`  // what becomes of a batch that will never open: stop (default) or skip
	Replay        time.Duration       `yaml:"replay"`         // how long groups may seek back to what they are past; default: the profile strict
	Freshness     Freshness           `yaml:"freshness"`      // what becomes of new epochs while it is not known who is revoked: warn (default) or require
}

// Timing overrides PROTOCOL.md §2.17; zero keeps a default.
type Timing struct {
	Epoch          time.Duration `yaml:"epoch"`
	Lead           time.Duration `yaml:"lead"`
	PrekeyRotation time.Duration `yaml:"prekey_rotation"`
	PrekeyGrace    time.Duration `yaml:"prekey_grace"`
	Skew           time.Duration `yaml:"skew"`
	Settle         time.Duration `yaml:"settle"`
	Window         time.Duration `yaml:"window"`
	HardCap        time.Duration `yaml:"hard_cap"`
	Offline        time.Duration `yaml:"offline"`
}

// Metrics is where metrics, probes and the exposure report are served, over plain HTTP and to
// whoever asks: on loopback, unless the network in front of it is closed.
type Metrics struct {
	Listen string `yaml:"listen"` // HOST:PORT; default: not at all
}

// Log is what goes to standard error.
type Log struct {
	Level  slog.Level `yaml:"level"`  // debug, info (default), warn or error
	Format string     `yaml:"format"` // text (default) or json
}

// Read reads, completes and checks the file at path.
func Read(path string) (*File, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w\nhint: examples/sidecar has one to start from", err)
	}
	f := &File{Listen: "127.0.0.1:19092"}
	err = yaml.NewDecoder(bytes.NewReader(raw), yaml.DisallowUnknownField(), yaml.CustomUnmarshaler(duration)).Decode(f)
	if err != nil && !errors.Is(err, io.EOF) { // EOF: an empty file
		return nil, fmt.Errorf("configuration %s: %w\nhint: the keys are listed in examples/sidecar/README.md", path, err)
	}
	beside(path, append(f.Cluster.files(), &f.State, &f.Module, &f.CacheDir, &f.ClientTLS.Cert, &f.ClientTLS.Key, &f.Agent.PairingKeyFile)...)
	if err := f.check(); err != nil {
		return nil, fmt.Errorf("configuration %s: %w", path, err)
	}
	return f, nil
}

// duration reads "90s" or "3m". A number has no unit, and is refused.
func duration(to *time.Duration, text []byte) error {
	value := strings.Trim(strings.TrimSpace(string(text)), `"'`)
	d, err := time.ParseDuration(value)
	if err != nil {
		return fmt.Errorf("%q is not a duration such as 500ms, 90s, 3m or 72h", value)
	}
	*to = d
	return nil
}

func (f *File) check() error {
	if err := f.Cluster.check(); err != nil {
		return err
	}
	if err := checkAddress(f.Listen); err != nil {
		return err
	}
	if f.Metrics.Listen != "" {
		if err := checkAddress(f.Metrics.Listen); err != nil {
			return fmt.Errorf("metrics.listen: %w", err)
		}
	}
	if err := f.Agent.check(); err != nil {
		return err
	}
	switch {
	case f.State == "":
		return errors.New("state is empty\nhint: state: node.state, the file that `wasm-e2ee enroll` wrote")
	case (f.ClientTLS.Cert == "") != (f.ClientTLS.Key == ""):
		return errors.New("cert and key go together")
	case f.ProduceWait < 0:
		return errors.New("produce_wait must not be negative")
	case f.Log.Format != "" && f.Log.Format != "text" && f.Log.Format != "json":
		return fmt.Errorf("log.format %q is neither text nor json", f.Log.Format)
	}
	if _, err := f.Policy.Config(); err != nil {
		return err
	}
	if err := f.checkProfile(); err != nil {
		return err
	}
	return f.KX1().Validate()
}

// maxDecompressed caps in bytes what one batch may inflate to, in the module.
const maxDecompressed = 128 << 20

// Config is the module's share of the policy.
func (p Policy) Config() (abi.Config, error) {
	c := abi.Config{MaxDecompressed: maxDecompressed}
	for _, text := range p.Plain {
		pattern, err := wire.ParsePattern(text)
		if err != nil {
			return c, fmt.Errorf("policy.plain: %w", err)
		}
		c.Rules = append(c.Rules, abi.Rule{Prefix: pattern.Prefix, Pattern: pattern.Name, Mode: abi.ModePlain})
	}
	for text, groups := range p.RequireGroups {
		if _, err := wire.ParsePattern(text); err != nil {
			return c, fmt.Errorf("policy.require_groups: %w", err)
		}
		if len(groups) == 0 {
			return c, fmt.Errorf("policy.require_groups: %s names no group", text)
		}
	}
	return c, nil
}

// Groups returns the groups without which topic must not be produced to: those of every
// pattern that matches it.
func (p Policy) Groups(topic string) []string {
	var groups []string
	for text, names := range p.RequireGroups {
		if pattern, err := wire.ParsePattern(text); err == nil && pattern.Match(topic) {
			groups = append(groups, names...)
		}
	}
	slices.Sort(groups)
	return slices.Compact(groups)
}

// KX1 is the protocol's timing with the file's overrides.
func (f *File) KX1() keyring.Timing {
	t := keyring.DefaultTiming()
	for _, o := range []struct{ to, from *time.Duration }{
		{&t.Epoch, &f.Timing.Epoch}, {&t.Lead, &f.Timing.Lead},
		{&t.PrekeyRotation, &f.Timing.PrekeyRotation}, {&t.PrekeyGrace, &f.Timing.PrekeyGrace},
		{&t.Skew, &f.Timing.Skew}, {&t.Settle, &f.Timing.Settle}, {&t.Window, &f.Timing.Window},
		{&t.HardCap, &f.Timing.HardCap}, {&t.Offline, &f.Timing.Offline},
	} {
		if *o.from != 0 {
			*o.to = *o.from
		}
	}
	if f.Policy.Replay != 0 {
		t.Window = f.Policy.Replay
	}
	return t
}

// LocalTLS is the TLS configuration towards local clients, nil for plain connections.
func (f *File) LocalTLS() (*tls.Config, error) {
	if f.ClientTLS.Cert == "" {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(f.ClientTLS.Cert, f.ClientTLS.Key)
	if err != nil {
		return nil, fmt.Errorf("client_tls: %w", err)
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}}, nil
}

// Logger writes to standard error as the file says.
func (l Log) Logger() *slog.Logger {
	opts := &slog.HandlerOptions{Level: l.Level}
	if l.Format == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, opts))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, opts))
}
