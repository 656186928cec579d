package kafka_test

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
)

func TestFetchResponseFieldsAreKmsgs(t *testing.T) {
	formatOf("Fetch response").eachSample(t, func(t *testing.T, version int16, m message) {
		want := m.(*kmsg.FetchResponse)
		got, err := kafka.ParseFetchResponse(version, m.AppendTo(nil))
		if err != nil {
			t.Fatal(err)
		}
		if got.ThrottleMs != want.ThrottleMillis || len(got.Topics) != len(want.Topics) ||
			version >= 7 && (got.ErrorCode != want.ErrorCode || got.SessionID != want.SessionID) {
			t.Fatalf("%+v, want %+v", got, want)
		}
		for i, topic := range got.Topics {
			w := want.Topics[i]
			sameTopic(t, version >= 13, topic.Name, topic.ID, w.Topic, w.TopicID)
			for j, p := range topic.Partitions {
				w := w.Partitions[j]
				if p.Index != w.Partition || p.ErrorCode != w.ErrorCode || p.HighWatermark != w.HighWatermark ||
					p.LastStableOffset != w.LastStableOffset || version >= 5 && p.LogStartOffset != w.LogStartOffset ||
					(p.Aborted == nil) != (w.AbortedTransactions == nil) ||
					version >= 11 && p.PreferredReadReplica != w.PreferredReadReplica || !sameBytes(p.Records, w.RecordBatches) {
					t.Fatalf("%+v, want %+v", p, w)
				}
			}
		}
	})
}

func TestFetchResponseWithOtherRecordsAndErrorsIsKmsgs(t *testing.T) {
	formatOf("Fetch response").eachSample(t, func(t *testing.T, version int16, m message) {
		want := m.(*kmsg.FetchResponse)
		got, err := kafka.ParseFetchResponse(version, m.AppendTo(nil))
		if err != nil {
			t.Fatal(err)
		}
		for i := range got.Topics {
			for j := range got.Topics[i].Partitions {
				p, w := &got.Topics[i].Partitions[j], &want.Topics[i].Partitions[j]
				p.Records, w.RecordBatches = swapped(i+j), swapped(i+j)
				p.ErrorCode, w.ErrorCode = 29, 29
				p.Aborted, w.AbortedTransactions = nil, nil
			}
		}
		mustEqual(t, got, want)
	})
}

func TestShareFetchResponseFieldsAreKmsgs(t *testing.T) {
	formatOf("ShareFetch response").eachSample(t, func(t *testing.T, version int16, m message) {
		want := m.(*kmsg.ShareFetchResponse)
		got, err := kafka.ParseShareFetchResponse(version, m.AppendTo(nil))
		if err != nil {
			t.Fatal(err)
		}
		if got.ThrottleMs != want.ThrottleMillis || got.ErrorCode != want.ErrorCode || len(got.Topics) != len(want.Topics) ||
			!sameNullable(got.ErrorMessage, want.ErrorMessage) || got.LockTimeoutMs != want.AcquisitionLockTimeoutMillis {
			t.Fatalf("%+v, want %+v", got, want)
		}
		for i, topic := range got.Topics {
			w := want.Topics[i]
			if topic.ID != w.TopicID || len(topic.Partitions) != len(w.Partitions) {
				t.Fatalf("%+v, want %+v", topic, w)
			}
			for j, p := range topic.Partitions {
				w := w.Partitions[j]
				if p.Index != w.Partition || p.ErrorCode != w.ErrorCode || !sameNullable(p.ErrorMessage, w.ErrorMessage) ||
					p.AckErrorCode != w.AcknowledgeErrorCode || !sameNullable(p.AckErrorMessage, w.AcknowledgeErrorMessage) ||
					!sameBytes(p.Records, w.Records) {
					t.Fatalf("%+v, want %+v", p, w)
				}
			}
		}
	})
}

func TestShareFetchResponseWithOtherRecordsAndErrorsIsKmsgs(t *testing.T) {
	formatOf("ShareFetch response").eachSample(t, func(t *testing.T, version int16, m message) {
		want := m.(*kmsg.ShareFetchResponse)
		got, err := kafka.ParseShareFetchResponse(version, m.AppendTo(nil))
		if err != nil {
			t.Fatal(err)
		}
		for i := range got.Topics {
			for j := range got.Topics[i].Partitions {
				p, w := &got.Topics[i].Partitions[j], &want.Topics[i].Partitions[j]
				p.Records, w.Records = swapped(i+j), swapped(i+j)
				p.ErrorCode, w.ErrorCode = 29, 29
				p.ErrorMessage, w.ErrorMessage = []byte("no"), kmsg.StringPtr("no")
				p.Acquired, w.AcquiredRecords = nil, nil
				p.Leader, w.CurrentLeader = nil, kmsg.ShareFetchResponseTopicPartitionCurrentLeader{LeaderID: -1, LeaderEpoch: -1}
			}
		}
		mustEqual(t, got, want)
	})
}
