package kafka

// A ShareAcknowledgeResponse is read for one purpose: its node_endpoints, which name
// brokers' addresses, are left out by ParseShareAcknowledgeResponse.
type ShareAcknowledgeResponse struct {
	Version int16
	Head    []byte // all that stands before node_endpoints, as it stood
	Tags    Tags
}

// ParseShareAcknowledgeResponse reads the body of a ShareAcknowledge response, all of it.
func ParseShareAcknowledgeResponse(version int16, body []byte) (*ShareAcknowledgeResponse, error) {
	r, err := newReader("response", KeyShareAcknowledge, version, body)
	if err != nil {
		return nil, err
	}
	r.int32()          // throttle_time_ms
	r.int16()          // error_code
	r.nullableString() // error_message
	if version >= 2 {
		r.int32() // acquisition_lock_timeout_ms
	}
	for topics := r.array(18); topics > 0; topics-- {
		r.uuid()
		for partitions := r.array(17); partitions > 0; partitions-- {
			r.int32()          // partition_index
			r.int16()          // error_code
			r.nullableString() // error_message
			r.take(4 + 4)      // current_leader
			r.tags()           // of current_leader
			r.tags()
		}
		r.tags()
	}
	a := &ShareAcknowledgeResponse{Version: version, Head: r.since(body)}
	r.skipEndpoints()
	a.Tags = r.tags()
	if err := r.endOf("response", KeyShareAcknowledge, version); err != nil {
		return nil, err
	}
	return a, nil
}

// Append appends the body to b.
func (a *ShareAcknowledgeResponse) Append(b []byte) []byte {
	w := newWriter(b, KeyShareAcknowledge, a.Version)
	w.raw(a.Head)
	w.count(0) // node_endpoints
	w.tags(a.Tags)
	return w.b
}
