package proxy

import "github.com/wasm-e2ee/wasm-e2ee/abi/kafka"

// Every broker address that a response carries is replaced here. One that slipped through
// would let clients go around the sidecar without a sound. The node_endpoints of Produce,
// Fetch, ShareFetch and ShareAcknowledge (KIP-951) are left out by abi/kafka.

// rewrite replaces a broker's address by that of the listener which stands for it. No
// broker (id -1, or an empty host) stays no broker.
func (c *conn) rewrite(id int32, host *string, port *int32) error {
	if id < 0 || *host == "" {
		*host, *port = "", -1
		return nil
	}
	local, err := c.p.localPort(id, *host, *port)
	if err != nil {
		return err
	}
	*host, *port = c.p.advertisedHost(c.client), local
	return nil
}

func (c *conn) rewriteBrokers(brokers []kafka.Broker) error {
	for i := range brokers {
		b := &brokers[i]
		if err := c.rewrite(b.NodeID, &b.Host, &b.Port); err != nil {
			return err
		}
	}
	return nil
}

// rewriteMetadata also learns the names of topic ids, beside an error too: some clients
// take the id from a topic without a leader.
func (c *conn) rewriteMetadata(version int16, body []byte) (appender, error) {
	r, err := kafka.ParseMetadataResponse(version, body)
	if err != nil {
		return nil, err
	}
	for i := range r.Topics {
		t := &r.Topics[i]
		if !c.p.topics.learn(t.ID, t.Name) && c.p.quiet.allow("topic id "+t.Name) {
			c.log.Error("the broker gives one topic id to two names; nothing is produced to it or read from it",
				"topic", t.Name, "hint", "treat the broker as hostile until explained; restart the sidecar to clear this")
		}
	}
	if err := c.rewriteBrokers(r.Brokers); err != nil {
		return nil, err
	}
	return r, nil
}

func (c *conn) rewriteFindCoordinator(version int16, body []byte) (appender, error) {
	r, err := kafka.ParseFindCoordinatorResponse(version, body)
	if err != nil {
		return nil, err
	}
	for i := range r.Coordinators {
		k := &r.Coordinators[i]
		if err := c.rewrite(k.NodeID, &k.Host, &k.Port); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (c *conn) rewriteDescribeCluster(version int16, body []byte) (appender, error) {
	r, err := kafka.ParseDescribeClusterResponse(version, body)
	if err != nil {
		return nil, err
	}
	if r.EndpointType != kafka.EndpointBrokers {
		r.Brokers = nil // controllers, which a client of brokers has no business with
	}
	if err := c.rewriteBrokers(r.Brokers); err != nil {
		return nil, err
	}
	return r, nil
}

// rewriteDescribeQuorum leaves the controllers' addresses out: no client connects to them.
func (c *conn) rewriteDescribeQuorum(version int16, body []byte) (appender, error) {
	r, err := kafka.ParseDescribeQuorumResponse(version, body)
	if err != nil {
		return nil, err
	}
	r.Nodes = nil
	return r, nil
}
