package proxy

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
)

// stored returns the record sections that the broker holds for a partition, one for each
// batch, read past the sidecar.
func stored(r *rig, topic string, partition int32) []string {
	r.Helper()
	req := kmsg.NewPtrFetchRequest()
	req.MaxBytes, req.MaxWaitMillis = 64<<20, 10
	t := kmsg.NewFetchRequestTopic()
	t.Topic, t.TopicID = topic, topicID(r, topic)
	p := kmsg.NewFetchRequestTopicPartition()
	p.Partition, p.PartitionMaxBytes = partition, 64<<20
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	resp, err := req.RequestWith(r.ctx(), r.around)
	if err != nil {
		r.Fatal(err)
	}
	var sections []string
	for b := resp.Topics[0].Partitions[0].RecordBatches; len(b) > 0; {
		size, err := kafka.BatchSize(b)
		if err != nil {
			r.Fatal(err)
		}
		sections = append(sections, string(b[kafka.BatchHeaderSize:size]))
		b = b[size:]
	}
	return sections
}

func topicID(r *rig, topic string) [16]byte {
	r.Helper()
	req := kmsg.NewPtrMetadataRequest()
	t := kmsg.NewMetadataRequestTopic()
	t.Topic = kmsg.StringPtr(topic)
	req.Topics = append(req.Topics, t)
	resp, err := req.RequestWith(r.ctx(), r.around)
	if err != nil {
		r.Fatal(err)
	}
	return resp.Topics[0].TopicID
}
