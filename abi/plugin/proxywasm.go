package plugin

// Numbers of Proxy-Wasm 0.2.1, as far as the module needs them.

// An Action is what a callback of a stream answers.
type Action uint32

const (
	ActionContinue Action = 0 // what is in the buffer goes on
	ActionPause    Action = 1 // it stays
)

// A Buffer is a range of bytes that the host keeps.
type Buffer uint32

const (
	BufferDownstream Buffer = 2 // from the client, on its way to the broker
	BufferUpstream   Buffer = 3 // from the broker, on its way to the client
	BufferCallBody   Buffer = 4 // of the answer to an HTTP call
	BufferConfig     Buffer = 7 // the plugin configuration
)

// A Stream is one direction of a connection.
type Stream uint32

const (
	StreamDownstream Stream = 2
	StreamUpstream   Stream = 3
)

// A Level is how urgent a log line is.
type Level uint32

const (
	LevelDebug Level = 1
	LevelInfo  Level = 2
	LevelWarn  Level = 3
	LevelError Level = 4
)

// A Metric is a kind of metric.
type Metric uint32

const (
	MetricCounter Metric = 0
	MetricGauge   Metric = 1
)

// HeadersCall is the map of headers of the answer to an HTTP call.
const HeadersCall = 6

// Statuses that a host answers.
const (
	StatusOK            = 0
	StatusNotFound      = 1
	StatusBadArgument   = 2
	StatusInvalidMemory = 6
	StatusUnimplemented = 12 // it lacks the function
)

// MetricPrefix begins every name of ours. They are those of the sidecar
// (examples/sidecar/OPERATING.md), labels as further words: name.label.value.
const MetricPrefix = "wasm_e2ee_"

// Authority is the HTTP authority of calls to the agent.
const Authority = "wasm-e2ee-agent"
