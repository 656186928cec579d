package kafka

// A ShareFetchResponse carries record batches to a member of a share group (KIP-932). Its
// node_endpoints, which name brokers' addresses, are left out by ParseShareFetchResponse;
// clients then learn a new leader's address from Metadata.
type ShareFetchResponse struct {
	Version       int16
	ThrottleMs    int32
	ErrorCode     int16
	ErrorMessage  []byte // nil is null
	LockTimeoutMs int32  // of the acquired records
	Topics        []ShareFetchTopic
	Tags          Tags
}

// A ShareFetchTopic is one topic of a ShareFetchResponse.
type ShareFetchTopic struct {
	ID         [16]byte
	Partitions []ShareFetchPartition
	Tags       Tags
}

// A ShareFetchPartition holds the batches of one partition.
type ShareFetchPartition struct {
	Index           int32
	ErrorCode       int16
	ErrorMessage    []byte // nil is null
	AckErrorCode    int16  // answers the acknowledgements in the request
	AckErrorMessage []byte // nil is null
	Leader          []byte // current_leader as it stood: id, epoch and tags; nil is none (-1, -1)
	Records         []byte // aliases the frame; nil is null
	Acquired        []byte // the array of acquired records as it stood, with its length; nil is empty
	Tags            Tags
}

// ParseShareFetchResponse reads the body of a ShareFetch response, all of it.
func ParseShareFetchResponse(version int16, body []byte) (*ShareFetchResponse, error) {
	r, err := newReader("response", KeyShareFetch, version, body)
	if err != nil {
		return nil, err
	}
	a := &ShareFetchResponse{Version: version}
	a.ThrottleMs = r.int32()
	a.ErrorCode = r.int16()
	a.ErrorMessage = r.nullableString()
	a.LockTimeoutMs = r.int32()
	a.Topics = make([]ShareFetchTopic, r.array(18))
	for i := range a.Topics {
		t := &a.Topics[i]
		t.ID = r.uuid()
		t.Partitions = make([]ShareFetchPartition, r.array(22))
		for j := range t.Partitions {
			t.Partitions[j] = r.shareFetchPartition()
		}
		t.Tags = r.tags()
	}
	r.skipEndpoints()
	a.Tags = r.tags()
	if err := r.endOf("response", KeyShareFetch, version); err != nil {
		return nil, err
	}
	return a, nil
}

func (r *reader) shareFetchPartition() ShareFetchPartition {
	var p ShareFetchPartition
	p.Index = r.int32()
	p.ErrorCode = r.int16()
	p.ErrorMessage = r.nullableString()
	p.AckErrorCode = r.int16()
	p.AckErrorMessage = r.nullableString()
	mark := r.b
	r.take(4 + 4) // leader_id, leader_epoch
	r.tags()
	p.Leader = r.since(mark)
	p.Records = r.nullableBytes()
	mark = r.b
	for n := r.array(19); n > 0; n-- {
		r.take(8 + 8 + 2) // first_offset, last_offset, delivery_count
		r.tags()
	}
	p.Acquired = r.since(mark)
	p.Tags = r.tags()
	return p
}

// skipEndpoints skips the node_endpoints at the end of ShareFetch and ShareAcknowledge
// responses.
func (r *reader) skipEndpoints() {
	for n := r.array(11); n > 0; n-- {
		r.int32()          // node_id
		r.string()         // host
		r.int32()          // port
		r.nullableString() // rack
		r.tags()
	}
}

// Append appends the body to b.
func (a *ShareFetchResponse) Append(b []byte) []byte {
	w := newWriter(b, KeyShareFetch, a.Version)
	a.write(&w)
	return w.b
}

func (a *ShareFetchResponse) write(w *writer) {
	w.int32(a.ThrottleMs)
	w.int16(a.ErrorCode)
	w.nullableString(a.ErrorMessage)
	w.int32(a.LockTimeoutMs)
	w.count(len(a.Topics))
	for i := range a.Topics {
		t := &a.Topics[i]
		w.uuid(t.ID)
		w.count(len(t.Partitions))
		for j := range t.Partitions {
			w.shareFetchPartition(&t.Partitions[j])
		}
		w.tags(t.Tags)
	}
	w.count(0) // node_endpoints
	w.tags(a.Tags)
}

func (w *writer) shareFetchPartition(p *ShareFetchPartition) {
	w.int32(p.Index)
	w.int16(p.ErrorCode)
	w.nullableString(p.ErrorMessage)
	w.int16(p.AckErrorCode)
	w.nullableString(p.AckErrorMessage)
	if p.Leader == nil {
		w.int32(-1)
		w.int32(-1)
		w.tags(nil)
	}
	w.raw(p.Leader)
	w.records(p.Records)
	if p.Acquired == nil {
		w.count(0)
	}
	w.raw(p.Acquired)
	w.tags(p.Tags)
}
