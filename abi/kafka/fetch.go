package kafka

// A FetchResponse carries record batches to a client. Version 13 names topics by id
// instead of by name. Its node_endpoints (KIP-951), which name brokers' addresses, are
// left out by ParseFetchResponse; clients then learn a new leader's address from Metadata.
type FetchResponse struct {
	Version    int16
	ThrottleMs int32
	ErrorCode  int16 // from version 7
	SessionID  int32 // from version 7
	Topics     []FetchTopic
	Tags       Tags
}

// A FetchTopic is one topic of a FetchResponse.
type FetchTopic struct {
	Name       string   // before version 13
	ID         [16]byte // from version 13
	Partitions []FetchPartition
	Tags       Tags
}

// A FetchPartition holds the batches of one partition. Kafka writes a partition without
// records as empty Records rather than as null.
type FetchPartition struct {
	Index                int32
	ErrorCode            int16
	HighWatermark        int64
	LastStableOffset     int64
	LogStartOffset       int64  // from version 5
	Aborted              []byte // the array of aborted transactions as it stood, with its length; nil is null
	PreferredReadReplica int32  // from version 11
	Records              []byte // aliases the frame; nil is null; the last batch may be cut short
	Tags                 Tags   // diverging_epoch and current_leader among them
}

// ParseFetchResponse reads the body of a Fetch response, all of it.
func ParseFetchResponse(version int16, body []byte) (*FetchResponse, error) {
	r, err := newReader("response", KeyFetch, version, body)
	if err != nil {
		return nil, err
	}
	a := &FetchResponse{Version: version}
	a.ThrottleMs = r.int32()
	if version >= 7 {
		a.ErrorCode = r.int16()
		a.SessionID = r.int32()
	}
	a.Topics = make([]FetchTopic, r.array(3))
	for i := range a.Topics {
		t := &a.Topics[i]
		t.Name, t.ID = r.topic(version >= 13)
		t.Partitions = make([]FetchPartition, r.array(30))
		for j := range t.Partitions {
			t.Partitions[j] = r.fetchPartition(version)
		}
		t.Tags = r.tags()
	}
	a.Tags = r.tagsWithout(nodeEndpoints)
	if err := r.endOf("response", KeyFetch, version); err != nil {
		return nil, err
	}
	return a, nil
}

func (r *reader) fetchPartition(version int16) FetchPartition {
	var p FetchPartition
	p.Index = r.int32()
	p.ErrorCode = r.int16()
	p.HighWatermark = r.int64()
	p.LastStableOffset = r.int64()
	if version >= 5 {
		p.LogStartOffset = r.int64()
	}
	mark := r.b
	n := r.nullableArray(16)
	for ; n > 0; n-- {
		r.take(16)
		r.tags()
	}
	if n == 0 {
		p.Aborted = r.since(mark)
	}
	if version >= 11 {
		p.PreferredReadReplica = r.int32()
	}
	p.Records = r.nullableBytes()
	p.Tags = r.tags()
	return p
}

// Append appends the body to b.
func (a *FetchResponse) Append(b []byte) []byte {
	w := newWriter(b, KeyFetch, a.Version)
	a.write(&w)
	return w.b
}

func (a *FetchResponse) write(w *writer) {
	w.int32(a.ThrottleMs)
	if a.Version >= 7 {
		w.int16(a.ErrorCode)
		w.int32(a.SessionID)
	}
	w.count(len(a.Topics))
	for i := range a.Topics {
		t := &a.Topics[i]
		w.topic(a.Version >= 13, t.Name, t.ID)
		w.count(len(t.Partitions))
		for j := range t.Partitions {
			w.fetchPartition(a.Version, &t.Partitions[j])
		}
		w.tags(t.Tags)
	}
	w.tags(a.Tags)
}

func (w *writer) fetchPartition(version int16, p *FetchPartition) {
	w.int32(p.Index)
	w.int16(p.ErrorCode)
	w.int64(p.HighWatermark)
	w.int64(p.LastStableOffset)
	if version >= 5 {
		w.int64(p.LogStartOffset)
	}
	if p.Aborted == nil {
		w.count(-1)
	}
	w.raw(p.Aborted)
	if version >= 11 {
		w.int32(p.PreferredReadReplica)
	}
	w.records(p.Records)
	w.tags(p.Tags)
}
