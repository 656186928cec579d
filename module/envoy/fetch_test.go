package envoy

import (
	"bytes"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
)

// fetch has the client fetch and the broker answer with these partitions of "orders".
func (w *world) fetch(version int16, partitions ...[]byte) *kmsg.FetchResponse {
	w.Helper()
	id := w.request(fetchRequest(version))
	if w.stream.Waiting() {
		w.now += fetchHold
		if err := w.stream.Resume(w.now); err != nil {
			w.Fatal(err)
		}
	}
	if len(w.forwarded()) != 1 {
		w.Fatal("the Fetch was not forwarded")
	}
	w.respond(id, fetchResponse(version, "orders", partitions...))
	return received(w, id, version, kmsg.NewPtrFetchResponse())
}

func values(partition kmsg.FetchResponseTopicPartition) string {
	var all []string
	for b := partition.RecordBatches; len(b) > 0; {
		size, err := kafka.BatchSize(b)
		if err != nil {
			return err.Error()
		}
		if h, _ := kafka.ParseBatchHeader(b); h.IsControl() {
			all = append(all, "control")
		} else {
			var r kafka.Record
			kafka.NextRecord(b[kafka.BatchHeaderSize:size], &r)
			all = append(all, string(r.Value))
		}
		b = b[size:]
	}
	return strings.Join(all, " ")
}

func TestFetchedBatchesAreOpened(t *testing.T) {
	for _, version := range []int16{4, 11, 12, 13, 18} {
		w := newWorld(t, Config{})
		w.learn("orders")
		w.root("orders")
		first := w.sealedBatch("orders", 0, "a", 5)
		second := w.sealedBatch("orders", 0, "b", 6)
		got := w.fetch(version, append(bytes.Clone(first), second...), w.sealedBatch("orders", 1, "c", 9))
		if p := got.Topics[0].Partitions; values(p[0]) != "a b" || values(p[1]) != "c" || p[0].HighWatermark != 100 {
			t.Errorf("v%d: %q and %q", version, values(p[0]), values(p[1]))
		}
	}
}

func TestAMissingRootEmptiesItsPartitionAndHoldsTheNextFetch(t *testing.T) {
	w := newWorld(t, Config{})
	sealed := w.sealedBatch("orders", 0, "a", 5)
	got := w.fetch(12, bytes.Clone(sealed), nil)
	if p := got.Topics[0].Partitions[0]; p.ErrorCode != 0 || p.RecordBatches == nil || len(p.RecordBatches) != 0 || p.HighWatermark != 100 {
		t.Fatalf("%+v", p)
	}
	for _, answered := range []bool{false, true} {
		id := w.request(fetchRequest(12))
		other := w.request(kmsg.NewPtrHeartbeatRequest())
		w.now += fetchHold - 1
		w.stream.Resume(w.now)
		if len(w.forwarded()) != 0 || !w.stream.Waiting() {
			t.Fatal("the next Fetch is not held")
		}
		if answered {
			w.answerRoot("orders", abi.StatusOK)
		} else {
			w.now++
		}
		w.stream.Resume(w.now)
		if len(w.forwarded()) != 2 || w.stream.Waiting() {
			t.Fatal("it is held for too long")
		}
		w.respond(id, fetchResponse(12, "orders", bytes.Clone(sealed)))
		got = received(w, id, 12, kmsg.NewPtrFetchResponse())
		w.respond(other, kmsg.NewPtrHeartbeatResponse())
		received(w, other, 0, kmsg.NewPtrHeartbeatResponse())
	}
	if values(got.Topics[0].Partitions[0]) != "a" {
		t.Errorf("%+v", got)
	}
	w.request(fetchRequest(12))
	if w.stream.Waiting() {
		t.Error("a Fetch is held after one that brought everything")
	}
}

func TestUnreadableBatchIsAnErrorAfterWhatCameBefore(t *testing.T) {
	for name, spoil := range map[string]func(b []byte) []byte{
		"tampered": func(b []byte) []byte {
			b[len(b)-10] ^= 1
			kafka.SetBatchCRC(b)
			return b
		},
		"plaintext": func([]byte) []byte { return batchOf("injected", 6) },
		"corrupt":   func(b []byte) []byte { b[len(b)-1] ^= 1; return b },
		"no batch":  func([]byte) []byte { return bytes.Repeat([]byte{0xff}, 80) },
	} {
		for _, skip := range []bool{false, true} {
			w := newWorld(t, Config{SkipUnreadable: skip})
			w.root("orders")
			first, last := w.sealedBatch("orders", 0, "a", 5), w.sealedBatch("orders", 0, "z", 7)
			spoiled := spoil(w.sealedBatch("orders", 0, "b", 6))
			all := append(append(bytes.Clone(first), spoiled...), last...)
			p := w.fetch(12, bytes.Clone(all)).Topics[0].Partitions[0]
			if skip && name != "no batch" {
				if values(p) != "a control z" {
					t.Errorf("%s: %q with skip", name, values(p))
				}
				continue
			}
			if values(p) != "a" || p.ErrorCode != 0 {
				t.Errorf("%s: %q, code %d", name, values(p), p.ErrorCode)
			}
			p = w.fetch(12, bytes.Clone(all[len(first):])).Topics[0].Partitions[0]
			if p.ErrorCode != kafka.CodeTopicAuthorizationFailed || len(p.RecordBatches) != 0 || p.HighWatermark != -1 {
				t.Errorf("%s: %+v", name, p)
			}
			w.request(fetchRequest(12))
			if !w.stream.Waiting() {
				t.Errorf("%s: a client that keeps trying is not slowed down", name)
			}
		}
	}
}

func TestABatchThatClaimsTheNextOnesOffsetsIsNotPassedOver(t *testing.T) {
	w := newWorld(t, Config{SkipUnreadable: true})
	w.root("orders")
	greedy := batchOf("injected", 5)
	greedy[26] = 3 // lastOffsetDelta
	greedy[60] = 4 // number of records
	kafka.SetBatchCRC(greedy)
	p := w.fetch(12, append(greedy, w.sealedBatch("orders", 0, "a", 6)...)).Topics[0].Partitions[0]
	if p.ErrorCode != kafka.CodeTopicAuthorizationFailed || len(p.RecordBatches) != 0 {
		t.Errorf("%q, code %d", values(p), p.ErrorCode)
	}
}

func TestHistoryIsPassedOverAndWhatIsGoneIsDenied(t *testing.T) {
	for status, want := range map[abi.Status]string{abi.StatusHistory: "control", abi.StatusErased: "", abi.StatusUnreadable: ""} {
		w := newWorld(t, Config{})
		sealed := w.sealedBatch("orders", 0, "a", 5)
		w.fetch(12, bytes.Clone(sealed))
		w.answerRoot("orders", status)
		p := w.fetch(12, bytes.Clone(sealed)).Topics[0].Partitions[0]
		if values(p) != want || (p.ErrorCode == 0) != (want != "") {
			t.Errorf("%v: %q, code %d", status, values(p), p.ErrorCode)
		}
	}
}

func TestABatchThatComesOnceMoreIsNotDelivered(t *testing.T) {
	w := newWorld(t, Config{})
	w.root("orders")
	sealed := w.sealedBatch("orders", 0, "a", 5)
	for range 2 { // the client may ask for the same offset again
		if p := w.fetch(12, bytes.Clone(sealed)).Topics[0].Partitions[0]; values(p) != "a" {
			t.Fatalf("%q", values(p))
		}
	}
	again := bytes.Clone(sealed)
	again[7] = 6 // baseOffset
	if p := w.fetch(12, again).Topics[0].Partitions[0]; p.ErrorCode != kafka.CodeTopicAuthorizationFailed {
		t.Errorf("delivered %q", values(p))
	}
	if len(w.keys.opened) != 1 {
		t.Errorf("the agent is told of %d batches", len(w.keys.opened))
	}
}

func TestACutBatchLeavesItsHeaderAtMost(t *testing.T) {
	w := newWorld(t, Config{})
	w.root("orders")
	first, cut := w.sealedBatch("orders", 0, "a", 5), w.sealedBatch("orders", 0, "b", 6)
	p := w.fetch(12, append(bytes.Clone(first), cut[:len(cut)-1]...)).Topics[0].Partitions[0]
	if p.ErrorCode != 0 || len(p.RecordBatches) == 0 || bytes.Contains(p.RecordBatches, cut[kafka.BatchHeaderSize:len(cut)-1]) {
		t.Errorf("%+v", p)
	}
}

func TestFetchOfAnUnknownTopicIDIsNeverPassedUnopened(t *testing.T) {
	w := newWorld(t, Config{})
	told := 0
	for range 6 {
		p := w.fetch(13, batchOf("injected", 0)).Topics[0].Partitions[0]
		if len(p.RecordBatches) != 0 {
			t.Fatalf("%+v", p)
		}
		if p.ErrorCode == kafka.CodeUnknownTopicID {
			told++
		}
	}
	if told == 0 || told > 3 {
		t.Errorf("the client was told %d times in %d ms", told, w.now-start)
	}
	w.learn("orders")
	w.root("orders")
	if p := w.fetch(13, w.sealedBatch("orders", 0, "a", 5)).Topics[0].Partitions[0]; values(p) != "a" {
		t.Errorf("%q", values(p))
	}
}

func TestShareFetchAcquiresOnlyWhatIsDelivered(t *testing.T) {
	w := newWorld(t, Config{})
	w.learn("orders")
	w.root("orders")
	var records []byte
	for offset := range int64(3) {
		records = append(records, w.sealedBatch("orders", 0, "x", offset)...)
	}
	records[len(records)-10] ^= 1
	req := kmsg.NewPtrShareFetchRequest()
	req.Version, req.GroupID = 1, &shareGroup
	id := w.request(req)
	resp := kmsg.NewPtrShareFetchResponse()
	resp.Version = 1
	topic := kmsg.NewShareFetchResponseTopic()
	topic.TopicID = testID
	part := kmsg.NewShareFetchResponseTopicPartition()
	part.Records = records
	acquired := kmsg.NewShareFetchResponseTopicPartitionAcquiredRecord()
	acquired.LastOffset, acquired.DeliveryCount = 2, 1
	part.AcquiredRecords = append(part.AcquiredRecords, acquired)
	topic.Partitions = append(topic.Partitions, part)
	resp.Topics = append(resp.Topics, topic)
	w.respond(id, resp)
	got := received(w, id, 1, kmsg.NewPtrShareFetchResponse()).Topics[0].Partitions[0]
	if len(got.AcquiredRecords) != 1 || got.AcquiredRecords[0].LastOffset != 1 || got.ErrorCode != 0 {
		t.Errorf("%+v", got)
	}
}
