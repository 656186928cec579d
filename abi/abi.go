// Package abi is the contract between e2ee.wasm and whatever loads it: the names of the
// exported functions, the status numbers, and the blocks of bytes that cross the
// boundary. SPEC.md is its prose. It imports the standard library only, does no I/O and
// holds no state.
//
// Integers inside blocks are little-endian, as WebAssembly's memory is; everything that
// outlives a process (package wire) is big-endian, as KX1 is.
package abi

import (
	"encoding/binary"
	"errors"
)

// Version is what e2ee_abi_version returns. It grows when a signature or a block changes.
const Version = 1

// Names of the exports (SPEC.md §3).
const (
	FuncVersion      = "e2ee_abi_version"
	FuncAlloc        = "e2ee_alloc"
	FuncFree         = "e2ee_free"
	FuncConfigure    = "e2ee_configure"
	FuncInstallLease = "e2ee_install_lease"
	FuncInstallRoot  = "e2ee_install_root"
	FuncErase        = "e2ee_erase"
	FuncSealBatch    = "e2ee_seal_batch"
	FuncOpenBatch    = "e2ee_open_batch"
	FuncCounters     = "e2ee_counters"
)

// KeySize is the size of a tree node, a root and a leaf key in bytes.
const KeySize = 32

// KidSize is the size of a kid in bytes (PROTOCOL.md §2.3).
const KidSize = 8

// TreeDepth is the number of levels below a root (PROTOCOL.md §2.3).
const TreeDepth = 24

// ControlPrefix begins the names of the control topics, whatever the policy says of them
// (SPEC.md §6.3). Clients may read them and not produce to them.
const ControlPrefix = "_e2ee."

// MaxTopicLen is Kafka's limit on the length of a topic name in bytes.
const MaxTopicLen = 249

// ErrBlock is returned by every Parse function of this package: the bytes are not a block
// of the kind asked for, or something follows it.
var ErrBlock = errors.New("abi: malformed block")

// A Kid names one (producing instance, topic, epoch). It is a lookup hint and public.
type Kid [KidSize]byte

// A Lease hands a data plane one subtree of an epoch's tree, for sealing.
//
//	 8b: kid
//	 8b: useBy, Unix ms; nothing is sealed after it
//	 4b: start, the first leaf of the subtree
//	 1b: level of node, 0 (root) to 24 (leaf); the subtree has 2^(24-level) leaves
//	32b: node, SECRET
//	 2b: length of topic, then its bytes
type Lease struct {
	Kid   Kid
	UseBy uint64
	Start uint32
	Level uint8
	Node  [KeySize]byte
	Topic string
}

// Append appends the lease's block to b.
func (l *Lease) Append(b []byte) []byte {
	b = append(b, l.Kid[:]...)
	b = binary.LittleEndian.AppendUint64(b, l.UseBy)
	b = binary.LittleEndian.AppendUint32(b, l.Start)
	b = append(b, l.Level)
	b = append(b, l.Node[:]...)
	return appendString(b, l.Topic)
}

// ParseLease reads exactly one lease from b. The topic must be 1 to 249 bytes, the level at
// most 24, and the start a multiple of the subtree's size.
func ParseLease(b []byte) (Lease, error) {
	var l Lease
	if len(b) < 8+8+4+1+KeySize {
		return l, ErrBlock
	}
	copy(l.Kid[:], b)
	l.UseBy = binary.LittleEndian.Uint64(b[8:])
	l.Start = binary.LittleEndian.Uint32(b[16:])
	l.Level = b[20]
	topic, ok := lastString(b[21+KeySize:])
	if !ok || l.Level > TreeDepth || l.Start >= 1<<TreeDepth || l.Start&(1<<(TreeDepth-l.Level)-1) != 0 {
		return l, ErrBlock
	}
	copy(l.Node[:], b[21:])
	l.Topic = topic
	return l, nil
}

// A Root hands a data plane one epoch's root of one topic, for opening.
//
//	 8b: kid
//	32b: root, SECRET
//	 2b: length of topic, then its bytes
type Root struct {
	Kid   Kid
	Root  [KeySize]byte
	Topic string
}

// Append appends the root's block to b.
func (r *Root) Append(b []byte) []byte {
	b = append(b, r.Kid[:]...)
	b = append(b, r.Root[:]...)
	return appendString(b, r.Topic)
}

// ParseRoot reads exactly one root from b. The topic must be 1 to 249 bytes.
func ParseRoot(b []byte) (Root, error) {
	var r Root
	if len(b) < KidSize+KeySize {
		return r, ErrBlock
	}
	topic, ok := lastString(b[KidSize+KeySize:])
	if !ok {
		return r, ErrBlock
	}
	copy(r.Kid[:], b)
	copy(r.Root[:], b[KidSize:])
	r.Topic = topic
	return r, nil
}

// A Mode says what happens to a topic's batches.
type Mode uint8

const (
	ModeEncrypted Mode = 0 // sealed on the way in; only sealed batches are opened on the way out
	ModePlain     Mode = 1 // passed through untouched in both directions
)

// String names the mode as policy files write it.
func (m Mode) String() string {
	switch m {
	case ModeEncrypted:
		return "encrypted"
	case ModePlain:
		return "plain"
	}
	return "unknown mode"
}

// A Rule gives the mode of the topics that a pattern matches. The longest matching pattern
// wins, an exact one before a prefix of the same length.
type Rule struct {
	Prefix  bool   // Pattern is a prefix of topic names rather than a whole name
	Pattern string // 0 (with Prefix: every topic) to 249 bytes
	Mode    Mode
}

// A Config is what e2ee_configure takes. A topic that no rule matches is encrypted.
//
//	4b: maxDecompressed, the cap in bytes on one decompressed record section
//	2b: number of rules, then each:
//	    1b: 0 exact, 1 prefix
//	    1b: mode
//	    2b: length of pattern, then its bytes
type Config struct {
	MaxDecompressed uint32
	Rules           []Rule
}

// Append appends the configuration's block to b.
func (c *Config) Append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, c.MaxDecompressed)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(c.Rules)))
	for _, r := range c.Rules {
		kind := byte(0)
		if r.Prefix {
			kind = 1
		}
		b = append(b, kind, byte(r.Mode))
		b = appendString(b, r.Pattern)
	}
	return b
}

// ParseConfig reads exactly one configuration from b. Unknown modes and kinds are refused,
// so that a newer policy never turns into a weaker one.
func ParseConfig(b []byte) (Config, error) {
	var c Config
	if len(b) < 6 {
		return c, ErrBlock
	}
	c.MaxDecompressed = binary.LittleEndian.Uint32(b)
	n := int(binary.LittleEndian.Uint16(b[4:]))
	b = b[6:]
	for range n {
		if len(b) < 4 || b[0] > 1 || Mode(b[1]) > ModePlain {
			return Config{}, ErrBlock
		}
		r := Rule{Prefix: b[0] == 1, Mode: Mode(b[1])}
		size := int(binary.LittleEndian.Uint16(b[2:]))
		b = b[4:]
		if size > len(b) || size > MaxTopicLen || size == 0 && !r.Prefix {
			return Config{}, ErrBlock
		}
		r.Pattern, b = string(b[:size]), b[size:]
		c.Rules = append(c.Rules, r)
	}
	if len(b) != 0 {
		return Config{}, ErrBlock
	}
	return c, nil
}

// Mode returns the mode of a topic: the longest matching pattern's, or ModeEncrypted where
// none matches.
func (c *Config) Mode(topic string) Mode {
	mode, best := ModeEncrypted, -1
	for _, r := range c.Rules {
		score := 2 * len(r.Pattern)
		if !r.Prefix {
			score++
		}
		match := topic == r.Pattern || r.Prefix && len(topic) >= len(r.Pattern) && topic[:len(r.Pattern)] == r.Pattern
		if match && score > best {
			mode, best = r.Mode, score
		}
	}
	return mode
}

// ResultSize is the size of a Result block in bytes.
const ResultSize = 24

// A Result is what e2ee_seal_batch and e2ee_open_batch write beside their status.
//
//	4b: length of the batch now in the buffer; with StatusNeedSpace the capacity wanted
//	4b: flags
//	8b: kid used, or wanted with StatusNeedRoot; zeros where none was involved
//	4b: leaf
//	4b: records in the batch
type Result struct {
	Length  uint32
	Flags   uint32
	Kid     Kid
	Leaf    uint32
	Records uint32
}

// FlagUntouched says that the batch passed as it was: a control batch, an empty batch, or
// a topic whose mode is plain.
const FlagUntouched = 1

// Put writes the result into b, which must hold ResultSize bytes.
func (r *Result) Put(b []byte) {
	_ = b[ResultSize-1]
	binary.LittleEndian.PutUint32(b, r.Length)
	binary.LittleEndian.PutUint32(b[4:], r.Flags)
	copy(b[8:16], r.Kid[:])
	binary.LittleEndian.PutUint32(b[16:], r.Leaf)
	binary.LittleEndian.PutUint32(b[20:], r.Records)
}

// ParseResult reads a result from b, which must be ResultSize bytes.
func ParseResult(b []byte) (Result, error) {
	if len(b) != ResultSize {
		return Result{}, ErrBlock
	}
	r := Result{
		Length:  binary.LittleEndian.Uint32(b),
		Flags:   binary.LittleEndian.Uint32(b[4:]),
		Leaf:    binary.LittleEndian.Uint32(b[16:]),
		Records: binary.LittleEndian.Uint32(b[20:]),
	}
	copy(r.Kid[:], b[8:])
	return r, nil
}

// A Counter indexes what e2ee_counters writes: one u64 each, in this order, since start.
type Counter int

const (
	CounterSealedBatches Counter = iota
	CounterSealedRecords
	CounterSealedBytes // of the client's batches, before sealing
	CounterOpenedBatches
	CounterOpenedRecords
	CounterOpenedBytes // of the client's batches, after opening
	CounterPassedBatches
	CounterRefusedBatches // seal or open answered with a status from 16 to 31
	CounterLeases         // held now
	CounterRoots          // held now
	CounterErased         // leases and roots erased
	NumCounters
)

func appendString(b []byte, s string) []byte {
	b = binary.LittleEndian.AppendUint16(b, uint16(len(s)))
	return append(b, s...)
}

// lastString reads a topic name that ends the block.
func lastString(b []byte) (string, bool) {
	if len(b) < 2 {
		return "", false
	}
	n := int(binary.LittleEndian.Uint16(b))
	if n == 0 || n > MaxTopicLen || len(b) != 2+n {
		return "", false
	}
	return string(b[2:]), true
}
