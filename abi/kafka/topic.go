package kafka

// nodeEndpoints is the tag of node_endpoints (KIP-951) at the end of Produce and Fetch
// responses.
const nodeEndpoints = 0

// topic reads a topic's id, or its name where the version has names.
func (r *reader) topic(byID bool) (name string, id [16]byte) {
	if byID {
		return "", r.uuid()
	}
	return r.string(), id
}

// topic appends a topic's id, or its name where the version has names.
func (w *writer) topic(byID bool, name string, id [16]byte) {
	if byID {
		w.uuid(id)
	} else {
		w.string(name)
	}
}
