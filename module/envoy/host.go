package envoy

import "github.com/wasm-e2ee/wasm-e2ee/abi/plugin"

// A Room gives memory for so many bytes, or nil. It is asked once for what is then written there.
type Room interface{ Room(size int) []byte }

// A Host is what a VM needs of the proxy that runs it (SPEC.md §8.3). What Buffer returns is
// valid until it is called again.
type Host interface {
	Log(level plugin.Level, line string)
	Now() uint64    // Unix ms
	Tick(ms uint32) // from now on, each so many
	// Select says whose streams the functions below are about, until the callback ends. It
	// returns false, and changes nothing, where there is no such context.
	Select(context uint32) bool

	Buffer(b plugin.Buffer, room Room) []byte // all of it, in room where that has any
	SetBuffer(b plugin.Buffer, p []byte) bool // instead of all of it
	AddBuffer(b plugin.Buffer, p []byte) bool // behind it
	Continue() bool                           // hands what is in BufferDownstream to what follows, after the callback
	Close()                                   // ends both streams, after the callback
	Property(path ...string) []byte           // nil where there is none
	Call(cluster string, c Call) (token uint32, ok bool)
	Header(name string) []byte // of the answer to a Call
	Define(kind plugin.Metric, name string) (id uint32, ok bool)
	Add(metric uint32, by int64)
	Get(key string) (value []byte, cas uint32, ok bool)
	Set(key string, value []byte, cas uint32) bool
}
