package e2e

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/clients"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/deps"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/nodes"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/raw"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/records"
)

// A mixedLink is one realm whose readers stop, or skip, and another realm beside it: what it
// seals nobody in the first can ever open.
type mixedLink struct {
	stop, skip, foreign *nodes.Sidecar
}

func mixed(t *testing.T, bootstrap string) mixedLink {
	t.Helper()
	both := nodes.Role{Produce: "skip-*", Consume: "skip-*", Groups: []string{"skip-*"}}
	r := nodes.NewRealm(t)
	return mixedLink{
		skip:    nodes.StartSidecar(t, bootstrap, r.Enroll(t, both), nodes.Settings{"policy": nodes.Settings{"on_unreadable": "skip"}}),
		stop:    nodes.StartSidecar(t, bootstrap, r.Enroll(t, both), nil),
		foreign: nodes.StartSidecar(t, bootstrap, nodes.NewRealm(t).Enroll(t, both), nil),
	}
}

// everyClient are all that this package has.
func everyClient() []clients.Client { return append(clients.All(), clients.Java) }

// expectExactly has every client consume, and wants these records, nothing between them, and
// nothing after them up to the last one, which stands behind all that must not be delivered.
func expectExactly(t *testing.T, job clients.Job, want []records.Record) {
	t.Helper()
	for _, c := range everyClient() {
		t.Run(c.Name, func(t *testing.T) {
			deps.Need(t, c.Parts...)
			own := job
			own.Group, own.Dir, own.Count = job.Topic+c.Name+job.Isolation, t.TempDir(), len(want)
			got, err := c.Consume(t.Context(), own)
			if err != nil {
				t.Fatalf("after %d of %d records: %v", len(got), len(want), err)
			}
			for i := range got {
				got[i].Timestamp = -1
			}
			if err := records.Compare(want, got, records.Times{From: -1, To: -1}, true); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// Among good batches stand one that was sealed for others, one that nobody sealed, one that
// was altered, and one that was stored twice. A reader that stops has the application told at
// the first of them; one that skips delivers all that is good, and nothing else.
func TestUnreadableBatchesStopOrAreSkipped(t *testing.T) {
	b := sharedBroker(t)
	l := mixed(t, b.Bootstrap)
	topic := newTopic(t, b.Bootstrap, "skip-mixed", 1, nil)
	var good []records.Record
	seed := uint64(70)
	produce := func(s *nodes.Sidecar) []records.Record {
		seed++
		sent := records.Generate(seed, 20, records.Shape{}, records.NewCanaries())
		for i := range sent {
			sent[i].Timestamp = -1
		}
		job := clients.Job{Bootstrap: s.Addr, Topic: topic, Dir: t.TempDir(), Records: sent}
		if err := clients.FranzGo.Produce(t.Context(), job); err != nil {
			t.Fatal(err)
		}
		return sent
	}
	good = append(good, produce(l.skip)...)
	before := good
	genuine := raw.FirstBatch(t, b.Bootstrap, topic)
	produce(l.foreign)
	good = append(good, produce(l.stop)...)
	raw.Store(t, b.Bootstrap, topic, 0, raw.PlainBatch("injected"))
	good = append(good, produce(l.skip)...)
	altered := append([]byte(nil), genuine...)
	altered[len(altered)/2] ^= 1
	raw.Store(t, b.Bootstrap, topic, 0, raw.Anonymous(altered))
	raw.Store(t, b.Bootstrap, topic, 0, raw.Anonymous(append([]byte(nil), genuine...)))
	good = append(good, produce(l.skip)...)

	t.Run("skip", func(t *testing.T) {
		expectExactly(t, clients.Job{Bootstrap: l.skip.Addr, Topic: topic}, good)
		for _, reason := range []string{"sealed for others", "plaintext", "authentication failed", "opened before"} {
			if !strings.Contains(l.skip.Output(), reason) {
				t.Errorf("the log does not say %q", reason)
			}
		}
	})
	t.Run("skip in a share group", func(t *testing.T) {
		deps.Need(t, clients.Java.Parts...)
		job := clients.Job{Bootstrap: l.skip.Addr, Topic: topic, Group: topic + "-share", Share: true, Dir: t.TempDir(), Count: len(good)}
		fromTheStart(t, b.Bootstrap, job.Group)
		got, err := clients.Java.Consume(t.Context(), job)
		if err != nil {
			t.Fatalf("after %d of %d records: %v", len(got), len(good), err)
		}
		for i := range got {
			got[i].Timestamp = -1
		}
		if err := records.Compare(good, got, records.Times{From: -1, To: -1}, true); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("stop", func(t *testing.T) {
		// Whoever reads first waits until it is clear that no grant is under way.
		first := clients.Job{Bootstrap: l.stop.Addr, Topic: topic, Group: topic + "-first", Count: len(before) + 1}
		if got, err := clients.FranzGo.Consume(t.Context(), first); !errors.Is(err, kerr.TopicAuthorizationFailed) {
			t.Fatalf("%d records, %v", len(got), err)
		}
		expectDenied(t, l.stop.Addr, topic, "skip-", before)
	})
}

// What a group has read is erased, as configured: another group that begins at the start is
// told so where the reader stops, and gets what came since where it skips.
func TestErasedRecordsStopOrAreSkipped(t *testing.T) {
	b := sharedBroker(t)
	r := nodes.NewRealm(t)
	timing := map[string]string{"epoch": "3s", "lead": "500ms", "prekey_rotation": "4s", "prekey_grace": "2s",
		"skew": "3s", "settle": "1s", "window": "3s"}
	reads := nodes.Role{Consume: "erased-*", Groups: []string{"erased-*"}}
	states := []string{r.Enroll(t, reads), r.Enroll(t, reads)}
	skip := nodes.StartSidecar(t, b.Bootstrap, states[0], nodes.Settings{"timing": timing, "policy": nodes.Settings{"on_unreadable": "skip"}})
	stop := nodes.StartSidecar(t, b.Bootstrap, states[1], nodes.Settings{"timing": timing})
	writer := nodes.StartSidecar(t, b.Bootstrap, r.Enroll(t, nodes.Role{Produce: "erased-*"}), nodes.Settings{"timing": timing})
	topic := newTopic(t, b.Bootstrap, "erased", 1, nil)
	job := clients.Job{Topic: topic, Group: "erased-first", Dir: t.TempDir(), Count: 20}
	produce := func(seed uint64) []records.Record {
		job.Bootstrap, job.Records = writer.Addr, records.Generate(seed, job.Count, records.Shape{}, records.NewCanaries())
		for i := range job.Records {
			job.Records[i].Timestamp = -1
		}
		if err := clients.FranzGo.Produce(t.Context(), job); err != nil {
			t.Fatal(err)
		}
		return job.Records
	}
	produce(75)
	job.Bootstrap = skip.Addr
	if _, err := clients.FranzGo.Consume(t.Context(), job); err != nil {
		t.Fatal(err)
	}
	read := kadm.Offsets{}
	read.AddOffset(topic, 0, int64(job.Count), -1)
	if err := admin(t, b.Bootstrap).CommitAllOffsets(t.Context(), job.Group, read); err != nil {
		t.Fatal(err)
	}
	for _, state := range states {
		nodes.Poll(t, 90*time.Second, "the erasure of what the group has read", func() bool {
			out, _ := nodes.Run(t, "exposure", "--state", state)
			return regexp.MustCompile(`erased: [1-9]`).MatchString(out)
		})
	}
	// These stay, since the first group has not read them.
	since := produce(76)
	t.Run("stop", func(t *testing.T) { expectDenied(t, stop.Addr, topic, "erased-", nil) })
	t.Run("skip", func(t *testing.T) { expectExactly(t, clients.Job{Bootstrap: skip.Addr, Topic: topic}, since) })
	if !strings.Contains(skip.Output(), "key has been erased") {
		t.Error("the log does not say why")
	}
}

// What leaks is said where it is decided: the line that tells that a sidecar serves names the
// profile, and the window of exposure that follows from it.
func TestStartLineNamesTheProfileAndItsWindow(t *testing.T) {
	b := sharedBroker(t)
	r := nodes.NewRealm(t)
	for name, want := range map[string]struct {
		more nodes.Settings
		line string
	}{
		"default": {nil, "profile=strict exposure_window=9m30s"},
		"replay":  {nodes.Settings{"policy": nodes.Settings{"replay": "1h"}}, `profile="replay 1h0m0s" exposure_window=1h6m30s`},
	} {
		t.Run(name, func(t *testing.T) {
			s := nodes.StartSidecar(t, b.Bootstrap, r.Enroll(t, nodes.Role{Produce: "profile-*"}), want.more)
			if !strings.Contains(s.Output(), want.line) {
				t.Errorf("no %s", want.line)
			}
		})
	}
}

// A transaction is aborted around batches that cannot be opened: a client that reads committed
// records gets nothing of it, whatever is passed over, and all of the one that is committed.
func TestNothingOfAnAbortedTransactionIsDeliveredAroundASkip(t *testing.T) {
	b := sharedBroker(t)
	l := mixed(t, b.Bootstrap)
	topic := newTopic(t, b.Bootstrap, "skip-tx", 1, nil)
	tx := begin(t, b.Bootstrap, topic)
	var committed, all []records.Record
	send := func(bootstrap, value string) []records.Record {
		values := []string{value + "-0", value + "-1", value + "-2"}
		tx.produce(t, bootstrap, values)
		var sent []records.Record
		for _, v := range values {
			sent = append(sent, records.Record{Offset: -1, Timestamp: -1, Key: []byte("key"), Value: []byte(v)})
		}
		return sent
	}
	for i, commit := range []bool{true, false, true, false, true} {
		tx.join(t)
		var own []records.Record
		for part := range 3 {
			own = append(own, send(l.skip.Addr, fmt.Sprintf("%d-%d", i, part))...)
			if part == 0 {
				send(b.Bootstrap, "plaintext")
			}
			if part == 1 {
				send(l.foreign.Addr, "foreign")
			}
		}
		tx.end(t, commit)
		if commit {
			committed = append(committed, own...)
		}
		all = append(all, own...)
	}
	for isolation, want := range map[string][]records.Record{"read_committed": committed, "read_uncommitted": all} {
		t.Run(isolation, func(t *testing.T) {
			expectExactly(t, clients.Job{Bootstrap: l.skip.Addr, Topic: topic, Isolation: isolation}, want)
		})
	}
}

// A transaction of one producer whose batches go to the topic by different ways.
type transaction struct {
	cl       *kgo.Client // of the broker itself
	topic    string
	id       string
	producer int64
	epoch    int16
	sequence int32
}

func begin(t *testing.T, bootstrap, topic string) *transaction {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(bootstrap), kgo.MaxVersions(kversion.V2_8_0()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	x := &transaction{cl: cl, topic: topic, id: topic}
	req := kmsg.NewPtrInitProducerIDRequest()
	req.TransactionalID, req.TransactionTimeoutMillis = &x.id, 60_000
	nodes.Poll(t, 20*time.Second, "a producer id", func() bool {
		resp, err := req.RequestWith(t.Context(), cl)
		if err != nil {
			t.Fatal(err)
		}
		x.producer, x.epoch = resp.ProducerID, resp.ProducerEpoch
		return done(t, resp.ErrorCode)
	})
	return x
}

// join makes the partition a part of the next transaction.
func (x *transaction) join(t *testing.T) {
	t.Helper()
	req := kmsg.NewPtrAddPartitionsToTxnRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch = x.id, x.producer, x.epoch
	req.Topics = []kmsg.AddPartitionsToTxnRequestTopic{{Topic: x.topic, Partitions: []int32{0}}}
	nodes.Poll(t, 20*time.Second, "the end of the transaction before", func() bool {
		resp, err := req.RequestWith(t.Context(), x.cl)
		if err != nil {
			t.Fatal(err)
		}
		return done(t, resp.Topics[0].Partitions[0].ErrorCode)
	})
}

// done tells whether the coordinator did what it was asked, or wants to be asked again.
func done(t *testing.T, code int16) bool {
	t.Helper()
	err := kerr.ErrorForCode(code)
	if err != nil && !kerr.IsRetriable(err) && !errors.Is(err, kerr.ConcurrentTransactions) {
		t.Fatal(err)
	}
	return err == nil
}

// produce sends one batch, by way of a sidecar or to the broker itself.
func (x *transaction) produce(t *testing.T, bootstrap string, values []string) {
	t.Helper()
	var section []byte
	for i, v := range values {
		r := kmsg.Record{OffsetDelta: int32(i), Key: []byte("key"), Value: []byte(v)}
		r.Length = int32(len(r.AppendTo(nil)) - 1)
		section = r.AppendTo(section)
	}
	batch := kmsg.RecordBatch{PartitionLeaderEpoch: -1, Magic: 2, Attributes: 0x10, LastOffsetDelta: int32(len(values) - 1), NumRecords: int32(len(values)), Records: section,
		FirstTimestamp: time.Now().UnixMilli(), MaxTimestamp: time.Now().UnixMilli(), ProducerID: x.producer, ProducerEpoch: x.epoch, FirstSequence: x.sequence}
	batch.Length = int32(len(batch.AppendTo(nil)) - 12)
	req := kmsg.NewPtrProduceRequest()
	req.TransactionID, req.Acks, req.TimeoutMillis = &x.id, -1, 10_000
	req.Topics = []kmsg.ProduceRequestTopic{{Topic: x.topic, Partitions: []kmsg.ProduceRequestTopicPartition{{Records: raw.Checksummed(batch.AppendTo(nil))}}}}
	resp := raw.Ask(t, bootstrap, x.topic, req).(*kmsg.ProduceResponse)
	if err := kerr.ErrorForCode(resp.Topics[0].Partitions[0].ErrorCode); err != nil {
		t.Fatalf("%q is refused: %v", values, err)
	}
	x.sequence += int32(len(values))
}

// end commits or aborts.
func (x *transaction) end(t *testing.T, commit bool) {
	t.Helper()
	req := kmsg.NewPtrEndTxnRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Commit = x.id, x.producer, x.epoch, commit
	resp, err := req.RequestWith(t.Context(), x.cl)
	if err == nil {
		err = kerr.ErrorForCode(resp.ErrorCode)
	}
	if err != nil {
		t.Fatal(err)
	}
}
