package envoy

import (
	"context"
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/clients"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/deps"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/flow"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/nodes"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/records"
)

// four are the clients that every Envoy is tried with.
var four = []clients.Client{clients.Java, clients.Confluent, clients.Kafkajs, clients.FranzGo}

// roundTrip has each client produce n records behind one face and consume them, in a group,
// behind another: they are equal.
func (w *world) roundTrip(t *testing.T, r *row, out, in face, n int, which ...clients.Client) {
	for i, c := range which {
		t.Run(c.Name, func(t *testing.T) {
			deps.Need(t, c.Parts...)
			topic := w.topic(t, c.Name, c.Shape.Partitions, nil)
			sent := records.Generate(uint64(100+i), n, c.Shape, w.canaries)
			job := clients.Job{Topic: topic, Group: topic, Dir: t.TempDir(), Codec: c.Codecs[i%len(c.Codecs)], Records: sent, Count: n,
				Timeout: time.Minute + time.Duration(n)*5*time.Millisecond}
			begin := time.Now()
			job.Bootstrap = out.bootstrap()
			if err := c.Produce(t.Context(), job); err != nil {
				t.Fatalf("produce behind %s: %v", out, err)
			}
			produced := time.Now()
			job.Bootstrap = in.bootstrap()
			got, err := c.Consume(t.Context(), job)
			if err == nil {
				err = records.Compare(sent, got, records.Since(begin), false)
			}
			if err != nil {
				t.Fatalf("consume behind %s: %v", in, err)
			}
			r.note("%s %.1f+%.1f s", c.Name, produced.Sub(begin).Seconds(), time.Since(produced).Seconds())
		})
	}
	r.note("%d records each", n)
}

// transactions has clients commit and abort behind one face, and read behind the other with
// both kinds of isolation.
func (w *world) transactions(t *testing.T, r *row, out, in face, n int, which ...clients.Client) {
	for _, c := range which {
		t.Run(c.Name, func(t *testing.T) {
			deps.Need(t, c.Parts...)
			topic := w.topic(t, "tx-"+c.Name, c.Shape.Partitions, nil)
			all := records.Generate(11, n, c.Shape, w.canaries)
			job := clients.Job{Bootstrap: out.bootstrap(), Topic: topic, Dir: t.TempDir(), Codec: "lz4", Records: all, Transaction: n / 12, AbortEvery: 3,
				Timeout: time.Minute} // librdkafka refuses more than a transaction may take
			if err := c.Produce(t.Context(), job); err != nil {
				t.Fatalf("produce behind %s: %v", out, err)
			}
			var committed []records.Record
			for i, r := range all {
				if !job.Aborted(i) {
					committed = append(committed, r)
				}
			}
			job.Bootstrap = in.bootstrap()
			for isolation, want := range map[string][]records.Record{"read_committed": committed, "read_uncommitted": all} {
				job.Group, job.Isolation, job.Count = topic+"-"+isolation, isolation, len(want)
				got, err := c.Consume(t.Context(), job)
				if err == nil {
					err = records.Compare(want, got, records.Times{}, true)
				}
				if err != nil {
					t.Fatalf("%s behind %s: %v", isolation, in, err)
				}
			}
			r.note("%s: %d of %d committed", c.Name, len(committed), len(all))
		})
	}
}

// groups has members of two groups, one of each protocol, share a flow: one leaves and one
// joins meanwhile, and both groups get every record.
func (w *world) groups(t *testing.T, r *row, out, in face, length time.Duration) {
	const partitions, perSecond = 6, 200
	f := flow.New(w.topic(t, "groups", partitions, nil), partitions, 7)
	var members []*flow.Member
	var names []string
	for _, g := range flow.BothProtocols(t, w.bootstraps()[0], f.Topic) {
		names = append(names, g.Name)
		for range 3 {
			m := &flow.Member{Group: g, Flow: f, Bootstrap: in.bootstrap()}
			members = append(members, m)
			t.Cleanup(m.Leave)
		}
	}
	for i, m := range members {
		if i%3 != 2 {
			m.Join(t)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()
	produced := make(chan error, 1)
	go func() { produced <- f.Produce(ctx, out.bootstrap(), perSecond) }()
	for i := 0; ctx.Err() == nil; i++ {
		select {
		case <-ctx.Done():
		case <-time.After(length / 4):
			for g := range 2 { // one of each group comes, and another goes
				members[3*g+(i+2)%3].Join(t)
				members[3*g+i%3].Leave()
			}
		}
	}
	if err := <-produced; err != nil {
		t.Fatalf("producing: %v", err)
	}
	for _, name := range names {
		f.Await(t, name)
	}
	flow.LeaveAll(members)
	r.note("%d records, %d repeated", f.Produced, f.Check(t, names...))
}

// noPlaintext searches everything that the brokers store, and what DumpLogSegments makes of it,
// for what applications wrote. A topic without encryption shows that the search finds it.
func (w *world) noPlaintext(t *testing.T, r *row) {
	control := records.NewCanaries()
	topic := w.create(t, "plain", 3, nil)
	w.sealed = w.sealed[:len(w.sealed)-1]
	sent := records.Generate(9, 300, clients.FranzGo.Shape, control)
	job := clients.Job{Bootstrap: w.broker.Bootstrap, Topic: topic, Records: sent}
	if err := clients.FranzGo.Produce(t.Context(), job); err != nil {
		t.Fatal(err)
	}
	search := func(c records.Canaries, topics ...string) *records.Search {
		s := c.Search()
		if err := w.broker.ReadDisk(s); err != nil {
			t.Fatal(err)
		}
		if err := w.broker.Dump(t.Context(), s, topics...); err != nil {
			t.Fatal(err)
		}
		return s
	}
	found, blind := search(w.canaries, w.sealed...), search(control, topic)
	total := 0
	for i, part := range records.Parts {
		if total += found.Hits[i]; found.Hits[i] != 0 {
			t.Errorf("the brokers know the canary in the %s: %d hits", part, found.Hits[i])
		}
		if blind.Hits[i] == 0 {
			t.Errorf("the canary in the %s of the topic without encryption is not found: the search is blind", part)
		}
	}
	r.note("%d MB of %d topics searched, %d hits", found.Size>>20, len(w.sealed), total)
}

// counted checks that a face's metrics say what it did.
func counted(t *testing.T, names []string, faces ...face) {
	t.Helper()
	for _, f := range faces {
		for _, name := range names {
			nodes.Poll(t, 10*time.Second, f.String()+": "+name+" above 0", func() bool { return f.metric(name) > 0 })
		}
	}
}
