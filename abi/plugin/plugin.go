// Package plugin holds what e2ee.wasm is told by a Proxy-Wasm host such as Envoy: the plugin
// configuration, which is JSON, and the name of the environment variable with the pairing key
// (SPEC.md §8). `wasm-e2ee envoy config` writes it, the module reads it.
//
// It imports the standard library, abi and abi/wire only.
package plugin

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

// KeyVariable is the environment variable of the virtual machine that holds the pairing key,
// as the key's file has it (PROTOCOL.md §2.12). The key stands in no configuration, which
// proxies print on request.
const KeyVariable = "WASM_E2EE_PAIRING_KEY"

// Defaults of what a Config leaves at 0.
const (
	DefaultProduceWait    = 8 * time.Second // inside the smallest time that a Kafka client waits
	DefaultMaxFrameBytes  = 32 << 20        // of what all connections of a worker share
	DefaultMaxMemoryBytes = 256 << 20       // well inside the 4 GiB that its virtual machine can have
)

// A Config is the plugin configuration. It is the same for all listeners of one virtual
// machine. The zero value of an optional field is its default.
type Config struct {
	Realm          string  `json:"realm"`                      // realm id: 32 hexadecimal digits
	AgentCluster   string  `json:"agent_cluster"`              // the proxy's name for `wasm-e2ee agent`
	Brokers        Brokers `json:"brokers"`                    // where clients reach each broker
	Policy         Policy  `json:"policy"`                     //
	ProduceWaitMs  uint64  `json:"produce_wait_ms,omitempty"`  // how long a Produce waits for its lease
	MaxFrameBytes  int     `json:"max_frame_bytes,omitempty"`  // of one request or response
	MaxMemoryBytes int     `json:"max_memory_bytes,omitempty"` // of what all connections of one worker hold
}

// Brokers says where clients reach each broker through the proxy: by id, and for ids that are
// not listed by a rule, broker n at Host:BasePort+n.
type Brokers struct {
	ByID     map[int32]string `json:"by_id,omitempty"` // HOST:PORT
	Host     string           `json:"host,omitempty"`
	BasePort int32            `json:"base_port,omitempty"`
}

// Policy is the data plane's share of the agent's policy, in its words.
type Policy struct {
	Plain        []string `json:"plain,omitempty"`         // topics that are passed through untouched: names, or prefixes that end in "*"
	OnUnreadable string   `json:"on_unreadable,omitempty"` // stop (default) or skip
}

// Parse reads, completes and checks a configuration. A key that is not known is an error, since
// a misspelt policy must not turn into a weaker one.
func Parse(text []byte) (*Config, error) {
	c := &Config{}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(c); err != nil {
		return nil, fmt.Errorf("plugin configuration: %w (hint: `wasm-e2ee envoy config` writes one)", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("plugin configuration: something follows it")
	}
	if c.ProduceWaitMs == 0 {
		c.ProduceWaitMs = uint64(DefaultProduceWait.Milliseconds())
	}
	if c.MaxFrameBytes == 0 {
		c.MaxFrameBytes = DefaultMaxFrameBytes
	}
	if c.MaxMemoryBytes == 0 {
		c.MaxMemoryBytes = DefaultMaxMemoryBytes
	}
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("plugin configuration: %w", err)
	}
	return c, nil
}

func (c *Config) check() error {
	if _, err := c.RealmID(); err != nil {
		return err
	}
	if c.AgentCluster == "" {
		return errors.New("agent_cluster is empty: without an agent there are no keys")
	}
	if c.Brokers.BasePort < 0 || c.Brokers.BasePort > 65535 || (c.Brokers.BasePort == 0) != (c.Brokers.Host == "") {
		return errors.New("brokers: host and base_port go together")
	}
	if len(c.Brokers.ByID) == 0 && c.Brokers.BasePort == 0 {
		return errors.New("brokers is empty: clients would be told the brokers' own addresses, and go around the encryption")
	}
	for id, address := range c.Brokers.ByID {
		if _, _, err := SplitAddress(address); err != nil || id < 0 {
			return fmt.Errorf("brokers.by_id: broker %d at %q: not HOST:PORT", id, address)
		}
	}
	if p := c.Policy.OnUnreadable; p != "" && p != "stop" && p != "skip" {
		return fmt.Errorf("policy.on_unreadable %q is neither stop nor skip", p)
	}
	if c.MaxFrameBytes < 1<<10 || c.MaxMemoryBytes < 2*c.MaxFrameBytes {
		return errors.New("max_frame_bytes is below 1024, or max_memory_bytes below two frames")
	}
	_, err := c.Rules()
	return err
}

// RealmID returns the realm that the data plane belongs to.
func (c *Config) RealmID() (id wire.RealmID, err error) {
	b, err := hex.DecodeString(c.Realm)
	if err != nil || len(b) != len(id) {
		return id, fmt.Errorf("realm %q is not %d hexadecimal digits", c.Realm, 2*len(id))
	}
	return wire.RealmID(b), nil
}

// Rules returns the policy's plain topics as the filter takes them.
func (c *Config) Rules() ([]abi.Rule, error) {
	var rules []abi.Rule
	for _, text := range c.Policy.Plain {
		p, err := wire.ParsePattern(text)
		if err != nil {
			return nil, fmt.Errorf("policy.plain: %w", err)
		}
		rules = append(rules, abi.Rule{Prefix: p.Prefix, Pattern: p.Name, Mode: abi.ModePlain})
	}
	return rules, nil
}

// SplitAddress splits HOST:PORT. (Package net is not for a module: it brings sockets along.)
func SplitAddress(address string) (host string, port int32, err error) {
	at := strings.LastIndexByte(address, ':')
	n, err := strconv.ParseUint(address[at+1:], 10, 16)
	if at <= 0 || err != nil || n == 0 {
		return "", 0, fmt.Errorf("%q is not HOST:PORT", address)
	}
	host = address[:at]
	if inner, ok := strings.CutPrefix(host, "["); ok && strings.HasSuffix(inner, "]") {
		host = inner[:len(inner)-1]
	} else if strings.ContainsAny(host, ":[]") {
		return "", 0, fmt.Errorf("%q is not HOST:PORT (hint: an IPv6 address stands in brackets)", address)
	}
	return host, int32(n), nil
}

// Append appends the configuration as Parse reads it.
func (c *Config) Append(b []byte) ([]byte, error) {
	text, err := json.MarshalIndent(c, "", "  ")
	return append(b, text...), err
}
