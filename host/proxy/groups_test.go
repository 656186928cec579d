package proxy

import (
	"errors"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
)

// listed is a credential that lists groups by prefix.
type listed string

func (l listed) AllowsGroup(group string) bool { return strings.HasPrefix(group, string(l)) }

func TestGroupThatTheCredentialDoesNotListIsRefused(t *testing.T) {
	r := newRig(t, nil, listed("billing"))
	r.createTopic("orders", 1)
	r.produce(r.client(), "orders", 0, "x", "y")
	if got := r.consume(r.client(from("orders"), kgo.ConsumerGroup("billing-1")), 2); len(got) != 2 {
		t.Errorf("the listed group got %v", got)
	}
	for _, opts := range [][]kgo.Opt{
		{from("orders"), kgo.ConsumerGroup("audit")},
		{from("orders"), kgo.ShareGroup("audit")},
	} {
		got, err := pollError(r, r.client(opts...))
		if len(got) != 0 || !errors.Is(err, kerr.GroupAuthorizationFailed) {
			t.Errorf("got %v and %v", got, err)
		}
	}
	if r.proxy.Stats().GroupsRefused == 0 || r.logged.count("consumer group refused", "group=audit", "hint=") != 1 {
		t.Error("want the refusal counted, and logged once")
	}
}

// TestGroupRefusalIsReadInEveryVersion also holds each refused API to each version that the
// sidecar passes: one that could not be answered would close the connection.
func TestGroupRefusalIsReadInEveryVersion(t *testing.T) {
	for _, key := range []int16{kafka.KeyJoinGroup, kafka.KeyOffsetCommit, kafka.KeyOffsetFetch, kafka.KeyConsumerGroupHeartbeat,
		kafka.KeyShareGroupHeartbeat, kafka.KeyShareFetch, kafka.KeyStreamsGroupHeartbeat} {
		low, high, ok := kafka.Supported(key)
		if !ok {
			t.Fatalf("%s is not passed", kafka.APIName(key))
		}
		for version := low; version <= high; version++ {
			request := groupRequest(key, version)
			out, err := groupRefusal(key, version, request.AppendTo(nil))
			if err != nil {
				t.Errorf("%s v%d: %v", kafka.APIName(key), version, err)
				continue
			}
			response := request.ResponseKind()
			if err := response.ReadFrom(out.Append(nil)); err != nil {
				t.Errorf("%s v%d: %v", kafka.APIName(key), version, err)
				continue
			}
			if code := refusedCode(response); code != codeGroupAuthorizationFailed {
				t.Errorf("%s v%d: code %d", kafka.APIName(key), version, code)
			}
		}
	}
}

func groupRequest(key, version int16) kmsg.Request {
	request := kmsg.RequestForKey(key)
	request.SetVersion(version)
	switch q := request.(type) {
	case *kmsg.JoinGroupRequest:
		q.Default()
		q.Group = "g"
	case *kmsg.OffsetCommitRequest:
		q.Default()
		q.Group = "g"
		topic := kmsg.NewOffsetCommitRequestTopic()
		topic.Topic = "orders"
		topic.Partitions = append(topic.Partitions, kmsg.NewOffsetCommitRequestTopicPartition())
		q.Topics = append(q.Topics, topic)
	case *kmsg.OffsetFetchRequest:
		q.Default()
		q.Group = "g"
		topic := kmsg.NewOffsetFetchRequestTopic()
		topic.Topic, topic.Partitions = "orders", []int32{0}
		q.Topics = append(q.Topics, topic)
		group := kmsg.NewOffsetFetchRequestGroup()
		group.Group = "g"
		q.Groups = append(q.Groups, group)
	case *kmsg.ShareFetchRequest:
		q.Default()
		q.GroupID = kmsg.StringPtr("g")
	}
	return request
}

func refusedCode(response kmsg.Response) int16 {
	switch r := response.(type) {
	case *kmsg.JoinGroupResponse:
		return r.ErrorCode
	case *kmsg.OffsetCommitResponse:
		return r.Topics[0].Partitions[0].ErrorCode
	case *kmsg.OffsetFetchResponse:
		switch {
		case r.Version < 2:
			return r.Topics[0].Partitions[0].ErrorCode
		case r.Version < 8:
			return r.ErrorCode
		}
		return r.Groups[0].ErrorCode
	case *kmsg.ConsumerGroupHeartbeatResponse:
		return r.ErrorCode
	case *kmsg.ShareGroupHeartbeatResponse:
		return r.ErrorCode
	case *kmsg.ShareFetchResponse:
		return r.ErrorCode
	case *kmsg.StreamsGroupHeartbeatResponse:
		return r.ErrorCode
	}
	return 0
}
