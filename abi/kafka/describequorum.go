package kafka

// A DescribeQuorumResponse gives, from version 2, the controllers' listeners to admin
// clients (KIP-853). Clients show them and connect to none; a proxy may empty Nodes.
type DescribeQuorumResponse struct {
	Version      int16
	ErrorCode    int16
	ErrorMessage []byte       // from version 2; nil is null
	Topics       []byte       // the array of topics as it stood, with its length; it holds no address
	Nodes        []QuorumNode // from version 2
	Tags         Tags
}

// A QuorumNode is one controller.
type QuorumNode struct {
	NodeID    int32
	Listeners []QuorumListener
	Tags      Tags
}

// A QuorumListener is one address of a controller.
type QuorumListener struct {
	Name string
	Host string
	Port uint16
	Tags Tags
}

// ParseDescribeQuorumResponse reads the body of a DescribeQuorum response, all of it.
func ParseDescribeQuorumResponse(version int16, body []byte) (*DescribeQuorumResponse, error) {
	r, err := newReader("response", KeyDescribeQuorum, version, body)
	if err != nil {
		return nil, err
	}
	a := &DescribeQuorumResponse{Version: version}
	a.ErrorCode = r.int16()
	if version >= 2 {
		a.ErrorMessage = r.nullableString()
	}
	mark := r.b
	r.skipQuorumTopics(version)
	a.Topics = r.since(mark)
	if version >= 2 {
		a.Nodes = make([]QuorumNode, r.array(6))
		for i := range a.Nodes {
			n := &a.Nodes[i]
			n.NodeID = r.int32()
			n.Listeners = make([]QuorumListener, r.array(5))
			for j := range n.Listeners {
				n.Listeners[j] = QuorumListener{
					Name: r.string(), Host: r.string(), Port: uint16(r.int16()), Tags: r.tags(),
				}
			}
			n.Tags = r.tags()
		}
	}
	a.Tags = r.tags()
	if err := r.endOf("response", KeyDescribeQuorum, version); err != nil {
		return nil, err
	}
	return a, nil
}

func (r *reader) skipQuorumTopics(version int16) {
	for topics := r.array(3); topics > 0; topics-- {
		r.string()
		for partitions := r.array(25); partitions > 0; partitions-- {
			r.take(4 + 2) // partition_index, error_code
			if version >= 2 {
				r.nullableString() // error_message
			}
			r.take(4 + 4 + 8)       // leader_id, leader_epoch, high_watermark
			r.skipReplicas(version) // current_voters
			r.skipReplicas(version) // observers
			r.tags()
		}
		r.tags()
	}
}

func (r *reader) skipReplicas(version int16) {
	size := 4 + 8 // replica_id, log_end_offset
	if version >= 1 {
		size += 8 + 8 // last_fetch_timestamp, last_caught_up_timestamp
	}
	if version >= 2 {
		size += 16 // replica_directory_id
	}
	for n := r.array(size); n > 0; n-- {
		r.take(size)
		r.tags()
	}
}

// Append appends the body to b.
func (a *DescribeQuorumResponse) Append(b []byte) []byte {
	w := newWriter(b, KeyDescribeQuorum, a.Version)
	w.int16(a.ErrorCode)
	if a.Version >= 2 {
		w.nullableString(a.ErrorMessage)
	}
	w.raw(a.Topics)
	if a.Version >= 2 {
		w.count(len(a.Nodes))
		for i := range a.Nodes {
			n := &a.Nodes[i]
			w.int32(n.NodeID)
			w.count(len(n.Listeners))
			for j := range n.Listeners {
				l := &n.Listeners[j]
				w.string(l.Name)
				w.string(l.Host)
				w.int16(int16(l.Port))
				w.tags(l.Tags)
			}
			w.tags(n.Tags)
		}
	}
	w.tags(a.Tags)
	return w.b
}
