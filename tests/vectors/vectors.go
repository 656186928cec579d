// Package vectors is the corpus of scenarios for the module's ABI (abi/SPEC.md): one file
// each, with the kind of outcome it expects. Any implementation of the ABI can be held
// against it; `wasm-e2ee test MODULE.wasm` does. Beside it are the corpora of what nodes and
// issuers refuse on the control topics, of enrolling nodes, and of batches that come again
// (abi/PROTOCOL.md §2.19). The folder internal/generate makes the files, those of batches with
// package reference.
package vectors

import (
	"bytes"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
)

//go:embed data/*.json
var data embed.FS

// A Vector is one call to e2ee_open_batch or e2ee_seal_batch of a fresh instance that was
// configured and given keys, and its outcome. Byte strings are hexadecimal.
type Vector struct {
	Name    string `json:"-"` // of the file, without .json
	Comment string `json:"comment"`

	// What the instance holds. No configuration means a cap of 1 MiB and no rules.
	MaxDecompressed uint32   `json:"maxDecompressed,omitempty"`
	PlainTopics     []string `json:"plainTopics,omitempty"`
	Leases          []Lease  `json:"leases,omitempty"`
	Roots           []Root   `json:"roots,omitempty"`

	// The call.
	Op        Op     `json:"op"`
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Now       uint64 `json:"now,omitempty"` // Unix ms
	Batch     Bytes  `json:"batch"`

	// The outcome. Batch is what an open gives; what a seal gives must open to the batch
	// that went in, under Kid and Leaf.
	Want Want `json:"want"`
}

// An Op is the function that a vector calls.
type Op string

const (
	OpSeal Op = "seal"
	OpOpen Op = "open"
)

// A Want is an outcome.
type Want struct {
	Status    abi.Status `json:"status"`
	Means     string     `json:"means"` // the status in words, for the reader of the file
	Batch     Bytes      `json:"batch,omitempty"`
	Untouched bool       `json:"untouched,omitempty"` // the batch that went in, with FlagUntouched
	Kid       Bytes      `json:"kid,omitempty"`
	Leaf      uint32     `json:"leaf,omitempty"`
	Records   uint32     `json:"records,omitempty"`
}

// A Lease is an abi.Lease.
type Lease struct {
	Kid   Bytes  `json:"kid"`
	UseBy uint64 `json:"useBy"`
	Start uint32 `json:"start"`
	Level uint8  `json:"level"`
	Node  Bytes  `json:"node"`
	Topic string `json:"topic"`
}

// A Root is an abi.Root.
type Root struct {
	Kid   Bytes  `json:"kid"`
	Root  Bytes  `json:"root"`
	Topic string `json:"topic"`
}

// Bytes are bytes that JSON holds as hexadecimal.
type Bytes []byte

func (b Bytes) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(b)), nil }

func (b *Bytes) UnmarshalText(text []byte) (err error) {
	*b, err = hex.DecodeString(string(text))
	return err
}

// All returns the corpus in the order of its names. A file that does not parse, has an
// unknown field or contradicts itself is an error, and so is an empty corpus.
func All() ([]Vector, error) { return load(data) }

func load(files fs.FS) ([]Vector, error) {
	names, err := fs.Glob(files, "data/*.json")
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return nil, errors.New("the corpus of vectors is empty")
	}
	var all []Vector
	for _, name := range names {
		b, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, err
		}
		v, err := parse(b)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		v.Name = strings.TrimSuffix(path.Base(name), ".json")
		all = append(all, v)
	}
	return all, nil
}

func parse(b []byte) (Vector, error) {
	var v Vector
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		return v, err
	}
	if v.Op != OpSeal && v.Op != OpOpen {
		return v, fmt.Errorf("unknown op %q", v.Op)
	}
	if v.Comment == "" || v.Want.Means != v.Want.Status.String() {
		return v, fmt.Errorf("no comment, or status %d is not called %q", v.Want.Status, v.Want.Means)
	}
	if v.MaxDecompressed == 0 {
		v.MaxDecompressed = 1 << 20
	}
	for _, l := range v.Leases {
		if len(l.Kid) != abi.KidSize || len(l.Node) != abi.KeySize {
			return v, errors.New("a lease's kid or node has another size")
		}
	}
	for _, r := range v.Roots {
		if len(r.Kid) != abi.KidSize || len(r.Root) != abi.KeySize {
			return v, errors.New("a root's kid or root has another size")
		}
	}
	return v, nil
}

// Config returns the configuration of the vector's instance.
func (v *Vector) Config() abi.Config {
	c := abi.Config{MaxDecompressed: v.MaxDecompressed}
	for _, topic := range v.PlainTopics {
		c.Rules = append(c.Rules, abi.Rule{Pattern: topic, Mode: abi.ModePlain})
	}
	return c
}

// Block returns the lease's block.
func (l *Lease) Block() []byte {
	block := abi.Lease{
		Kid: abi.Kid(l.Kid), UseBy: l.UseBy, Start: l.Start, Level: l.Level,
		Node: [abi.KeySize]byte(l.Node), Topic: l.Topic,
	}
	return block.Append(nil)
}

// Block returns the root's block.
func (r *Root) Block() []byte {
	block := abi.Root{Kid: abi.Kid(r.Kid), Root: [abi.KeySize]byte(r.Root), Topic: r.Topic}
	return block.Append(nil)
}
