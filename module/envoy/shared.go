package envoy

// Shared is what all workers of one proxy see: Proxy-Wasm's shared data. Nothing secret may be
// put there. A key is never deleted again, so that keys are of a fixed number.
type Shared interface {
	// Get returns a value, which is the caller's, and the number of its last change.
	Get(key string) (value []byte, cas uint32, ok bool)

	// Set replaces a value if its last change has this number; 0 is any, and is for a value
	// that is not there yet. It returns false where somebody else was faster. The value stays
	// the caller's.
	Set(key string, value []byte, cas uint32) bool
}
