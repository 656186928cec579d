package kafka

import "github.com/wasm-e2ee/wasm-e2ee/abi"

// nodeEndpoints is the tag of node_endpoints (KIP-951) at the end of Produce and Fetch
// responses.
const nodeEndpoints = 0

// topic reads a topic's id, or its name where the version has names. A name longer than any
// that Kafka takes is refused, before somebody keeps or logs it.
func (r *reader) topic(byID bool) (name string, id [16]byte) {
	if byID {
		return "", r.uuid()
	}
	p := r.nullableString()
	if p == nil || len(p) > abi.MaxTopicLen {
		r.fail()
		return "", id
	}
	return string(p), id
}

// topic appends a topic's id, or its name where the version has names.
func (w *writer) topic(byID bool, name string, id [16]byte) {
	if byID {
		w.uuid(id)
	} else {
		w.string(name)
	}
}
