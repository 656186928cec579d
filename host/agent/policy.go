package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
)

// policies remembers which topics must not be sealed for: compaction destroys packed
// records (PROTOCOL.md §2.4). It is asked anew before every epoch and watched in between.
type policies struct {
	mu      sync.Mutex
	refused map[string]error
}

// refusal is why topic is refused, as far as is known.
func (p *policies) refusal(topic string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.refused[topic]
}

// note keeps what was found out. Only compaction is kept: any other failure is asked about
// again with the next epoch.
func (p *policies) note(topic string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !errors.Is(err, abi.StatusCompacted) {
		delete(p.refused, topic)
		return
	}
	if p.refused == nil {
		p.refused = make(map[string]error)
	}
	p.refused[topic] = err
}

// checkPolicies asks for the cleanup.policy of topics and returns why some cannot be
// sealed for. A policy that cannot be read refuses the topic.
func (a *Agent) checkPolicies(topics []string) map[string]error {
	errs := make(map[string]error)
	ctx, cancel := context.WithTimeout(a.ctx, requestTimeout)
	defer cancel()
	all, err := a.adm.DescribeTopicConfigs(ctx, topics...)
	for _, topic := range topics {
		if terr := a.policyOf(topic, all, err); terr != nil {
			errs[topic] = fmt.Errorf("topic %s: %w", topic, terr)
		}
		a.policy.note(topic, errs[topic])
	}
	return errs
}

func (a *Agent) policyOf(topic string, all kadm.ResourceConfigs, asking error) error {
	rc, err := all.On(topic, nil)
	switch {
	case err != nil && asking != nil:
		err = asking
	case err == nil:
		err = rc.Err
	}
	if unauthorized(err) {
		return fmt.Errorf("%w: its cleanup.policy cannot be read: %w\nhint: allow the agent's principal DescribeConfigs on Topic %s", abi.StatusUnavailable, err, topic)
	}
	if errors.Is(err, kerr.UnknownTopicOrPartition) {
		return fmt.Errorf("%w: %w\nhint: create the topic", abi.StatusUnavailable, err)
	}
	if err != nil {
		if cause := context.Cause(a.ctx); cause != nil {
			err = cause
		}
		return unavailable(fmt.Errorf("its cleanup.policy cannot be read: %w", err))
	}
	for _, c := range rc.Configs {
		if c.Key == "cleanup.policy" {
			if compacts(c.MaybeValue()) {
				return fmt.Errorf("%w (cleanup.policy=%s): sealed batches would lose their records\nhint: set cleanup.policy=delete on the topic, or declare it plain in the policy", abi.StatusCompacted, c.MaybeValue())
			}
			return nil
		}
	}
	return fmt.Errorf("%w: the broker does not tell its cleanup.policy", abi.StatusUnavailable)
}

// watchPolicies takes back the keys of topics that have been switched to compaction.
func (a *Agent) watchPolicies() {
	a.mu.Lock()
	kids := make(map[string][]abi.Kid)
	for _, v := range a.producer.Epochs() {
		kids[v.Topic] = append(kids[v.Topic], v.Kid)
	}
	a.mu.Unlock()
	if len(kids) == 0 {
		return
	}
	topics := make([]string, 0, len(kids))
	for topic := range kids {
		topics = append(topics, topic)
	}
	for topic, err := range a.checkPolicies(topics) {
		if errors.Is(err, abi.StatusCompacted) {
			a.erase(kids[topic])
			if a.quiet.allow(err.Error(), now()) {
				a.log.Error("topic refused", "err", err)
			}
		}
	}
}

// topicNames remembers names by topic id. Ids are never used again, so that nothing of it
// can turn wrong.
type topicNames struct {
	mu sync.Mutex
	by map[[16]byte]string
}

// maxTopicNames bounds topicNames; a cluster has fewer topics, an attacker's ids are not
// kept.
const maxTopicNames = 1 << 16

// TopicName returns the name of the topic with this id, from Metadata (KIP-516).
func (a *Agent) TopicName(ctx context.Context, id [16]byte) (string, error) {
	a.names.mu.Lock()
	name, ok := a.names.by[id]
	a.names.mu.Unlock()
	if ok {
		return name, nil
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	t := kmsg.NewMetadataRequestTopic()
	t.TopicID = id
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = append(req.Topics, t)
	resp, err := req.RequestWith(ctx, a.cl)
	if err == nil && (len(resp.Topics) != 1 || resp.Topics[0].TopicID != id) {
		err = errors.New("the broker answered for another topic")
	}
	if err == nil {
		err = kerr.ErrorForCode(resp.Topics[0].ErrorCode)
	}
	if err == nil && resp.Topics[0].Topic == nil {
		err = errors.New("the broker does not tell its name")
	}
	if err != nil {
		return "", fmt.Errorf("topic with id %x: %w", id, err)
	}
	name = *resp.Topics[0].Topic
	a.names.mu.Lock()
	defer a.names.mu.Unlock()
	if a.names.by == nil || len(a.names.by) >= maxTopicNames {
		a.names.by = make(map[[16]byte]string)
	}
	a.names.by[id] = name
	return name, nil
}
