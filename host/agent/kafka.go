package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	// connectTimeout bounds the start against brokers that do not answer.
	connectTimeout = 15 * time.Second
	// requestTimeout bounds one question to a broker, with its retries.
	requestTimeout = 10 * time.Second
)

// newClient makes a client of its own with the operator's options (seeds, TLS, SASL) and
// bounds on everything that could hang.
//
// Writes are not idempotent: a control record written twice means nothing the second time,
// and only so can a write be given up after its 30 s (PROTOCOL.md §2.7.3).
func newClient(operator []kgo.Opt, own ...kgo.Opt) (*kgo.Client, error) {
	opts := slices.Concat([]kgo.Opt{
		kgo.ClientID("wasm-e2ee-agent"),
		kgo.DialTimeout(5 * time.Second),
	}, operator, []kgo.Opt{
		kgo.DisableClientMetrics(),
		kgo.RequestTimeoutOverhead(5 * time.Second),
		kgo.RetryTimeout(requestTimeout),
		kgo.MetadataMinAge(250 * time.Millisecond),
		kgo.MetadataMaxAge(time.Minute),
		kgo.RetryBackoffFn(backoff),
		kgo.DisableIdempotentWrite(),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(kgo.NoCompression()), // what we write is random bytes
		kgo.RecordDeliveryTimeout(ackTimeout),
		kgo.ProduceRequestTimeout(requestTimeout),
	}, own)
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, fmt.Errorf("kafka client: %w", err)
	}
	return cl, nil
}

// backoff grows from 100 ms to 2 s: rotation and pending fetches wait on these retries.
func backoff(fails int) time.Duration {
	return min(100*time.Millisecond<<min(fails, 5), 2*time.Second)
}

// ping asks any broker anything, within connectTimeout.
func ping(ctx context.Context, cl *kgo.Client) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	err := cl.Ping(ctx)
	if err == nil {
		return nil
	}
	hint := "check that the address is right and reachable from here, and whether the listener wants TLS or SASL"
	if errors.Is(err, kerr.SaslAuthenticationFailed) {
		hint = "check the SASL user name, password and mechanism of the agent's own connection"
	}
	return fmt.Errorf("kafka brokers %v cannot be reached: %w\nhint: %s", cl.OptValue(kgo.SeedBrokers), err, hint)
}

// listOffset asks the leader of one partition for an offset: listEnd or listStart.
func listOffset(ctx context.Context, cl *kgo.Client, topic string, partition int32, which int64) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	p := kmsg.NewListOffsetsRequestTopicPartition()
	p.Partition, p.Timestamp = partition, which
	t := kmsg.NewListOffsetsRequestTopic()
	t.Topic, t.Partitions = topic, append(t.Partitions, p)
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID, req.Topics = -1, append(req.Topics, t)
	resp, err := req.RequestWith(ctx, cl)
	if err == nil && (len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1) {
		err = errors.New("the broker answered for another partition")
	}
	if err == nil {
		err = kerr.ErrorForCode(resp.Topics[0].Partitions[0].ErrorCode)
	}
	if err != nil {
		return 0, fmt.Errorf("topic %s, partition %d: offsets: %w", topic, partition, err)
	}
	return resp.Topics[0].Partitions[0].Offset, nil
}

// What listOffset may ask for (Kafka's ListOffsets request).
const (
	listEnd   = -1
	listStart = -2
)

// unauthorized says whether a broker refused for want of an ACL.
func unauthorized(err error) bool {
	return errors.Is(err, kerr.TopicAuthorizationFailed) || errors.Is(err, kerr.ClusterAuthorizationFailed) ||
		errors.Is(err, kerr.GroupAuthorizationFailed)
}
