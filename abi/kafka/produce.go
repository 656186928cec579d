package kafka

// A ProduceRequest carries a client's record batches. Version 13 names topics by id
// instead of by name. To refuse partitions, delete them (and emptied topics) from the
// slices before Append, and Add them to the broker's response.
type ProduceRequest struct {
	Version         int16
	TransactionalID []byte // nil is null
	Acks            int16  // 0 means that no response follows
	TimeoutMs       int32
	Topics          []ProduceTopic
	Tags            Tags
}

// A ProduceTopic is one topic of a ProduceRequest.
type ProduceTopic struct {
	Name       string   // before version 13
	ID         [16]byte // from version 13
	Partitions []ProducePartition
	Tags       Tags
}

// A ProducePartition holds the batches for one partition.
type ProducePartition struct {
	Index   int32
	Records []byte // aliases the frame; nil is null
	Tags    Tags
}

// ParseProduceRequest reads the body of a Produce request, all of it. Versions before 3
// are refused: they may carry message sets older than record batch v2.
func ParseProduceRequest(version int16, body []byte) (*ProduceRequest, error) {
	r, err := newReader("request", KeyProduce, version, body)
	if err != nil {
		return nil, err
	}
	q := &ProduceRequest{Version: version}
	q.TransactionalID = r.nullableString()
	q.Acks = r.int16()
	q.TimeoutMs = r.int32()
	q.Topics = make([]ProduceTopic, r.array(3))
	for i := range q.Topics {
		t := &q.Topics[i]
		t.Name, t.ID = r.topic(version >= 13)
		t.Partitions = make([]ProducePartition, r.array(6))
		for j := range t.Partitions {
			t.Partitions[j] = ProducePartition{Index: r.int32(), Records: r.nullableBytes(), Tags: r.tags()}
		}
		t.Tags = r.tags()
	}
	q.Tags = r.tags()
	if err := r.endOf("request", KeyProduce, version); err != nil {
		return nil, err
	}
	return q, nil
}

// Append appends the body to b.
func (q *ProduceRequest) Append(b []byte) []byte {
	w := newWriter(b, KeyProduce, q.Version)
	q.write(&w)
	return w.b
}

func (q *ProduceRequest) write(w *writer) {
	w.nullableString(q.TransactionalID)
	w.int16(q.Acks)
	w.int32(q.TimeoutMs)
	w.count(len(q.Topics))
	for i := range q.Topics {
		t := &q.Topics[i]
		w.topic(q.Version >= 13, t.Name, t.ID)
		w.count(len(t.Partitions))
		for j := range t.Partitions {
			p := &t.Partitions[j]
			w.int32(p.Index)
			w.records(p.Records)
			w.tags(p.Tags)
		}
		w.tags(t.Tags)
	}
	w.tags(q.Tags)
}

// A ProduceResponse answers a ProduceRequest of the same version. Its node_endpoints
// (KIP-951), which name brokers' addresses, are left out by ParseProduceResponse; clients
// then learn a new leader's address from Metadata.
type ProduceResponse struct {
	Version    int16
	Topics     []ProduceResponseTopic
	ThrottleMs int32
	Tags       Tags
}

// A ProduceResponseTopic is one topic of a ProduceResponse.
type ProduceResponseTopic struct {
	Name       string   // before version 13
	ID         [16]byte // from version 13
	Partitions []ProduceResponsePartition
	Tags       Tags
}

// A ProduceResponsePartition says what became of one partition's batches.
type ProduceResponsePartition struct {
	Index          int32
	ErrorCode      int16
	BaseOffset     int64
	LogAppendTime  int64  // Unix ms, -1 with CreateTime
	LogStartOffset int64  // from version 5
	RecordErrors   []byte // from version 8: the array as it stood, with its length; nil is empty
	ErrorMessage   []byte // from version 8; nil is null
	Tags           Tags   // current_leader among them
}

// ParseProduceResponse reads the body of a Produce response, all of it.
func ParseProduceResponse(version int16, body []byte) (*ProduceResponse, error) {
	r, err := newReader("response", KeyProduce, version, body)
	if err != nil {
		return nil, err
	}
	a := &ProduceResponse{Version: version}
	a.Topics = make([]ProduceResponseTopic, r.array(3))
	for i := range a.Topics {
		t := &a.Topics[i]
		t.Name, t.ID = r.topic(version >= 13)
		t.Partitions = make([]ProduceResponsePartition, r.array(22))
		for j := range t.Partitions {
			p := &t.Partitions[j]
			p.Index = r.int32()
			p.ErrorCode = r.int16()
			p.BaseOffset = r.int64()
			p.LogAppendTime = r.int64()
			if version >= 5 {
				p.LogStartOffset = r.int64()
			}
			if version >= 8 {
				mark := r.b
				for n := r.array(6); n > 0; n-- {
					r.int32()
					r.nullableString()
					r.tags()
				}
				p.RecordErrors = r.since(mark)
				p.ErrorMessage = r.nullableString()
			}
			p.Tags = r.tags()
		}
		t.Tags = r.tags()
	}
	a.ThrottleMs = r.int32()
	a.Tags = r.tagsWithout(nodeEndpoints)
	if err := r.endOf("response", KeyProduce, version); err != nil {
		return nil, err
	}
	return a, nil
}

// Append appends the body to b.
func (a *ProduceResponse) Append(b []byte) []byte {
	w := newWriter(b, KeyProduce, a.Version)
	w.count(len(a.Topics))
	for i := range a.Topics {
		t := &a.Topics[i]
		w.topic(a.Version >= 13, t.Name, t.ID)
		w.count(len(t.Partitions))
		for j := range t.Partitions {
			p := &t.Partitions[j]
			w.int32(p.Index)
			w.int16(p.ErrorCode)
			w.int64(p.BaseOffset)
			w.int64(p.LogAppendTime)
			if a.Version >= 5 {
				w.int64(p.LogStartOffset)
			}
			if a.Version >= 8 {
				if p.RecordErrors == nil {
					w.count(0)
				}
				w.raw(p.RecordErrors)
				w.nullableString(p.ErrorMessage)
			}
			w.tags(p.Tags)
		}
		w.tags(t.Tags)
	}
	w.int32(a.ThrottleMs)
	w.tags(a.Tags)
	return w.b
}

// Add adds an error for one partition, under the topic of that name (that id from version
// 13). Versions before 8 carry no message; an empty one is null.
func (a *ProduceResponse) Add(name string, id [16]byte, partition int32, code int16, message string) {
	p := ProduceResponsePartition{Index: partition, ErrorCode: code, BaseOffset: -1, LogAppendTime: -1, LogStartOffset: -1}
	if message != "" {
		p.ErrorMessage = []byte(message)
	}
	for i := range a.Topics {
		t := &a.Topics[i]
		if a.Version >= 13 && t.ID == id || a.Version < 13 && t.Name == name {
			t.Partitions = append(t.Partitions, p)
			return
		}
	}
	a.Topics = append(a.Topics, ProduceResponseTopic{Name: name, ID: id, Partitions: []ProduceResponsePartition{p}})
}
