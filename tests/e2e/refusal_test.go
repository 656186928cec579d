package e2e

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/clients"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/deps"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/nodes"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/raw"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/records"
)

// refusalLimit is how soon an application must learn that it may not read. It counts from
// the start of its process.
const refusalLimit = 10 * time.Second

// expectDenied has each of the five clients consume, and wants the good records, then an
// authorization error from the client itself, in time: no hang, and nothing beyond.
func expectDenied(t *testing.T, bootstrap, topic, groups string, good []records.Record) {
	t.Helper()
	for _, c := range clients.All() {
		t.Run(c.Name, func(t *testing.T) {
			deps.Need(t, c.Parts...)
			begin := time.Now()
			got, err := c.Consume(t.Context(), clients.Job{Bootstrap: bootstrap, Topic: topic, Group: groups + topic + c.Name,
				Dir: t.TempDir(), Count: len(good) + 1, Timeout: 30 * time.Second})
			took := time.Since(begin)
			switch {
			case err == nil:
				t.Fatalf("%d records and no error", len(got))
			case errors.Is(err, clients.ErrTimeout):
				t.Fatalf("a hang instead of an error: %v", err)
			case !strings.Contains(strings.ToLower(err.Error()), "authoriz"):
				t.Fatalf("not an authorization error: %v", err)
			case took > refusalLimit:
				t.Fatalf("refused after %v, want at most %v", took, refusalLimit)
			}
			t.Logf("refused after %v: %s", took.Round(time.Millisecond), end(err.Error()))
			for i := range got {
				got[i].Timestamp = -1
			}
			if err := records.Compare(good, got, records.Times{From: -1, To: -1}, false); err != nil {
				t.Fatalf("before the refusal: %v", err)
			}
		})
	}
}

// end is the last 150 bytes of a message, where the reason is.
func end(s string) string {
	s = strings.TrimSpace(s)
	return strings.ToValidUTF8(s[max(0, len(s)-150):], "")
}

// How each client tells an authorization error, with the broker itself refusing: what the
// tests below recognise is real.
func TestClientsReportABrokersRefusal(t *testing.T) {
	b := sharedBroker(t)
	topic := newTopic(t, b.Bootstrap, "acl", 1, nil)
	adm := admin(t, b.Bootstrap)
	on := func() *kadm.ACLBuilder {
		return kadm.NewACLs().Topics(topic).ResourcePatternType(kadm.ACLPatternLiteral)
	}
	for _, acls := range []*kadm.ACLBuilder{
		on().Allow("User:ANONYMOUS").AllowHosts("*").Operations(kadm.OpDescribe),
		on().Deny("User:ANONYMOUS").DenyHosts("*").Operations(kadm.OpRead),
	} {
		if _, err := adm.CreateACLs(t.Context(), acls); err != nil {
			t.Fatal(err)
		}
	}
	expectDenied(t, b.Bootstrap, topic, "acl-", nil)
}

// A node whose credential does not name the topic gets nothing but a refusal.
func TestConsumerThatIsNotEntitledIsRefused(t *testing.T) {
	b := sharedBroker(t)
	r := nodes.NewRealm(t)
	reader := nodes.StartSidecar(t, b.Bootstrap, r.Enroll(t, nodes.Role{Consume: "private-*", Groups: []string{"g-*"}}), nil)
	other := nodes.StartSidecar(t, b.Bootstrap, r.Enroll(t, nodes.Role{Consume: "elsewhere-*", Groups: []string{"g-*"}}), nil)
	writer := nodes.StartSidecar(t, b.Bootstrap, r.Enroll(t, nodes.Role{Produce: "private-*"}), nil)
	topic := newTopic(t, b.Bootstrap, "private", 1, nil)
	sent := records.Generate(41, 100, records.Shape{}, records.NewCanaries())
	job := clients.Job{Bootstrap: writer.Addr, Topic: topic, Group: "g-entitled", Dir: t.TempDir(), Records: sent, Count: len(sent)}
	if err := clients.FranzGo.Produce(t.Context(), job); err != nil {
		t.Fatal(err)
	}
	job.Bootstrap = reader.Addr
	if _, err := clients.FranzGo.Consume(t.Context(), job); err != nil {
		t.Fatalf("the entitled consumer: %v", err)
	}
	expectDenied(t, other.Addr, topic, "g-", nil)

	// A group that no credential lists would let keys be erased under it.
	job.Group = "unlisted"
	if _, err := clients.FranzGo.Consume(t.Context(), job); err == nil || !strings.Contains(strings.ToLower(err.Error()), "authoriz") {
		t.Errorf("a group that the credential does not list: %v, want a group authorization error", err)
	}
}

// What was altered, replaced or put in past the sidecar is never delivered, what stands
// before it is, and the application gets an error instead of a hang.
func TestTamperedBatchIsRefused(t *testing.T) {
	b := sharedBroker(t)
	l := sealed(t, b.Bootstrap, "tamper-*", []string{"tamper-*"}, nil)
	sent := records.Generate(42, 20, records.Shape{}, records.NewCanaries())
	for i := range sent {
		sent[i].Timestamp = -1
	}
	// Each attack makes the batch that follows one that the sidecar sealed.
	attacks := map[string]func(batch []byte) []byte{
		"flipped byte": func(batch []byte) []byte {
			batch[len(batch)/2] ^= 1
			return batch
		},
		"plaintext": func([]byte) []byte { return raw.PlainBatch("injected") },
	}
	for name, attack := range attacks {
		t.Run(name, func(t *testing.T) {
			topic := newTopic(t, b.Bootstrap, "tamper-"+strings.ReplaceAll(name, " ", "-"), 1, nil)
			job := clients.Job{Bootstrap: l.produce, Topic: topic, Group: topic, Dir: t.TempDir(), Records: sent, Count: len(sent)}
			if err := clients.FranzGo.Produce(t.Context(), job); err != nil {
				t.Fatal(err)
			}
			genuine := raw.FirstBatch(t, b.Bootstrap, topic)
			raw.Store(t, b.Bootstrap, topic, 0, raw.Anonymous(attack(genuine)))
			expectDenied(t, l.consume, topic, "tamper-", sent)
		})
	}

	// The same batch in another topic, another partition, or further on in its own opens
	// nowhere, its bytes being genuine or not.
	for name, move := range map[string]struct {
		partition   int32 // to which, of a topic of two
		sameTopic   bool
		least, most int // delivered: what is where it belongs, at least what stands before
	}{
		"to another topic":     {0, false, 0, 0},
		"to another partition": {1, true, 0, len(sent)},
		"to another offset":    {0, true, len(sent), len(sent)},
	} {
		t.Run(name, func(t *testing.T) {
			from := newTopic(t, b.Bootstrap, "tamper-from", 2, nil)
			to := from
			if !move.sameTopic {
				to = newTopic(t, b.Bootstrap, "tamper-to", 2, nil)
			}
			job := clients.Job{Bootstrap: l.produce, Topic: from, Group: to, Dir: t.TempDir(), Records: sent, Count: len(sent)}
			if err := clients.FranzGo.Produce(t.Context(), job); err != nil {
				t.Fatal(err)
			}
			raw.Store(t, b.Bootstrap, to, move.partition, raw.Anonymous(raw.FirstBatch(t, b.Bootstrap, from)))
			job.Bootstrap, job.Topic, job.Timeout, job.Count = l.consume, to, 30*time.Second, 2*len(sent)
			got, err := clients.FranzGo.Consume(t.Context(), job)
			if len(got) < move.least || len(got) > move.most || !errors.Is(err, kerr.TopicAuthorizationFailed) {
				t.Fatalf("%d records and %v, want %d to %d and an authorization error", len(got), err, move.least, move.most)
			}
		})
	}
}

// A producer whose topic nobody is entitled to read is told so, and nothing is stored.
func TestProduceThatNobodyMayReadIsRefused(t *testing.T) {
	b := sharedBroker(t)
	r := nodes.NewRealm(t)
	writer := nodes.StartSidecar(t, b.Bootstrap, r.Enroll(t, nodes.Role{Produce: "lonely-*"}), nil)
	for _, c := range clients.All() {
		t.Run(c.Name, func(t *testing.T) {
			deps.Need(t, c.Parts...)
			topic := newTopic(t, b.Bootstrap, "lonely-"+c.Name, 1, nil)
			shape := c.Shape
			shape.Partitions = 1
			begin := time.Now()
			err := c.Produce(t.Context(), clients.Job{Bootstrap: writer.Addr, Topic: topic, Dir: t.TempDir(),
				Records: records.Generate(43, 5, shape, records.NewCanaries()), Timeout: 40 * time.Second})
			if err == nil || errors.Is(err, clients.ErrTimeout) {
				t.Errorf("produced: %v, want a refusal", err)
			} else {
				t.Logf("refused after %v: %s", time.Since(begin).Round(time.Millisecond), end(err.Error()))
			}
			if n := endOffset(t, b.Bootstrap, topic); n != 0 {
				t.Errorf("the broker stored up to offset %d", n)
			}
		})
	}
}

func endOffset(t *testing.T, bootstrap, topic string) int64 {
	t.Helper()
	ends, err := admin(t, bootstrap).ListEndOffsets(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	var sum int64
	ends.Each(func(o kadm.ListedOffset) { sum += o.Offset })
	return sum
}
