package kafka_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
)

// swapped are records that are longer, shorter, empty or null where there were others.
func swapped(i int) []byte {
	return [][]byte{bytes.Repeat([]byte("sealed"), 60), []byte("s"), {}, nil}[i%4]
}

func TestProduceRequestFieldsAreKmsgs(t *testing.T) {
	formatOf("Produce request").eachSample(t, func(t *testing.T, version int16, m message) {
		want := m.(*kmsg.ProduceRequest)
		got, err := kafka.ParseProduceRequest(version, m.AppendTo(nil))
		if err != nil {
			t.Fatal(err)
		}
		if !sameNullable(got.TransactionalID, want.TransactionID) || got.Acks != want.Acks ||
			got.TimeoutMs != want.TimeoutMillis || len(got.Topics) != len(want.Topics) {
			t.Fatalf("%+v, want %+v", got, want)
		}
		for i, topic := range got.Topics {
			w := want.Topics[i]
			sameTopic(t, version >= 13, topic.Name, topic.ID, w.Topic, w.TopicID)
			if len(topic.Partitions) != len(w.Partitions) {
				t.Fatalf("%+v, want %+v", topic, w)
			}
			for j, p := range topic.Partitions {
				if p.Index != w.Partitions[j].Partition || !sameBytes(p.Records, w.Partitions[j].Records) {
					t.Fatalf("%+v, want %+v", p, w.Partitions[j])
				}
			}
		}
	})
}

func TestProduceRequestWithOtherRecordsIsKmsgs(t *testing.T) {
	formatOf("Produce request").eachSample(t, func(t *testing.T, version int16, m message) {
		want := m.(*kmsg.ProduceRequest)
		got, err := kafka.ParseProduceRequest(version, m.AppendTo(nil))
		if err != nil {
			t.Fatal(err)
		}
		for i := range got.Topics {
			for j := range got.Topics[i].Partitions {
				got.Topics[i].Partitions[j].Records = swapped(i + j)
				want.Topics[i].Partitions[j].Records = swapped(i + j)
			}
		}
		mustEqual(t, got, want)
	})
}

func TestProduceRequestWithoutRefusedPartitionsIsKmsgs(t *testing.T) {
	formatOf("Produce request").eachSample(t, func(t *testing.T, version int16, m message) {
		want := m.(*kmsg.ProduceRequest)
		got, err := kafka.ParseProduceRequest(version, m.AppendTo(nil))
		if err != nil {
			t.Fatal(err)
		}
		for i := range got.Topics {
			if n := len(got.Topics[i].Partitions); n > 0 {
				got.Topics[i].Partitions = got.Topics[i].Partitions[1:]
				want.Topics[i].Partitions = want.Topics[i].Partitions[1:]
			}
		}
		if len(got.Topics) > 1 {
			got.Topics = append(got.Topics[:1], got.Topics[2:]...)
			want.Topics = append(want.Topics[:1], want.Topics[2:]...)
		}
		mustEqual(t, got, want)
	})
}

func TestProduceRequestsOfOldMessageSetsAreRefused(t *testing.T) {
	for version := int16(0); version < 3; version++ {
		q := kmsg.NewPtrProduceRequest()
		q.Version = version
		if _, err := kafka.ParseProduceRequest(version, q.AppendTo(nil)); !errors.Is(err, kafka.ErrVersion) {
			t.Errorf("v%d: %v", version, err)
		}
	}
}

func TestProduceResponseFieldsAreKmsgs(t *testing.T) {
	formatOf("Produce response").eachSample(t, func(t *testing.T, version int16, m message) {
		want := m.(*kmsg.ProduceResponse)
		got, err := kafka.ParseProduceResponse(version, m.AppendTo(nil))
		if err != nil {
			t.Fatal(err)
		}
		if got.ThrottleMs != want.ThrottleMillis || len(got.Topics) != len(want.Topics) {
			t.Fatalf("%+v, want %+v", got, want)
		}
		for i, topic := range got.Topics {
			w := want.Topics[i]
			sameTopic(t, version >= 13, topic.Name, topic.ID, w.Topic, w.TopicID)
			for j, p := range topic.Partitions {
				w := w.Partitions[j]
				if p.Index != w.Partition || p.ErrorCode != w.ErrorCode || p.BaseOffset != w.BaseOffset ||
					p.LogAppendTime != w.LogAppendTime || version >= 5 && p.LogStartOffset != w.LogStartOffset ||
					version >= 8 && !sameNullable(p.ErrorMessage, w.ErrorMessage) {
					t.Fatalf("%+v, want %+v", p, w)
				}
			}
		}
	})
}

func TestRefusedPartitionsJoinTheBrokersAnswer(t *testing.T) {
	formatOf("Produce response").eachSample(t, func(t *testing.T, version int16, m message) {
		want := m.(*kmsg.ProduceResponse)
		got, err := kafka.ParseProduceResponse(version, m.AppendTo(nil))
		if err != nil {
			t.Fatal(err)
		}
		refusal := kmsg.NewProduceResponseTopicPartition()
		refusal.Partition, refusal.ErrorCode, refusal.BaseOffset = 9, 44, -1
		refusal.ErrorMessage = kmsg.StringPtr("no entitled consumer")

		if len(want.Topics) > 0 { // the first topic that it is equal to gets the partition
			name, id := want.Topics[0].Topic, want.Topics[0].TopicID
			got.Add(name, id, 9, 44, "no entitled consumer")
			want.Topics[0].Partitions = append(want.Topics[0].Partitions, refusal)
		}
		id := [16]byte{1, 2, 3}
		got.Add("A topic of its own", id, 9, 44, "no entitled consumer")
		topic := kmsg.NewProduceResponseTopic()
		topic.Topic, topic.TopicID = "A topic of its own", id
		topic.Partitions = append(topic.Partitions, refusal)
		want.Topics = append(want.Topics, topic)
		mustEqual(t, got, want)
	})
}

func TestRefusedRequestIsAnsweredForEveryPartition(t *testing.T) {
	formatOf("Produce request").eachSample(t, func(t *testing.T, version int16, m message) {
		q, err := kafka.ParseProduceRequest(version, m.AppendTo(nil))
		if err != nil {
			t.Fatal(err)
		}
		for i := range q.Topics {
			q.Topics[i].Name += string(rune('0' + i)) // names of kmsg's sample may be equal
		}
		refusal := &kafka.ProduceResponse{Version: version}
		for _, topic := range q.Topics {
			for _, p := range topic.Partitions {
				refusal.Add(topic.Name, topic.ID, p.Index, 19, "")
			}
		}
		answer := kmsg.NewPtrProduceResponse()
		answer.Version = version
		if err := answer.ReadFrom(refusal.Append(nil)); err != nil {
			t.Fatal(err)
		}
		type place struct {
			name  string
			id    [16]byte
			index int32
		}
		var asked, answered []place
		for _, topic := range q.Topics {
			for _, p := range topic.Partitions {
				at := place{id: topic.ID, index: p.Index}
				if version < 13 {
					at.name = topic.Name
				}
				asked = append(asked, at)
			}
		}
		for _, topic := range answer.Topics {
			for _, p := range topic.Partitions {
				if p.ErrorCode != 19 || p.ErrorMessage != nil || p.BaseOffset != -1 {
					t.Fatalf("%+v", p)
				}
				answered = append(answered, place{topic.Topic, topic.TopicID, p.Partition})
			}
		}
		if len(asked) != len(answered) {
			t.Fatalf("%d partitions, %d answers", len(asked), len(answered))
		}
		for i := range asked {
			if asked[i] != answered[i] {
				t.Fatalf("answer %d is for %+v, want %+v", i, answered[i], asked[i])
			}
		}
	})
}

// mustEqual compares what we append with what kmsg does, and has kmsg read ours.
func mustEqual(t *testing.T, got body, want message) {
	t.Helper()
	clearEndpoints(want)
	ours, theirs := got.Append(nil), want.AppendTo(nil)
	if !bytes.Equal(ours, theirs) {
		t.Fatalf("appended\n%x\nwant\n%x\n%+v", ours, theirs, want)
	}
	if err := want.ReadFrom(ours); err != nil {
		t.Fatalf("kmsg does not read it: %v", err)
	}
}

func sameTopic(t *testing.T, byID bool, name string, id [16]byte, wantName string, wantID [16]byte) {
	t.Helper()
	if byID {
		wantName = ""
	} else {
		wantID = [16]byte{}
	}
	if name != wantName || id != wantID {
		t.Fatalf("topic %q %x, want %q %x", name, id, wantName, wantID)
	}
}

func sameBytes(got, want []byte) bool {
	return bytes.Equal(got, want) && (got == nil) == (want == nil)
}

func sameNullable(got []byte, want *string) bool {
	if want == nil {
		return got == nil
	}
	return got != nil && string(got) == *want
}
