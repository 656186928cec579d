package kafka

// A Broker is one broker's address, in Metadata and DescribeCluster responses. A proxy
// replaces Host and Port before Append.
type Broker struct {
	NodeID int32
	Host   string
	Port   int32
	Rack   []byte // nil is null; not in Metadata 0
	Fenced bool   // DescribeCluster 2 only
	Tags   Tags
}

// A MetadataResponse gives the brokers' addresses and the names and ids of topics.
type MetadataResponse struct {
	Version      int16
	ThrottleMs   int32 // from version 3
	Brokers      []Broker
	ClusterID    []byte // from version 2; nil is null
	ControllerID int32  // from version 1
	Topics       []MetadataTopic
	Operations   int32 // authorized operations of the cluster, versions 8 to 10
	ErrorCode    int16 // from version 13
	Tags         Tags
}

// A MetadataTopic is one topic of a MetadataResponse.
type MetadataTopic struct {
	ErrorCode int16
	Name      string
	NullName  bool     // from version 12: an id that the broker does not know; Name is empty
	ID        [16]byte // from version 10; zero where unknown
	Rest      []byte   // what follows, as it stood: partitions and tags; they hold no address
}

// ParseMetadataResponse reads the body of a Metadata response, all of it.
func ParseMetadataResponse(version int16, body []byte) (*MetadataResponse, error) {
	r, err := newReader("response", KeyMetadata, version, body)
	if err != nil {
		return nil, err
	}
	a := &MetadataResponse{Version: version}
	if version >= 3 {
		a.ThrottleMs = r.int32()
	}
	a.Brokers = make([]Broker, r.array(10))
	for i := range a.Brokers {
		b := &a.Brokers[i]
		b.NodeID = r.int32()
		b.Host = r.string()
		b.Port = r.int32()
		if version >= 1 {
			b.Rack = r.nullableString()
		}
		b.Tags = r.tags()
	}
	if version >= 2 {
		a.ClusterID = r.nullableString()
	}
	if version >= 1 {
		a.ControllerID = r.int32()
	}
	a.Topics = make([]MetadataTopic, r.array(8))
	for i := range a.Topics {
		a.Topics[i] = r.metadataTopic(version)
	}
	if version >= 8 && version <= 10 {
		a.Operations = r.int32()
	}
	if version >= 13 {
		a.ErrorCode = r.int16()
	}
	a.Tags = r.tags()
	if err := r.endOf("response", KeyMetadata, version); err != nil {
		return nil, err
	}
	return a, nil
}

func (r *reader) metadataTopic(version int16) MetadataTopic {
	var t MetadataTopic
	t.ErrorCode = r.int16()
	name := r.nullableString()
	t.Name, t.NullName = string(name), name == nil
	if t.NullName && version < 12 {
		r.fail()
	}
	if version >= 10 {
		t.ID = r.uuid()
	}
	mark := r.b
	if version >= 1 {
		r.int8() // is_internal
	}
	for n := r.array(18); n > 0; n-- {
		r.take(2 + 4 + 4) // error_code, partition_index, leader_id
		if version >= 7 {
			r.int32() // leader_epoch
		}
		r.skipInts(4) // replica_nodes
		r.skipInts(4) // isr_nodes
		if version >= 5 {
			r.skipInts(4) // offline_replicas
		}
		r.tags()
	}
	if version >= 8 {
		r.int32() // topic_authorized_operations
	}
	r.tags()
	t.Rest = r.since(mark)
	return t
}

// Append appends the body to b.
func (a *MetadataResponse) Append(b []byte) []byte {
	w := newWriter(b, KeyMetadata, a.Version)
	if a.Version >= 3 {
		w.int32(a.ThrottleMs)
	}
	w.count(len(a.Brokers))
	for i := range a.Brokers {
		b := &a.Brokers[i]
		w.int32(b.NodeID)
		w.string(b.Host)
		w.int32(b.Port)
		if a.Version >= 1 {
			w.nullableString(b.Rack)
		}
		w.tags(b.Tags)
	}
	if a.Version >= 2 {
		w.nullableString(a.ClusterID)
	}
	if a.Version >= 1 {
		w.int32(a.ControllerID)
	}
	w.count(len(a.Topics))
	for i := range a.Topics {
		t := &a.Topics[i]
		w.int16(t.ErrorCode)
		if t.NullName {
			w.nullableString(nil)
		} else {
			w.string(t.Name)
		}
		if a.Version >= 10 {
			w.uuid(t.ID)
		}
		w.raw(t.Rest)
	}
	if a.Version >= 8 && a.Version <= 10 {
		w.int32(a.Operations)
	}
	if a.Version >= 13 {
		w.int16(a.ErrorCode)
	}
	w.tags(a.Tags)
	return w.b
}
