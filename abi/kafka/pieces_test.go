package kafka_test

import (
	"bytes"
	"slices"
	"testing"

	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
)

// A carrier is a body with records.
type carrier interface {
	body
	AppendApart(b []byte, pieces []kafka.Piece) ([]byte, []kafka.Piece)
}

func TestPiecesInTheirPlacesAreTheWholeBody(t *testing.T) {
	long, short := bytes.Repeat([]byte{7}, kafka.MinPiece), bytes.Repeat([]byte{8}, kafka.MinPiece-1)
	produce, fetch, share := &kafka.ProduceRequest{}, &kafka.FetchResponse{}, &kafka.ShareFetchResponse{}
	for range 2 {
		var p kafka.ProduceTopic
		var f kafka.FetchTopic
		var s kafka.ShareFetchTopic
		for i, r := range [][]byte{nil, {}, long, short, long} {
			p.Partitions = append(p.Partitions, kafka.ProducePartition{Index: int32(i), Records: r})
			f.Partitions = append(f.Partitions, kafka.FetchPartition{Index: int32(i), Records: r})
			s.Partitions = append(s.Partitions, kafka.ShareFetchPartition{Index: int32(i), Records: r})
		}
		produce.Topics, fetch.Topics, share.Topics = append(produce.Topics, p), append(fetch.Topics, f), append(share.Topics, s)
	}
	for _, c := range []struct {
		key     int16
		body    carrier
		version *int16
	}{{kafka.KeyProduce, produce, &produce.Version}, {kafka.KeyFetch, fetch, &fetch.Version}, {kafka.KeyShareFetch, share, &share.Version}} {
		low, high, _ := kafka.Supported(c.key)
		for *c.version = low; *c.version <= high; *c.version++ {
			name := kafka.APIName(c.key)
			want := c.body.Append([]byte("front"))
			own, pieces := c.body.AppendApart([]byte("front"), nil)
			if len(pieces) != 4 {
				t.Errorf("%s v%d: %d pieces, want the 4 long records", name, *c.version, len(pieces))
			}
			for _, p := range slices.Backward(pieces) {
				own = slices.Insert(own, p.At, p.Bytes...)
			}
			if !bytes.Equal(own, want) {
				t.Errorf("%s v%d: another body", name, *c.version)
			}
		}
	}
}
