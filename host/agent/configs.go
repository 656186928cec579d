package agent

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A description is what the broker answered about the configuration of some topics: each
// has its settings or its own error, so that one topic without ACLs spoils no other.
type description map[string]described

type described struct {
	settings map[string]string
	err      error
}

// describe asks for the effective configuration of topics.
func describe(ctx context.Context, cl *kgo.Client, topics ...string) description {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	req := kmsg.NewPtrDescribeConfigsRequest()
	for _, topic := range topics {
		r := kmsg.NewDescribeConfigsRequestResource()
		r.ResourceType, r.ResourceName = kmsg.ConfigResourceTypeTopic, topic
		r.ConfigNames = []string{"cleanup.policy", "max.message.bytes", "message.timestamp.type", "retention.ms"}
		req.Resources = append(req.Resources, r)
	}
	d := make(description, len(topics))
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		for _, topic := range topics {
			d[topic] = described{err: err}
		}
		return d
	}
	for _, r := range resp.Resources {
		one := described{settings: make(map[string]string), err: kerr.ErrorForCode(r.ErrorCode)}
		for _, c := range r.Configs {
			if c.Value != nil {
				one.settings[c.Name] = *c.Value
			}
		}
		d[r.ResourceName] = one
	}
	return d
}

// get returns one setting of one topic.
func (d description) get(topic, key string) (string, error) {
	one, ok := d[topic]
	err := one.err
	value, told := one.settings[key]
	if err == nil && (!ok || !told) {
		err = errors.New("the broker does not tell")
	}
	if err != nil {
		return "", fmt.Errorf("topic %s: its %s cannot be read: %w", topic, key, err)
	}
	return value, nil
}
