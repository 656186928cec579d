// Package envoy is what a stream proxy such as Envoy needs beyond sealing and opening: it
// follows one Kafka connection through both of its byte streams, pairs requests with
// responses, seals Produce, opens Fetch and ShareFetch, narrows ApiVersions, and rewrites
// every broker address (PROTOCOL.md §2.4, KIP-896). It holds the module's end of the key
// channel too (PROTOCOL.md §2.12).
//
// It knows nothing of Envoy: bytes and times in, bytes out. No I/O, no goroutines, no clock;
// everything is for one caller at a time. Two of its rules come from there, though. What a
// client sent may wait, and go on at any time; what a broker sent may not, since it could
// never be resumed. And nothing can be written to a client while its broker is silent.
package envoy

import (
	"fmt"
	"strings"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/plugin"
	"github.com/wasm-e2ee/wasm-e2ee/module/filter"
)

const (
	// The defaults are those of the plugin configuration: in ms, and in bytes.
	DefaultProduceWait = uint64(plugin.DefaultProduceWait / time.Millisecond)
	DefaultMaxFrame    = plugin.DefaultMaxFrameBytes
	DefaultMaxMemory   = plugin.DefaultMaxMemoryBytes

	// fetchHold in ms is long enough for a grant that is under way and short enough that no
	// client gives up.
	fetchHold = 500

	// maxPending bounds the requests of one stream that wait for an answer; beyond it no
	// further one is forwarded.
	maxPending = 128
)

// A Config says how a Worker treats its streams.
type Config struct {
	Brokers     Brokers
	ProduceWait uint64 // ms that a Produce may wait for a lease; 0 is DefaultProduceWait
	MaxFrame    int    // bytes of one request or response; 0 is DefaultMaxFrame

	// NamesOnly ends Produce and Fetch where topics have ids instead of names. It must be set
	// where any topic is plain: a client may bring an id along that it was told before this
	// worker began, and a broker that now gives it to a plain topic would get its records as
	// they are.
	NamesOnly bool

	// SkipUnreadable passes over batches that will never open instead of stopping at them
	// (PROTOCOL.md §2.8.5, on_unreadable). History is passed over in any case.
	SkipUnreadable bool

	MaxMemory int    // bytes that all streams of the worker may hold; 0 is DefaultMaxMemory
	Shared    Shared // what the workers of one proxy see together; nil where there is one only

	// Event is told what belongs into the log, and may not call back; nil is nobody.
	Event func(Event)
}

// A Worker is what the streams of one virtual machine share: the filter and its keys, and
// with other workers the names of topic ids and what was opened.
type Worker struct {
	cfg    Config
	filter *filter.Filter
	keys   *Keys
	topics topics
	stats  Stats
	memory int // bytes that streams hold
	spares spares
}

// NewWorker returns a worker that seals and opens through f, and asks keys for what f lacks. Of
// several workers that share data the first is made before the others.
func NewWorker(cfg Config, f *filter.Filter, keys *Keys) *Worker {
	if cfg.ProduceWait == 0 {
		cfg.ProduceWait = DefaultProduceWait
	}
	if cfg.MaxFrame == 0 {
		cfg.MaxFrame = DefaultMaxFrame
	}
	if cfg.MaxMemory == 0 {
		cfg.MaxMemory = DefaultMaxMemory
	}
	w := &Worker{cfg: cfg, filter: f, keys: keys, spares: spares{most: cfg.MaxMemory / sparesShare}}
	keys.cfg = &w.cfg
	if cfg.Shared == nil {
		w.topics = topics{newSlots(alone{}, topicSlots, 't')}
		return w
	}
	w.topics = topics{newSlots(cfg.Shared, topicSlots, 't')}
	keys.shared = &sharedReplays{newSlots(cfg.Shared, replaySlots, 'r')}
	return w
}

// Stats counts what a worker's streams have done, in the terms of the sidecar's metrics.
type Stats struct {
	Sealed      uint64              // partitions of Produce requests that were forwarded
	SealRefused [numStatuses]uint64 // partitions of Produce requests that were not, by status
	Opened      uint64              // partitions of Fetch and ShareFetch responses delivered whole
	OpenRefused [numStatuses]uint64 // partitions cut at a batch that could not be opened, by status
	Skipped     [numStatuses]uint64 // batches that were passed over instead, by status
	Held        uint64              // responses after which the client's next Fetch was held
	TopicIDs    uint64              // topic ids that a broker gave to two names
	Groups      uint64              // requests for groups that the credential does not list
}

// sparesShare is which part of what all streams may hold is kept in spare buffers at most.
const sparesShare = 32

// numStatuses is above every number that abi gives a status.
const numStatuses = 64

func count(by *[numStatuses]uint64, s abi.Status) { by[min(s, numStatuses-1)]++ }

// Stats returns the counters as they are now.
func (w *Worker) Stats() Stats { return w.stats }

// A Violation is a frame that is not let through. Its stream closes.
type Violation struct {
	From    string // "client" or "broker"
	API     string
	Version int16
	Err     error
}

func (v *Violation) Error() string {
	return fmt.Sprintf("%s sent %s v%d: %v", v.From, v.API, v.Version, v.Err)
}

func (v *Violation) Unwrap() error { return v.Err }

// topicName is name as a map keeps it, without the frame that it came in.
func topicName(name string) string { return strings.Clone(name) }
