package kafka_test

import (
	"bytes"
	"slices"
	"testing"

	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
)

// A gatherer is a body that carries records.
type gatherer interface {
	body
	Gather(b []byte) ([]byte, []kafka.Apart)
}

func TestGatheredBodyIsTheAppendedOne(t *testing.T) {
	records := [][]byte{nil, {}, bytes.Repeat([]byte{1}, 100), bytes.Repeat([]byte{2}, 4096), bytes.Repeat([]byte{3}, 20000), bytes.Repeat([]byte{4}, 7)}
	produce, fetch, share := &kafka.ProduceRequest{}, &kafka.FetchResponse{}, &kafka.ShareFetchResponse{}
	for range 2 {
		var p kafka.ProduceTopic
		var f kafka.FetchTopic
		var s kafka.ShareFetchTopic
		for i, r := range records {
			p.Partitions = append(p.Partitions, kafka.ProducePartition{Index: int32(i), Records: r})
			f.Partitions = append(f.Partitions, kafka.FetchPartition{Index: int32(i), Records: r})
			s.Partitions = append(s.Partitions, kafka.ShareFetchPartition{Index: int32(i), Records: r})
		}
		produce.Topics, fetch.Topics, share.Topics = append(produce.Topics, p), append(fetch.Topics, f), append(share.Topics, s)
	}
	for _, c := range []struct {
		key     int16
		body    gatherer
		version *int16
	}{{kafka.KeyProduce, produce, &produce.Version}, {kafka.KeyFetch, fetch, &fetch.Version}, {kafka.KeyShareFetch, share, &share.Version}} {
		low, high, _ := kafka.Supported(c.key)
		for *c.version = low; *c.version <= high; *c.version++ {
			head := []byte("header")
			want := c.body.Append(slices.Clone(head))
			b, apart := c.body.Gather(slices.Clone(head))
			if len(apart) != 4 {
				t.Errorf("%s v%d: %d runs of records stand apart, want the 4 long ones", kafka.APIName(c.key), *c.version, len(apart))
			}
			if got := slices.Concat(kafka.Join(nil, b, apart)...); !bytes.Equal(got, want) {
				t.Errorf("%s v%d: gathered and appended differ", kafka.APIName(c.key), *c.version)
			}
		}
	}
}
