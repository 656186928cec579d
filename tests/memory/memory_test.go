//go:build linux

package memory

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
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

	began     time.Time
	stop      context.CancelFunc // of what is produced
	stopped   chan struct{}
	sent, got atomic.Int64

	mu    sync.Mutex
	files [][]byte // the consumer's state, each time that it differed
}

// newPair runs both from a build of this test and lets records pass until finish.
func newPair(t *testing.T, w *world, binary string) *pair {
	t.Helper()
	consumerState, consumerSeed := w.enrol("consumer", keyring.Attributes{Roles: wire.RoleConsume, Groups: []wire.Pattern{{Name: group}}})
	producerState, producerSeed := w.enrol("producer", keyring.Attributes{Roles: wire.RoleProduce})
	p := &pair{world: w, book: newBook(), consumer: w.start(binary, "consumer", consumerState), producer: w.start(binary, "producer", producerState),
		began: time.Now(), stopped: make(chan struct{})}
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
	var producing context.Context
	producing, p.stop = context.WithCancel(ctx)
	go func() { // until the end: what it has read it commits with a later poll
		for ctx.Err() == nil {
			p.got.Add(int64(out.PollFetches(ctx).NumRecords()))
		}
	}()
	go func() {
		defer close(p.stopped)
		for ; producing.Err() == nil; time.Sleep(30 * time.Millisecond) {
			if err := in.ProduceSync(ctx, kgo.StringRecord("record")).FirstErr(); err != nil && ctx.Err() == nil {
				t.Errorf("produce: %v", err)
				return
			}
			p.sent.Add(1)
		}
	}()
	go func() {
		var last []byte
		for ; ctx.Err() == nil; time.Sleep(10 * time.Millisecond) {
			b, err := os.ReadFile(p.consumer.state)
			if err != nil || bytes.Equal(b, last) {
				continue
			}
			last = b
			p.mu.Lock()
			p.files = append(p.files, b)
			p.mu.Unlock()
		}
	}()
	return p
}

// learn takes into the book what the state file and the broker have by now. It reports
// whether it knows the secret of each batch.
func (p *pair) learn() bool {
	p.t.Helper()
	p.mu.Lock()
	files := p.files
	p.files = nil
	p.mu.Unlock()
	for _, b := range files {
		p.book.noteState(p.t, b)
	}
	log, err := adversary.Collect(p.t.Context(), []kgo.Opt{kgo.SeedBrokers(p.addr)}, topic)
	must(p.t, err)
	for _, g := range log.Grants {
		p.book.noteGrant(p.t, g)
	}
	whole := true
	for _, v := range log.Values {
		if h, err := wire.ParsePackedHeader(v.Bytes); err == nil {
			whole = p.book.noteValue(p.t, h) && whole
		}
	}
	return whole
}

// atWork searches a process while records pass, until each of want was met once: a search
// that finds nothing proves nothing.
func (p *pair) atWork(n *node, want ...string) {
	p.t.Helper()
	met := map[string]int{}
	missing := func(w string) bool { return met[w] == 0 }
	for end := time.Now().Add(time.Minute); slices.ContainsFunc(want, missing); {
		if time.Now().After(end) {
			p.t.Errorf("%s: not found before its erasure: %q", n.name, slices.DeleteFunc(want, func(w string) bool { return !missing(w) }))
			return
		}
		p.learn()
		for kind, count := range counted(n.scan(p.everything())) {
			met[kind] = max(met[kind], count)
		}
	}
	p.t.Logf("%s at work: %s", n.name, list(met))
}

// finish ends what is produced once an epoch was replaced, waits until all of it was read,
// and learns the rest.
func (p *pair) finish() {
	p.t.Helper()
	time.Sleep(time.Until(p.began.Add(timing.Epoch + timing.Lead)))
	p.stop()
	<-p.stopped
	for end := time.Now().Add(30 * time.Second); p.got.Load() < p.sent.Load() || !p.learn(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			p.t.Fatalf("%d of %d records arrived, or not every secret was in the consumer's state file", p.got.Load(), p.sent.Load())
		}
	}
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

// graceOfScan is how long a sidecar may take from its state file to the rest of its memory
// (PROTOCOL.md §2.18), and a little on a machine that is busy with other tests.
const graceOfScan = scrub.Period + 5*time.Second

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

// identityGone scans until nothing of the identity is left in a process whose sidecar has ended.
// Nobody collects there any more, so that the test asks for it.
func identityGone(t *testing.T, n *node, s *search) {
	t.Helper()
	for began := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		found := counted(n.scan(s))
		left := slices.ContainsFunc(identityKinds, func(kind string) bool { return found[kind+" | "+inProcess] != 0 })
		if !left {
			t.Logf("%s after its end, %v later: %s", n.name, time.Since(began).Round(time.Millisecond), list(found))
			return
		}
		if time.Since(began) > graceOfScan {
			t.Errorf("%s: its identity is left in the process: %s", n.name, list(found))
			return
		}
		n.tell("gc")
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

	p.atWork(p.consumer, identitySeed+" | "+inFiles, identitySeed+" | "+inProcess, prekeySeed+" | "+inFiles, prekeySeed+" | "+inProcess,
		topicSecret+" | "+inFiles, topicSecret+" | "+inProcess, rootNode+" | "+inLinear, innerNode+" | "+inLinear)
	p.atWork(p.producer, identitySeed+" | "+inFiles, identitySeed+" | "+inProcess, siblingOfLeaf+" | "+inProcess, siblingOfLeaf+" | "+inLinear)
	p.finish()
	// The producer need not wait for a group: what a batch was sealed with is gone with it, and
	// what the epoch came from before the first batch (PROTOCOL.md §2.3).
	gone(t, p.producer, p.everything(append(identityKinds, siblingOfLeaf)...), "once sealed")

	p.stateIsClean()
	erased := p.everything(identityKinds...)
	gone(t, p.consumer, erased, "after the window")
	gone(t, p.producer, erased, "after use_by")

	for _, n := range []*node{p.consumer, p.producer} {
		n.tell("close")
		gone(t, n, erased, "after the end")
		identityGone(t, n, p.everything())
	}
}
