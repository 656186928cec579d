// Package lease holds both ends of the lease channel against each other (PROTOCOL.md §2.12):
// the module's, which asks, and the agent's server, which answers.
package lease

import (
	"bytes"
	"context"
	"crypto/rand"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/lease"
	"github.com/wasm-e2ee/wasm-e2ee/module/envoy"
	"github.com/wasm-e2ee/wasm-e2ee/module/filter"
)

const now = uint64(1_700_000_000_000)

var testRealm = wire.RealmID{1, 2}

// keys stand in for an agent's. Each topic has one epoch, whose kid begins with its name.
type keys struct {
	next   map[string]uint32 // leaf to lease
	erased bool
	opened int
}

func kidOf(topic string) (kid abi.Kid) { copy(kid[:], topic); return kid }

func (k *keys) Lease(_ context.Context, topic string) (abi.Lease, error) {
	if topic == "lonely" {
		return abi.Lease{}, abi.StatusNoRecipient
	}
	start := k.next[topic]
	k.next[topic] += 256
	return abi.Lease{Kid: kidOf(topic), UseBy: now + 100_000, Start: start, Level: abi.TreeDepth - 8, Node: [32]byte{byte(start >> 8)}, Topic: topic}, nil
}

func (k *keys) Root(_ context.Context, topic string, _ int32, kid abi.Kid) (abi.Root, error) {
	if kid != kidOf(topic) {
		return abi.Root{}, abi.StatusUnreadable
	}
	return abi.Root{Kid: kid, Root: [32]byte{7}, Topic: topic}, nil
}

func (k *keys) Opened(_ string, _ abi.Kid, _ uint32, _ int32, offset int64) error {
	k.opened++
	if offset == 13 {
		return abi.StatusReplayed
	}
	return nil
}

func (k *keys) Groups() []wire.Pattern { return []wire.Pattern{{Name: "billing"}} }

func (k *keys) Holds(kids []abi.Kid) []abi.Kid {
	if k.erased {
		return nil
	}
	return kids
}

// A pair is both ends, joined without a network.
type pair struct {
	*testing.T
	agent   *keys
	server  *lease.Server
	filter  *filter.Filter
	keys    *envoy.Keys
	channel *envoy.Channel
}

func newPair(t *testing.T, realm wire.RealmID) *pair {
	t.Helper()
	key, err := lease.NewKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pairing := [32]byte(*key)
	p := &pair{T: t, agent: &keys{next: map[string]uint32{}}, filter: filter.New(rand.Reader)}
	p.server = lease.New(lease.Config{Realm: testRealm, Key: key}, p.agent)
	if s := p.filter.Configure(abi.Config{MaxDecompressed: 1 << 20}); s != abi.StatusOK {
		t.Fatal(s)
	}
	p.keys = envoy.NewKeys(p.filter)
	if p.channel, err = envoy.NewChannel(realm, &pairing, rand.Reader, p.keys); err != nil {
		t.Fatal(err)
	}
	return p
}

// settle makes the calls that the module asks for, until it asks for none.
func (p *pair) settle(at uint64) {
	p.Helper()
	for range 20 {
		call, ok := p.channel.Next(at)
		if !ok {
			return
		}
		w := httptest.NewRecorder()
		p.server.ServeHTTP(w, httptest.NewRequest(http.MethodPost, call.Path, bytes.NewReader(call.Body)))
		p.channel.Answered(w.Code, w.Body.Bytes(), at)
	}
	p.Fatal("it does not settle")
}

func TestBothEndsUnderstandEachOther(t *testing.T) {
	p := newPair(t, testRealm)
	for _, topic := range []string{"orders", "prices", "lonely"} {
		p.keys.NeedLease(topic, now)
	}
	p.keys.NeedRoot("orders", 3, kidOf("orders"), now)
	p.keys.NeedRoot("orders", 3, abi.Kid{0xff}, now)
	p.settle(now)
	if c := p.filter.Counters(); c[abi.CounterLeases] != 2 || c[abi.CounterRoots] != 1 {
		t.Errorf("%d leases and %d roots", c[abi.CounterLeases], c[abi.CounterRoots])
	}
	if s := p.keys.NeedLease("lonely", now); s != abi.StatusNoRecipient {
		t.Errorf("lonely: %v", s)
	}
	if s := p.keys.NeedRoot("orders", 3, abi.Kid{0xff}, now); s != abi.StatusUnreadable {
		t.Errorf("an unknown kid: %v", s)
	}
	for offset := range int64(20) {
		p.keys.Opened("orders", kidOf("orders"), uint32(offset), 3, offset)
	}
	p.settle(now + 100)
	if s := p.keys.Opened("orders", kidOf("orders"), 13, 3, 13); s != abi.StatusReplayed || p.agent.opened != 20 {
		t.Errorf("%v; the agent was told of %d batches", s, p.agent.opened)
	}
	if s := p.channel.Stats(); s.Handshakes != 1 || s.Failures != 0 {
		t.Errorf("%+v", s)
	}
}

func TestWhatTheAgentErasedIsErasedWithTheNextRenewal(t *testing.T) {
	p := newPair(t, testRealm)
	p.keys.NeedLease("orders", now)
	p.keys.NeedRoot("orders", 0, kidOf("orders"), now)
	p.settle(now)
	p.settle(now + 25_000)
	if c := p.filter.Counters(); c[abi.CounterLeases] != 1 || c[abi.CounterRoots] != 1 {
		t.Fatalf("%d leases and %d roots after a renewal", c[abi.CounterLeases], c[abi.CounterRoots])
	}
	p.agent.erased = true
	p.settle(now + 50_000)
	if c := p.filter.Counters(); c[abi.CounterLeases] != 0 || c[abi.CounterRoots] != 0 {
		t.Errorf("%d leases and %d roots are left", c[abi.CounterLeases], c[abi.CounterRoots])
	}
}

func TestAnotherRealmIsRefused(t *testing.T) {
	p := newPair(t, wire.RealmID{9})
	p.keys.NeedLease("orders", now)
	p.settle(now)
	if s := p.channel.Stats(); s.Failures != 1 || p.filter.Counters()[abi.CounterLeases] != 0 {
		t.Errorf("%+v", s)
	}
	if s := p.server.Stats(); s.HandshakesRefused != 1 {
		t.Errorf("%+v", s)
	}
}
