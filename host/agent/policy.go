package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/twmb/franz-go/pkg/kerr"

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

// topics lists those refused.
func (p *policies) topics() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Keys(p.refused))
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
// sealed for. A policy that cannot be read refuses the topic, and so does a grants topic
// that no longer carries the broker's time, without which skew is not seen.
func (a *Agent) checkPolicies(topics []string) map[string]error {
	errs := make(map[string]error)
	d := describe(a.ctx, a.cl, append(slices.Clone(topics), grantsTopic)...)
	stamps, err := a.settingOf(d, grantsTopic, "message.timestamp.type")
	if err == nil && stamps != "LogAppendTime" {
		err = fmt.Errorf("%w: topic %s has message.timestamp.type=%s\nhint: kafka-configs.sh --bootstrap-server … --alter --entity-type topics --entity-name %s --add-config message.timestamp.type=LogAppendTime", abi.StatusUnavailable, grantsTopic, stamps, grantsTopic)
	}
	for _, topic := range topics {
		terr := err
		if terr == nil {
			terr = a.compaction(d, topic)
		}
		if terr != nil {
			errs[topic] = terr
		}
		a.policy.note(topic, terr)
	}
	return errs
}

// compaction says why topic cannot be sealed for.
func (a *Agent) compaction(d description, topic string) error {
	cleanup, err := a.settingOf(d, topic, "cleanup.policy")
	if err == nil && compacts(cleanup) {
		err = fmt.Errorf("topic %s: %w (cleanup.policy=%s): sealed batches would lose their records\nhint: set cleanup.policy=delete on the topic, or declare it plain in the policy", topic, abi.StatusCompacted, cleanup)
	}
	return err
}

// settingOf is get with what an operator can do about an error.
func (a *Agent) settingOf(d description, topic, key string) (string, error) {
	value, err := d.get(topic, key)
	switch {
	case err == nil:
		return value, nil
	case a.ctx.Err() != nil:
		return "", fmt.Errorf("topic %s: %w", topic, context.Cause(a.ctx))
	case unauthorized(err):
		err = fmt.Errorf("%w\nhint: allow the agent's principal DescribeConfigs on Topic %s", err, topic)
	case errors.Is(err, kerr.UnknownTopicOrPartition):
		err = fmt.Errorf("%w\nhint: create topic %s", err, topic)
	}
	return "", unavailable(err)
}

// watchPolicies takes back the keys of topics that have been switched to compaction, and
// finds out which are to be served again.
func (a *Agent) watchPolicies() {
	kids := make(map[string][]abi.Kid)
	for _, topic := range a.policy.topics() {
		kids[topic] = nil
	}
	a.mu.Lock()
	for _, v := range a.producer.Epochs() {
		kids[v.Topic] = append(kids[v.Topic], v.Kid)
	}
	a.mu.Unlock()
	if len(kids) == 0 {
		return
	}
	for topic, err := range a.checkPolicies(slices.Sorted(maps.Keys(kids))) {
		if errors.Is(err, abi.StatusCompacted) {
			a.erase(kids[topic])
			if a.quiet.allow(err.Error(), 1) {
				a.log.Error("topic refused", "err", err)
			}
		}
	}
}
