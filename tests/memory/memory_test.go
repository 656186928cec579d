//go:build linux

package memory

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
	"github.com/wasm-e2ee/wasm-e2ee/host/scrub"
	"github.com/wasm-e2ee/wasm-e2ee/tests/adversary"
	"github.com/wasm-e2ee/wasm-e2ee/tests/artifact"
)

// A pair is a producer and a consumer at work, each a process, and what they must forget.
type pair struct {
	*world
	consumer, producer *node
	book               *book
}

// newPair runs both from a build of this test, lets records pass for a while, and learns
// every secret that was used.
func newPair(t *testing.T, w *world, binary string) *pair {
	t.Helper()
	consumerState, consumerSeed := w.enrol("consumer", keyring.Attributes{Roles: wire.RoleConsume, Groups: []wire.Pattern{{Name: group}}})
	producerState, producerSeed := w.enrol("producer", keyring.Attributes{Roles: wire.RoleProduce})
	p := &pair{world: w, book: newBook(), consumer: w.start(binary, "consumer", consumerState), producer: w.start(binary, "producer", producerState)}
	p.book.all = append(secretsOfIdentity("consumer", consumerSeed), secretsOfIdentity("producer", producerSeed)...)

	in, err := kgo.NewClient(kgo.SeedBrokers(p.producer.addr), kgo.DefaultProduceTopic(topic))
	must(t, err)
	t.Cleanup(in.Close)
	out, err := kgo.NewClient(kgo.SeedBrokers(p.consumer.addr), kgo.ConsumeTopics(topic), kgo.ConsumerGroup(group),
		kgo.AutoCommitInterval(200*time.Millisecond), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	must(t, err)
	t.Cleanup(out.Close)
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	var got atomic.Int64
	go func() { // until the end: what it has read it commits with a later poll
		for ctx.Err() == nil {
			got.Add(int64(out.PollFetches(ctx).NumRecords()))
		}
	}()
	sent := int64(0)
	for end := time.Now().Add(timing.Epoch + timing.Lead); time.Now().Before(end); time.Sleep(30 * time.Millisecond) {
		must(t, in.ProduceSync(ctx, kgo.StringRecord(fmt.Sprintf("record %d", sent))).FirstErr())
		sent++
		p.book.noteState(t, p.consumer.file())
	}
	for end := time.Now().Add(20 * time.Second); got.Load() < sent; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d of %d records arrived", got.Load(), sent)
		}
	}
	p.book.noteState(t, p.consumer.file())
	log, err := adversary.Collect(ctx, []kgo.Opt{kgo.SeedBrokers(w.addr)}, topic)
	must(t, err)
	for _, g := range log.Grants {
		p.book.noteGrant(t, g)
	}
	for _, v := range log.Values {
		if h, err := wire.ParsePackedHeader(v.Bytes); err == nil {
			p.book.noteValue(t, h)
		}
	}
	return p
}

// everything is a search for all secrets, or for those of some kinds left out.
func (p *pair) everything(without ...string) *search {
	return newSearch(slices.DeleteFunc(slices.Concat(p.book.all, p.book.kept), func(s *secret) bool { return slices.Contains(without, s.kind) }))
}

// stateIsClean waits until nothing of what was learned is in the consumer's state file: each
// topic secret's window is over, and each prekey was superseded and its grace is over.
func (p *pair) stateIsClean() {
	p.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		state, err := keyring.ParseState(p.consumer.file())
		must(p.t, err)
		view := state.View()
		state.Wipe()
		held := len(view.Kids)
		for _, k := range view.Prekeys {
			if p.book.prekeys[k.ID] != nil {
				held++
			}
		}
		if held == 0 {
			return
		}
		if time.Now().After(end) {
			p.t.Fatalf("a minute later %d secrets are still in the state file", held)
		}
	}
}

// counted says how often each kind was found, and where: "kind | place".
func counted(hits []hit) map[string]int {
	count := map[string]int{}
	for _, h := range hits {
		count[h.secret.kind+" | "+h.where]++
	}
	return count
}

func list(count map[string]int) string {
	if len(count) == 0 {
		return "nothing"
	}
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(count)) {
		fmt.Fprintf(&b, "\n    %4d x %s", count[k], k)
	}
	return b.String()
}

// wants fails the test where something that must be found was not: a search that finds
// nothing proves nothing.
func wants(t *testing.T, n *node, found map[string]int, want ...string) {
	t.Helper()
	for _, w := range want {
		if found[w] == 0 {
			t.Errorf("%s: not found before its erasure: %s", n.name, w)
		}
	}
}

// graceOfScan is how long a sidecar may take from its state file to the rest of its memory,
// on a machine that is busy with other tests.
const graceOfScan = 5 * time.Second

// gone scans until nothing is found.
func gone(t *testing.T, n *node, s *search, when string) {
	t.Helper()
	began := time.Now()
	for {
		found := counted(n.scan(s))
		if len(found) == 0 {
			t.Logf("%s: %s: 0 copies of %d pieces of secrets, %v later", n.name, when, len(s.by), time.Since(began).Round(time.Millisecond))
			return
		}
		if time.Since(began) > graceOfScan {
			t.Errorf("%s: %s: still in memory: %s", n.name, when, list(found))
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// needsScrub skips what only holds where the build overwrites what the standard library
// leaves.
func needsScrub(t *testing.T) {
	t.Helper()
	if scrub.Works {
		return
	}
	const hint = "this build leaves copies of keys in memory: run `make unit`, or set GOEXPERIMENT=runtimesecret on linux/amd64 or linux/arm64"
	if os.Getenv("CI") != "" {
		t.Fatal(hint)
	}
	t.Skip(hint)
}

// identityKinds are what a node keeps as long as it runs, and on its disk.
var identityKinds = []string{identitySeed, identityKey}

func TestErasedSecretsAreNowhere(t *testing.T) {
	t.Parallel()
	needsScrub(t)
	self, err := os.Executable()
	must(t, err)
	p := newPair(t, newWorld(t, artifact.Module(t)), self)

	all := p.everything()
	found := counted(p.consumer.scan(all))
	t.Logf("consumer at work: %s", list(found))
	wants(t, p.consumer, found, identitySeed+" | "+inFiles, identitySeed+" | "+inProcess, prekeySeed+" | "+inFiles, prekeySeed+" | "+inProcess,
		topicSecret+" | "+inFiles, topicSecret+" | "+inProcess, rootNode+" | "+inLinear, innerNode+" | "+inLinear)
	found = counted(p.producer.scan(all))
	t.Logf("producer at work: %s", list(found))
	wants(t, p.producer, found, identitySeed+" | "+inFiles, identitySeed+" | "+inProcess, siblingOfLeaf+" | "+inProcess, siblingOfLeaf+" | "+inLinear)
	// What the producer must not have even while its epoch lasts (PROTOCOL.md §2.3).
	gone(t, p.producer, p.everything(append(identityKinds, siblingOfLeaf)...), "while the epoch lasts")

	p.stateIsClean()
	erased := p.everything(identityKinds...)
	gone(t, p.consumer, erased, "after the window")
	gone(t, p.producer, erased, "after use_by")

	for _, n := range []*node{p.consumer, p.producer} {
		n.tell("close")
		gone(t, n, erased, "after the end")
		found := counted(n.scan(all))
		t.Logf("%s after its end: %s", n.name, list(found))
		for _, kind := range identityKinds {
			if found[kind+" | "+inProcess] != 0 {
				t.Errorf("%s: %s is left in the process", n.name, kind)
			}
		}
	}
}
