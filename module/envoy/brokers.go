package envoy

import (
	"fmt"

	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
)

// Brokers says where clients reach each broker through the proxy: by a list, and for those
// that are not on it by a rule. A broker that neither covers is an error, since its own
// address would let clients go around the encryption without a sound.
type Brokers struct {
	ByID     map[int32]Endpoint
	Host     string // of the rule
	BasePort int32  // broker id is at BasePort + id; 0 is no rule
}

// An Endpoint is an address that clients connect to.
type Endpoint struct {
	Host string
	Port int32
}

// endpoint returns where clients reach a broker.
func (b *Brokers) endpoint(id int32) (Endpoint, error) {
	if e, ok := b.ByID[id]; ok {
		return e, nil
	}
	if port := int64(b.BasePort) + int64(id); b.BasePort > 0 && port <= 65535 {
		return Endpoint{b.Host, int32(port)}, nil
	}
	return Endpoint{}, fmt.Errorf("broker %d has no listener of its own (hint: write the configuration anew, it does not cover this broker)", id)
}

// rewrite replaces a broker's address. No broker (id -1, or an empty host) stays no broker.
func (b *Brokers) rewrite(id int32, host *string, port *int32) error {
	if id < 0 || *host == "" {
		*host, *port = "", -1
		return nil
	}
	e, err := b.endpoint(id)
	if err != nil {
		return err
	}
	*host, *port = e.Host, e.Port
	return nil
}

func (b *Brokers) rewriteAll(brokers []kafka.Broker) error {
	for i := range brokers {
		if err := b.rewrite(brokers[i].NodeID, &brokers[i].Host, &brokers[i].Port); err != nil {
			return err
		}
	}
	return nil
}

// rewriteMetadata also learns the names of topic ids, beside an error too: some clients take
// the id from a topic without a leader.
func (w *Worker) rewriteMetadata(version int16, body []byte) (appender, error) {
	r, err := kafka.ParseMetadataResponse(version, body)
	if err != nil {
		return nil, err
	}
	for i := range r.Topics {
		switch w.topics.learn(r.Topics[i].ID, r.Topics[i].Name) {
		case learnedTwo:
			w.stats.TopicIDs++
			w.cfg.report(Event{Kind: EventTopicID, Topic: r.Topics[i].Name})
		case learnedNever:
			w.cfg.report(Event{Kind: EventTopicsFull, Topic: r.Topics[i].Name})
		}
	}
	return r, w.cfg.Brokers.rewriteAll(r.Brokers)
}

func (w *Worker) rewriteFindCoordinator(version int16, body []byte) (appender, error) {
	r, err := kafka.ParseFindCoordinatorResponse(version, body)
	if err != nil {
		return nil, err
	}
	for i := range r.Coordinators {
		c := &r.Coordinators[i]
		if err := w.cfg.Brokers.rewrite(c.NodeID, &c.Host, &c.Port); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (w *Worker) rewriteDescribeCluster(version int16, body []byte) (appender, error) {
	r, err := kafka.ParseDescribeClusterResponse(version, body)
	if err != nil {
		return nil, err
	}
	if r.EndpointType != kafka.EndpointBrokers {
		r.Brokers = nil // controllers, which a client of brokers has no business with
	}
	return r, w.cfg.Brokers.rewriteAll(r.Brokers)
}

// rewriteDescribeQuorum leaves the controllers' addresses out: no client connects to them.
func rewriteDescribeQuorum(version int16, body []byte) (appender, error) {
	r, err := kafka.ParseDescribeQuorumResponse(version, body)
	if err != nil {
		return nil, err
	}
	r.Nodes = nil
	return r, nil
}
