package kafka

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestAcquireBeforeKeepsWhatIsDelivered(t *testing.T) {
	response := kmsg.NewPtrShareFetchResponse()
	response.Version = 1
	topic := kmsg.NewShareFetchResponseTopic()
	part := kmsg.NewShareFetchResponseTopicPartition()
	for _, span := range [][2]int64{{10, 14}, {15, 29}, {30, 40}} {
		a := kmsg.NewShareFetchResponseTopicPartitionAcquiredRecord()
		a.FirstOffset, a.LastOffset, a.DeliveryCount = span[0], span[1], 2
		part.AcquiredRecords = append(part.AcquiredRecords, a)
	}
	topic.Partitions = append(topic.Partitions, part)
	response.Topics = append(response.Topics, topic)
	parsed, err := ParseShareFetchResponse(1, response.AppendTo(nil))
	if err != nil {
		t.Fatal(err)
	}
	if err := parsed.Topics[0].Partitions[0].AcquireBefore(20); err != nil {
		t.Fatal(err)
	}
	again := kmsg.NewPtrShareFetchResponse()
	again.Version = 1
	if err := again.ReadFrom(parsed.Append(nil)); err != nil {
		t.Fatal(err)
	}
	got := again.Topics[0].Partitions[0].AcquiredRecords
	if len(got) != 2 || got[0].LastOffset != 14 || got[1].FirstOffset != 15 || got[1].LastOffset != 19 || got[1].DeliveryCount != 2 {
		t.Fatalf("acquired %+v", got)
	}
}
