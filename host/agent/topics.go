package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// The control topics (PROTOCOL.md §2.2).
const (
	rosterTopic     = keyring.RosterTopic
	grantsTopic     = keyring.GrantsTopic
	grantPartitions = keyring.GrantPartitions

	// minMessage must hold the largest control record (512 KiB, PROTOCOL.md §2.15).
	minMessage = 1 << 20
)

// A controlTopic is what a control topic must look like.
type controlTopic struct {
	name       string
	partitions int32
	configs    map[string]string // what it is created with
	required   []string          // of configs, those without which the protocol fails
}

func controlTopics(grantsRetention time.Duration) []controlTopic {
	size := strconv.Itoa(minMessage + 12) // Kafka's default: 1 MiB and the log overhead
	return []controlTopic{{
		name: rosterTopic, partitions: 1,
		configs:  map[string]string{"cleanup.policy": "compact", "max.message.bytes": size},
		required: []string{"cleanup.policy"},
	}, {
		name: grantsTopic, partitions: grantPartitions,
		configs: map[string]string{"cleanup.policy": "delete", "message.timestamp.type": "LogAppendTime",
			"retention.ms": strconv.FormatInt(grantsRetention.Milliseconds(), 10), "max.message.bytes": size},
		required: []string{"cleanup.policy", "message.timestamp.type"},
	}}
}

// ensureTopics creates the control topics where they are missing, waits for their leaders,
// and checks what already exists. Refused for want of ACLs, its error lists need.
func ensureTopics(ctx context.Context, cl *kgo.Client, topics []controlTopic, need aclList, log *slog.Logger) error {
	ctx, cancel := context.WithTimeoutCause(ctx, connectTimeout, errors.New("no answer within 15s"))
	defer cancel()
	adm := kadm.NewClient(cl)
	created := make(map[string]bool)
	var details kadm.TopicDetails
	for {
		var waiting string
		var err error
		if details, waiting, err = topicsOnce(ctx, adm, topics, created, need); err != nil {
			return err
		}
		if waiting == "" {
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("topic %s is not available: %w\nhint: check that the cluster has enough live brokers for its default replication factor", waiting, context.Cause(ctx))
		case <-time.After(100 * time.Millisecond):
		}
	}
	for _, t := range topics {
		if created[t.name] {
			log.Info("control topic created", "topic", t.name, "partitions", t.partitions, "replicas", len(details[t.name].Partitions[0].Replicas))
		}
		if n := len(details[t.name].Partitions); n != int(t.partitions) {
			return fmt.Errorf("topic %s has %d partitions instead of %d\nhint: delete it while no node runs, and let the agent create it", t.name, n, t.partitions)
		}
		if err := checkConfigs(ctx, cl, t, need); err != nil {
			return err
		}
	}
	return nil
}

// topicsOnce looks once at the topics and creates what is missing. Waiting names a topic
// that is not ready yet.
func topicsOnce(ctx context.Context, adm *kadm.Client, topics []controlTopic, created map[string]bool, need aclList) (details kadm.TopicDetails, waiting string, err error) {
	names := make([]string, len(topics))
	for i, t := range topics {
		names[i] = t.name
	}
	md, err := adm.Metadata(ctx, names...)
	if unauthorized(err) {
		return nil, "", need.refused(fmt.Errorf("control topics: describe: %w", err))
	}
	if err != nil {
		return nil, "", fmt.Errorf("control topics: metadata: %w\nhint: check that the brokers are up", err)
	}
	for _, t := range topics {
		_, tried := created[t.name]
		switch d := md.Topics[t.name]; {
		case errors.Is(d.Err, kerr.UnknownTopicOrPartition) && !tried:
			own, err := create(ctx, adm, t, need)
			if err != nil {
				return nil, "", err
			}
			created[t.name] = own
			waiting = t.name
		case unauthorized(d.Err):
			return nil, "", need.refused(fmt.Errorf("topic %s: describe: %w", t.name, d.Err))
		case d.Err != nil && !kerr.IsRetriable(d.Err):
			return nil, "", fmt.Errorf("topic %s: %w", t.name, d.Err)
		case d.Err != nil || len(d.Partitions) == 0:
			waiting = t.name
		default:
			for _, p := range d.Partitions {
				if p.Err != nil || p.Leader < 0 {
					waiting = t.name
				}
			}
		}
	}
	return md.Topics, waiting, nil
}

// create reports whether the topic is this node's making: another one may have been quicker.
func create(ctx context.Context, adm *kadm.Client, t controlTopic, need aclList) (bool, error) {
	configs := make(map[string]*string, len(t.configs))
	for k, v := range t.configs {
		configs[k] = &v
	}
	const brokerDefault = -1
	_, err := adm.CreateTopic(ctx, t.partitions, brokerDefault, configs, t.name)
	switch {
	case err == nil || errors.Is(err, kerr.TopicAlreadyExists):
		return err == nil, nil
	case unauthorized(err):
		return false, need.refused(fmt.Errorf("topic %s: create: %w", t.name, err))
	default:
		return false, fmt.Errorf("topic %s: create: %w\nhint: have it created with %d partitions and %s", t.name, err, t.partitions, settings(t.configs))
	}
}

// describeNew is describe for a topic that was perhaps just created: brokers hear of one at
// different times, and any of them may answer.
func describeNew(ctx context.Context, cl *kgo.Client, topic string) description {
	for {
		d := describe(ctx, cl, topic)
		if !errors.Is(d[topic].err, kerr.UnknownTopicOrPartition) {
			return d
		}
		select {
		case <-ctx.Done():
			return d
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// checkConfigs holds an existing topic against what the protocol needs of it.
func checkConfigs(ctx context.Context, cl *kgo.Client, t controlTopic, need aclList) error {
	described := describeNew(ctx, cl, t.name)
	get := func(key string) (string, error) {
		v, err := described.get(t.name, key)
		if unauthorized(err) {
			err = need.refused(err)
		}
		return v, err
	}
	for _, key := range t.required {
		got, err := get(key)
		if err != nil {
			return err
		}
		if got != t.configs[key] {
			return fmt.Errorf("topic %s has %s=%s instead of %s\nhint: kafka-configs.sh --bootstrap-server … --alter --entity-type topics --entity-name %s --add-config %s=%s",
				t.name, key, got, t.configs[key], t.name, key, t.configs[key])
		}
	}
	size, err := get("max.message.bytes")
	if err != nil {
		return err
	}
	if n, err := strconv.Atoi(size); err == nil && n < minMessage {
		return fmt.Errorf("topic %s has max.message.bytes=%d, under %d\nhint: kafka-configs.sh --bootstrap-server … --alter --entity-type topics --entity-name %s --add-config max.message.bytes=%d",
			t.name, n, minMessage, t.name, minMessage+12)
	}
	return nil
}

// compacts says whether a cleanup.policy destroys packed records (PROTOCOL.md §2.4).
func compacts(cleanupPolicy string) bool {
	return slices.ContainsFunc(strings.Split(cleanupPolicy, ","), func(p string) bool {
		return strings.TrimSpace(p) == "compact"
	})
}

func settings(m map[string]string) string {
	var s []string
	for k, v := range m {
		s = append(s, k+"="+v)
	}
	slices.Sort(s)
	return strings.Join(s, ", ")
}
