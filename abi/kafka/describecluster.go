package kafka

// EndpointBrokers is the EndpointType of a DescribeCluster response that lists brokers.
const EndpointBrokers = 1

// A DescribeClusterResponse gives the brokers' addresses to admin clients (KIP-700).
type DescribeClusterResponse struct {
	Version      int16
	ThrottleMs   int32
	ErrorCode    int16
	ErrorMessage []byte // nil is null
	EndpointType int8   // from version 1; EndpointBrokers before
	ClusterID    string
	ControllerID int32
	Brokers      []Broker
	Operations   int32 // authorized operations of the cluster
	Tags         Tags
}

// ParseDescribeClusterResponse reads the body of a DescribeCluster response, all of it.
func ParseDescribeClusterResponse(version int16, body []byte) (*DescribeClusterResponse, error) {
	r, err := newReader("response", KeyDescribeCluster, version, body)
	if err != nil {
		return nil, err
	}
	a := &DescribeClusterResponse{Version: version, EndpointType: EndpointBrokers}
	a.ThrottleMs = r.int32()
	a.ErrorCode = r.int16()
	a.ErrorMessage = r.nullableString()
	if version >= 1 {
		a.EndpointType = r.int8()
	}
	a.ClusterID = r.string()
	a.ControllerID = r.int32()
	a.Brokers = make([]Broker, r.array(11))
	for i := range a.Brokers {
		b := &a.Brokers[i]
		b.NodeID = r.int32()
		b.Host = r.string()
		b.Port = r.int32()
		b.Rack = r.nullableString()
		if version >= 2 {
			b.Fenced = r.int8() != 0
		}
		b.Tags = r.tags()
	}
	a.Operations = r.int32()
	a.Tags = r.tags()
	if err := r.endOf("response", KeyDescribeCluster, version); err != nil {
		return nil, err
	}
	return a, nil
}

// Append appends the body to b.
func (a *DescribeClusterResponse) Append(b []byte) []byte {
	w := newWriter(b, KeyDescribeCluster, a.Version)
	w.int32(a.ThrottleMs)
	w.int16(a.ErrorCode)
	w.nullableString(a.ErrorMessage)
	if a.Version >= 1 {
		w.int8(a.EndpointType)
	}
	w.string(a.ClusterID)
	w.int32(a.ControllerID)
	w.count(len(a.Brokers))
	for i := range a.Brokers {
		b := &a.Brokers[i]
		w.int32(b.NodeID)
		w.string(b.Host)
		w.int32(b.Port)
		w.nullableString(b.Rack)
		if a.Version >= 2 {
			w.bool(b.Fenced)
		}
		w.tags(b.Tags)
	}
	w.int32(a.Operations)
	w.tags(a.Tags)
	return w.b
}
