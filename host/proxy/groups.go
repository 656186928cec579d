package proxy

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
)

// refuseGroup returns the answer to a request for a consumer group that the credential does
// not list, or nil where the request may pass. Keys are erased behind the groups that it
// does list (PROTOCOL.md §2.8): another one would find its data unreadable some minutes
// later, without knowing why.
func (c *conn) refuseGroup(h kafka.RequestHeader, body []byte) (appender, error) {
	if c.p.groups == nil {
		return nil, nil
	}
	names, ok, err := kafka.RequestGroups(h.Key, h.Version, body)
	if err != nil {
		return nil, &violation{"client", kafka.APIName(h.Key), h.Version, err}
	}
	if !ok {
		return nil, nil
	}
	for _, group := range names {
		if c.p.groups.AllowsGroup(group) {
			continue
		}
		c.p.stats.groupsRefused.Add(1)
		if c.p.quiet.allow("group " + group) {
			c.log.Warn("consumer group refused", "group", group, "api", kafka.APIName(h.Key),
				"hint", "issue a credential for this node that lists the group, or let the client use one that is listed")
		}
		refusal, err := groupRefusal(h.Key, h.Version, body)
		if err != nil {
			return nil, &violation{"client", kafka.APIName(h.Key), h.Version, err}
		}
		return refusal, nil
	}
	return nil, nil
}

// A groupResponse is a body that kmsg encodes: the module never needs these APIs.
type groupResponse struct{ kmsg.Response }

func (r groupResponse) Append(b []byte) []byte { return r.AppendTo(b) }

// maxRefused bounds the request in bytes that is read to be refused. For each byte of it
// kmsg may allocate a hundred.
const maxRefused = 1 << 20

// groupRefusal is GROUP_AUTHORIZATION_FAILED in the words of each API. A request for several
// groups, which only administrators' tools send, is refused whole.
func groupRefusal(key, version int16, body []byte) (appender, error) {
	if len(body) > maxRefused {
		return nil, fmt.Errorf("%d bytes for a group that the credential does not list: %w", len(body), kafka.ErrFrame)
	}
	request := kmsg.RequestForKey(key)
	if request == nil {
		return nil, fmt.Errorf("no answer is known: %w", kafka.ErrVersion)
	}
	request.SetVersion(version)
	if err := request.ReadFrom(body); err != nil {
		return nil, err
	}
	response := request.ResponseKind() // carries the request's version
	switch r := response.(type) {
	case *kmsg.JoinGroupResponse:
		r.Default()
		r.ErrorCode = codeGroupAuthorizationFailed
	case *kmsg.ConsumerGroupHeartbeatResponse:
		r.Default()
		r.ErrorCode = codeGroupAuthorizationFailed
	case *kmsg.ShareGroupHeartbeatResponse:
		r.Default()
		r.ErrorCode = codeGroupAuthorizationFailed
	case *kmsg.StreamsGroupHeartbeatResponse:
		r.Default()
		r.ErrorCode = codeGroupAuthorizationFailed
	case *kmsg.ShareFetchResponse:
		r.Default()
		r.ErrorCode = codeGroupAuthorizationFailed
	case *kmsg.OffsetCommitResponse:
		refuseOffsetCommit(r, request.(*kmsg.OffsetCommitRequest))
	case *kmsg.OffsetFetchResponse:
		refuseOffsetFetch(r, request.(*kmsg.OffsetFetchRequest))
	default:
		return nil, fmt.Errorf("no answer is known: %w", kafka.ErrVersion)
	}
	return groupResponse{response}, nil
}

func refuseOffsetCommit(r *kmsg.OffsetCommitResponse, request *kmsg.OffsetCommitRequest) {
	for _, topic := range request.Topics {
		t := kmsg.NewOffsetCommitResponseTopic()
		t.Topic, t.TopicID = topic.Topic, topic.TopicID
		for _, partition := range topic.Partitions {
			p := kmsg.NewOffsetCommitResponseTopicPartition()
			p.Partition, p.ErrorCode = partition.Partition, codeGroupAuthorizationFailed
			t.Partitions = append(t.Partitions, p)
		}
		r.Topics = append(r.Topics, t)
	}
}

func refuseOffsetFetch(r *kmsg.OffsetFetchResponse, request *kmsg.OffsetFetchRequest) {
	r.ErrorCode = codeGroupAuthorizationFailed // versions 2 to 7
	for _, topic := range request.Topics {
		if r.Version >= 2 {
			break // one error for all
		}
		t := kmsg.NewOffsetFetchResponseTopic()
		t.Topic = topic.Topic
		for _, partition := range topic.Partitions {
			p := kmsg.NewOffsetFetchResponseTopicPartition()
			p.Partition, p.Offset, p.ErrorCode = partition, -1, codeGroupAuthorizationFailed
			t.Partitions = append(t.Partitions, p)
		}
		r.Topics = append(r.Topics, t)
	}
	for _, group := range request.Groups { // from version 8
		g := kmsg.NewOffsetFetchResponseGroup()
		g.Group, g.ErrorCode = group.Group, codeGroupAuthorizationFailed
		r.Groups = append(r.Groups, g)
	}
}
