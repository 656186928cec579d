package kafka_test

import (
	"bytes"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
)

// brokersHost is what no body may hold after every address was replaced.
const brokersHost = "broker-17.internal.example"

func TestMetadataWithOtherAddressesIsKmsgs(t *testing.T) {
	formatOf("Metadata response").eachSample(t, func(t *testing.T, version int16, m message) {
		want := m.(*kmsg.MetadataResponse)
		for i := range want.Brokers {
			want.Brokers[i].Host = brokersHost
		}
		got, err := kafka.ParseMetadataResponse(version, m.AppendTo(nil))
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Brokers) != len(want.Brokers) || len(got.Topics) != len(want.Topics) ||
			version >= 1 && got.ControllerID != want.ControllerID || version >= 2 && !sameNullable(got.ClusterID, want.ClusterID) {
			t.Fatalf("%+v, want %+v", got, want)
		}
		for i := range got.Brokers {
			replace(t, &got.Brokers[i], &want.Brokers[i].Host, &want.Brokers[i].Port, want.Brokers[i].NodeID)
			if version >= 1 && !sameNullable(got.Brokers[i].Rack, want.Brokers[i].Rack) {
				t.Fatalf("%+v, want %+v", got.Brokers[i], want.Brokers[i])
			}
		}
		for i, topic := range got.Topics {
			w := want.Topics[i]
			name, null := "", w.Topic == nil && version >= 12
			if w.Topic != nil {
				name = *w.Topic
			}
			if topic.ErrorCode != w.ErrorCode || topic.Name != name || topic.NullName != null || version >= 10 && topic.ID != w.TopicID {
				t.Fatalf("%+v, want %+v", topic, w)
			}
		}
		mustEqual(t, got, want)
		mustNotLeak(t, got)
	})
}

func TestFindCoordinatorWithOtherAddressesIsKmsgs(t *testing.T) {
	formatOf("FindCoordinator response").eachSample(t, func(t *testing.T, version int16, m message) {
		want := m.(*kmsg.FindCoordinatorResponse)
		want.Host = brokersHost
		for i := range want.Coordinators {
			want.Coordinators[i].Host = brokersHost
		}
		got, err := kafka.ParseFindCoordinatorResponse(version, m.AppendTo(nil))
		if err != nil {
			t.Fatal(err)
		}
		if version < 4 {
			c := &got.Coordinators[0]
			if len(got.Coordinators) != 1 || c.NodeID != want.NodeID || c.Host != want.Host || c.Port != want.Port || c.ErrorCode != want.ErrorCode {
				t.Fatalf("%+v, want %+v", got, want)
			}
			c.Host, c.Port = "localhost", 19092
			want.Host, want.Port = "localhost", 19092
		} else {
			for i := range want.Coordinators {
				c, w := &got.Coordinators[i], &want.Coordinators[i]
				if c.Key != w.Key || c.NodeID != w.NodeID || c.Host != w.Host || c.Port != w.Port || c.ErrorCode != w.ErrorCode || !sameNullable(c.ErrorMessage, w.ErrorMessage) {
					t.Fatalf("%+v, want %+v", c, w)
				}
				c.Host, c.Port = "localhost", 19092
				w.Host, w.Port = "localhost", 19092
			}
		}
		mustEqual(t, got, want)
		mustNotLeak(t, got)
	})
}

func TestDescribeClusterWithOtherAddressesIsKmsgs(t *testing.T) {
	formatOf("DescribeCluster response").eachSample(t, func(t *testing.T, version int16, m message) {
		want := m.(*kmsg.DescribeClusterResponse)
		for i := range want.Brokers {
			want.Brokers[i].Host = brokersHost
		}
		got, err := kafka.ParseDescribeClusterResponse(version, m.AppendTo(nil))
		if err != nil {
			t.Fatal(err)
		}
		if got.ClusterID != want.ClusterID || got.ControllerID != want.ControllerID || got.ErrorCode != want.ErrorCode ||
			version >= 1 && got.EndpointType != want.EndpointType || version == 0 && got.EndpointType != kafka.EndpointBrokers {
			t.Fatalf("%+v, want %+v", got, want)
		}
		for i := range got.Brokers {
			b, w := &got.Brokers[i], &want.Brokers[i]
			if version >= 2 && b.Fenced != w.IsFenced || !sameNullable(b.Rack, w.Rack) {
				t.Fatalf("%+v, want %+v", b, w)
			}
			replace(t, b, &w.Host, &w.Port, w.NodeID)
		}
		mustEqual(t, got, want)
		mustNotLeak(t, got)
	})
}

func TestDescribeQuorumWithOtherAddressesIsKmsgs(t *testing.T) {
	formatOf("DescribeQuorum response").eachSample(t, func(t *testing.T, version int16, m message) {
		want := m.(*kmsg.DescribeQuorumResponse)
		for i := range want.Nodes {
			for j := range want.Nodes[i].Listeners {
				want.Nodes[i].Listeners[j].Host = brokersHost
			}
		}
		got, err := kafka.ParseDescribeQuorumResponse(version, m.AppendTo(nil))
		if err != nil {
			t.Fatal(err)
		}
		for i := range got.Nodes {
			n, w := &got.Nodes[i], &want.Nodes[i]
			if n.NodeID != w.NodeID || len(n.Listeners) != len(w.Listeners) {
				t.Fatalf("%+v, want %+v", n, w)
			}
			for j := range n.Listeners {
				l, w := &n.Listeners[j], &w.Listeners[j]
				if l.Name != w.Name || l.Host != w.Host || l.Port != w.Port {
					t.Fatalf("%+v, want %+v", l, w)
				}
				l.Host, l.Port = "localhost", 60000
				w.Host, w.Port = "localhost", 60000
			}
		}
		mustEqual(t, got, want)
		mustNotLeak(t, got)
	})
}

// The answers about records name the addresses of new leaders in passing (KIP-951).
func TestNodeEndpointsAreLeftOut(t *testing.T) {
	leaking := 0
	for _, f := range formats {
		f.eachSample(t, func(t *testing.T, version int16, m message) {
			switch m := m.(type) {
			case *kmsg.ProduceResponse:
				m.Brokers = []kmsg.ProduceResponseBroker{{NodeID: 3, Host: brokersHost, Port: 9092}}
			case *kmsg.FetchResponse:
				m.Brokers = []kmsg.FetchResponseBroker{{NodeID: 3, Host: brokersHost, Port: 9092}}
			case *kmsg.ShareFetchResponse:
				m.NodeEndpoints = []kmsg.ShareFetchResponseNodeEndpoint{{NodeID: 3, Host: brokersHost, Port: 9092}}
			case *kmsg.ShareAcknowledgeResponse:
				m.NodeEndpoints = []kmsg.ShareAcknowledgeResponseNodeEndpoint{{NodeID: 3, Host: brokersHost, Port: 9092}}
			default:
				return
			}
			in := m.AppendTo(nil)
			if bytes.Contains(in, []byte(brokersHost)) {
				leaking++
			}
			got, err := f.parse(version, in)
			if err != nil {
				t.Fatal(err)
			}
			mustNotLeak(t, got)
			mustEqual(t, got, m)
		})
	}
	if leaking == 0 {
		t.Fatal("no sample held an address")
	}
}

// A broker might repeat the tag, or give it in a padded varint.
func TestNodeEndpointsAreLeftOutHoweverTheyAreTagged(t *testing.T) {
	field := append([]byte{byte(len(brokersHost))}, brokersHost...)
	tags := []byte{4}
	tags = append(append(tags, 0), field...)
	tags = append(tags, 5, 1, 'x')
	tags = append(append(tags, 0x80, 0), field...)
	tags = append(append(tags, 0), field...)
	in := append([]byte{1, 0, 0, 0, 0}, tags...) // no topics, throttle 0
	got, err := kafka.ParseProduceResponse(10, in)
	if err != nil {
		t.Fatal(err)
	}
	if out, want := got.Append(nil), []byte{1, 0, 0, 0, 0, 1, 5, 1, 'x'}; !bytes.Equal(out, want) {
		t.Fatalf("%x, want %x", out, want)
	}
}

// replace gives a broker a local address, here and in kmsg's struct, after comparing them.
func replace(t *testing.T, b *kafka.Broker, host *string, port *int32, node int32) {
	t.Helper()
	if b.Host != *host || b.Port != *port || b.NodeID != node {
		t.Fatalf("%+v, want node %d at %s:%d", b, node, *host, *port)
	}
	b.Host, b.Port = "localhost", 19092
	*host, *port = "localhost", 19092
}

func mustNotLeak(t *testing.T, b body) {
	t.Helper()
	if bytes.Contains(b.Append(nil), []byte(brokersHost)) {
		t.Fatalf("a broker's address is left in %+v", b)
	}
}
