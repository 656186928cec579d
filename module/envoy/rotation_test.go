package envoy

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/channel"
	"github.com/wasm-e2ee/wasm-e2ee/module/ratchet"
)

// A rotating agent has an epoch of each topic, and begins the next one when it is of an age, some
// time before it ends: the shape of a rotation, without its cryptography.
type rotating struct {
	age, lead uint64 // ms
	epochs    map[string]*rotatingEpoch
	held      map[abi.Kid]bool
	begun     uint64
}

type rotatingEpoch struct {
	kid   abi.Kid
	start uint64
	stack ratchet.Stack
}

// begin replaces a topic's epoch, whose keys may be kept no longer then.
func (r *rotating) begin(topic string, now uint64) {
	if e := r.epochs[topic]; e != nil {
		delete(r.held, e.kid)
	}
	e := &rotatingEpoch{start: now}
	r.begun++
	binary.BigEndian.PutUint64(e.kid[:], r.begun)
	e.stack.Reset(0, 0, (*ratchet.Node)(&testTree))
	r.epochs[topic], r.held[e.kid] = e, true
}

func (r *rotating) rotate(now uint64) {
	for topic, e := range r.epochs {
		if now-e.start >= r.age {
			r.begin(topic, now)
		}
	}
}

func (r *rotating) answer(q channel.Request, now uint64) channel.Answer {
	switch q.Op {
	case channel.OpRenew:
		var kids []abi.Kid
		for _, kid := range q.Kids {
			if r.held[kid] {
				kids = append(kids, kid)
			}
		}
		return channel.Answer{Body: channel.AppendKids(nil, kids)}
	case channel.OpLease:
		if r.epochs[q.Topic] == nil {
			r.begin(q.Topic, now)
		}
		e := r.epochs[q.Topic]
		l := abi.Lease{Kid: e.kid, UseBy: e.start + r.age + r.lead, Topic: q.Topic}
		var ok bool
		if l.Start, l.Level, ok = e.stack.Cut(10, (*ratchet.Node)(&l.Node)); !ok {
			return channel.Answer{Status: abi.StatusUnavailable}
		}
		return channel.Answer{Body: l.Append(nil)}
	}
	return generous(true)(q)
}

// TestWarmWorkersDoNotWaitAtRotations has four workers seal topics that begin apart. Each asks its
// agent five times a second, and again as long as it has something to ask.
func TestWarmWorkersDoNotWaitAtRotations(t *testing.T) {
	t.Run("200 topics, 5 s", func(t *testing.T) { rotate(t, &rotating{age: 5000, lead: 2500}, 200, 60_000) })
	t.Run("20 topics, 3 min", func(t *testing.T) { rotate(t, &rotating{age: 180_000, lead: 30_000}, 20, 600_000) })
}

func rotate(t *testing.T, agent *rotating, topics int, length uint64) {
	const planes, step = 4, 200
	agent.epochs, agent.held = map[string]*rotatingEpoch{}, map[abi.Kid]bool{}
	worlds := make([]*world, planes)
	for i := range worlds {
		worlds[i] = newWorld(t, Config{})
	}
	plain := batchOf("x", 0)
	buf := make([]byte, len(plain)+300)
	type leaf struct {
		kid  abi.Kid
		leaf uint32
	}
	used := map[leaf]bool{}
	waited := 0
	for now := start; now < start+length; now += step {
		agent.rotate(now)
		for i, w := range worlds {
			w.now = now
			for range 3 {
				w.exchange(func(q channel.Request) channel.Answer { return agent.answer(q, now) })
			}
			for n := range topics {
				begins := start + uint64(n)*25
				if now < begins || i == 3 && now-start > length/2 {
					break // a virtual machine that is gone leaves its leases unused
				}
				topic := fmt.Sprint("topic-", n)
				copy(buf, plain)
				r, s := w.filter.SealBatch(buf, len(plain), []byte(topic), 0, now)
				if s == abi.StatusNeedLease {
					if w.keys.NeedLease(topic, now); now-begins > 2*step {
						waited++
					}
					continue
				}
				if s != abi.StatusOK {
					t.Fatal(s)
				}
				w.keys.sealed(topic, r.Kid, r.Leaf, now)
				if used[leaf{r.Kid, r.Leaf}] {
					t.Fatalf("leaf %d of %x was used twice", r.Leaf, r.Kid)
				}
				used[leaf{r.Kid, r.Leaf}] = true
			}
		}
	}
	if agent.begun < uint64(topics)*(length/agent.age-1) {
		t.Errorf("%d epochs were begun", agent.begun)
	}
	if waited != 0 {
		t.Errorf("%d batches waited for a lease, %d did not", waited, len(used))
	}
	t.Logf("%d batches in %d epochs, %d waited", len(used), agent.begun, waited)
}
