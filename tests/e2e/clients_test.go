package e2e

import (
	"context"
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/clients"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/deps"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/records"
)

// What an application hands to any of the clients comes back equal from the same client
// behind another process's sidecar, with each codec; and nothing of it is on the broker's
// disk, while in the control run past the sidecars everything is.
func TestRecordsComeBackAndTheBrokerSeesNone(t *testing.T) {
	b := sharedBroker(t)
	bothLinks(t, b.Bootstrap, "clients", func(t *testing.T, l link, prefix string) {
		n := recordsPerClient(t)
		control := l.sidecars == nil
		if control {
			n = min(n, 1000) // enough to prove that the search finds what is there
		}
		canaries := records.NewCanaries()
		broker := canaries.Search() // what a client of the broker reads
		var topics []string
		for _, c := range clients.All() {
			t.Run(c.Name, func(t *testing.T) {
				deps.Need(t, c.Parts...)
				for i, codec := range c.Codecs {
					t.Run(codec, func(t *testing.T) {
						topic := newTopic(t, b.Bootstrap, prefix+"-"+c.Name+"-"+codec, c.Shape.Partitions, nil)
						topics = append(topics, topic)
						sent := records.Generate(uint64(i), n/len(c.Codecs), c.Shape, canaries)
						roundTrip(t, c, l, topic, codec, sent)
						seen, err := clients.FranzConsume(t.Context(), clients.Job{Bootstrap: b.Bootstrap, Topic: topic, Count: len(sent)})
						if err != nil {
							t.Fatalf("reading the broker: %v", err)
						}
						broker.Add(seen)
					})
				}
			})
		}
		disk, decoded := canaries.Search(), canaries.Search()
		if err := b.ReadDisk(disk); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		if err := b.Dump(t.Context(), decoded, topics...); err != nil {
			t.Fatal(err)
		}
		t.Logf("searched %d MB of disk, %d MB that DumpLogSegments printed in %v, %d MB that a client of the broker read",
			disk.Size>>20, decoded.Size>>20, time.Since(begin).Round(time.Millisecond), broker.Size>>20)
		for i, part := range records.Parts {
			t.Logf("canary in %s: %d on disk, %d decoded, %d read", part, disk.Hits[i], decoded.Hits[i], broker.Hits[i])
			found := disk.Hits[i] + decoded.Hits[i] + broker.Hits[i]
			switch {
			case !control && found != 0:
				t.Errorf("the broker knows the canary in the %s", part)
			case control && (disk.Hits[i] == 0 || broker.Hits[i] == 0):
				t.Errorf("the control run did not find the canary in the %s: the search is blind", part)
			case control && decoded.Hits[i] == 0 && part != "header value": // DumpLogSegments prints no values of headers
				t.Errorf("DumpLogSegments did not print the canary in the %s: the search is blind", part)
			}
		}
	})
}

// roundTrip produces and consumes with one client and compares; then franz-go reads the same
// topic without a group and must get the same.
func roundTrip(t *testing.T, c clients.Client, l link, topic, codec string, sent []records.Record) {
	t.Helper()
	job := clients.Job{Topic: topic, Group: topic, Codec: codec, Dir: t.TempDir(), Records: sent, Count: len(sent)}
	begin := time.Now()
	job.Bootstrap = l.produce
	if err := c.Produce(t.Context(), job); err != nil {
		t.Fatalf("produce: %v", err)
	}
	produced := time.Now()
	job.Bootstrap = l.consume
	got, err := c.Consume(t.Context(), job)
	if err != nil {
		t.Fatalf("consume: %v", err)
	}
	t.Logf("%d records: produced in %v, consumed in %v", len(sent), produced.Sub(begin).Round(time.Millisecond), time.Since(produced).Round(time.Millisecond))
	if err := records.Compare(sent, got, records.Since(begin), false); err != nil {
		t.Fatal(err)
	}
	again, err := clients.FranzConsume(context.WithoutCancel(t.Context()), job)
	if err != nil {
		t.Fatalf("consume without a group: %v", err)
	}
	if err := records.Same(got, again); err != nil {
		t.Fatalf("franz-go reads otherwise: %v", err)
	}
}
