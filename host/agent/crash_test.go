package agent

import (
	"bytes"
	"context"
	"crypto/sha256"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// An image is the disk at one moment, as a crash would leave it. The file is only ever
// replaced as a whole (TestKilledWriterLeavesTheOldOrTheNew of host/private), so that what a
// reader finds at any time is what a crash at that time leaves.
type image struct {
	content []byte
	end     int64 // of the own grants partition, before the file was read
}

// view reads a state file as the next start would.
func view(t *testing.T, content []byte) keyring.View {
	t.Helper()
	s, err := keyring.ParseState(content)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Wipe()
	return s.View()
}

// filmed collects every version of the state file at path until stop is called.
func filmed(t *testing.T, path string, end func() int64) (stop func() []image) {
	t.Helper()
	done, over := make(chan struct{}), make(chan []image)
	go func() {
		var out []image
		var last [32]byte
		var at int64
		for {
			select {
			case <-done:
				over <- out
				return
			default:
			}
			before := end()
			content, err := os.ReadFile(path)
			if sum := sha256.Sum256(content); err == nil && (sum != last || before != at) {
				out, last, at = append(out, image{content, before}), sum, before
			}
			time.Sleep(time.Millisecond)
		}
	}()
	return func() []image { close(done); return <-over }
}

// leaseSoon is lease where a loaded machine may acknowledge a grant too late for a prekey's
// short grace: the next one is asked for then.
func (r *running) leaseSoon(topic string) (l abi.Lease) {
	r.t.Helper()
	eventually(r.t, "a lease", func() (ok bool) {
		ctx, cancel := context.WithTimeout(r.t.Context(), patience)
		defer cancel()
		var err error
		l, err = r.Lease(ctx, topic)
		return err == nil
	})
	return l
}

// bundlesIn returns the prekeys of the bundles in a Produce request to the roster.
func bundlesIn(req *kmsg.ProduceRequest) (out []wire.PrekeyID) {
	for _, topic := range req.Topics {
		for _, p := range topic.Partitions {
			h, err := kafka.ParseBatchHeader(p.Records)
			if topic.Topic != rosterTopic || err != nil {
				continue
			}
			rest := p.Records[kafka.BatchHeaderSize:]
			for range h.NumRecords {
				var rec kafka.Record
				if rest, err = kafka.NextRecord(rest, &rec); err != nil {
					break
				}
				if b, err := wire.ParsePrekeyBundle(rec.Value); err == nil {
					out = append(out, wire.PrekeyIDOf(b.KEMPub[:]))
				}
			}
		}
	}
	return out
}

// What is on disk at any moment of a consumer's life is enough to go on from: no bundle is
// out whose seed it lacks, no key is behind the reader's place that it lacks, and no key is
// in it that a data plane was told to erase (PROTOCOL.md §2.13).
func TestCrashAtAnyMomentLosesNoKeyAndKeepsNoErasedOne(t *testing.T) {
	w := newWorld(t, kfake.MaxVersions(kversion.V3_9_0())) // where Produce names its topics
	path := w.enrol(wire.RoleConsume, orders, billing)

	a, err := Open(t.Context(), Config{Kafka: w.kafka, StateFile: path, Timing: brief})
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	erased := make(map[abi.Kid]bool)
	published := 0
	onDisk := func() keyring.View {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Error(err)
		}
		return view(t, content)
	}
	a.OnErase(func(kids []abi.Kid) {
		v := onDisk()
		mu.Lock()
		defer mu.Unlock()
		for _, kid := range kids {
			erased[kid] = true
			for _, held := range v.Kids {
				if held.Kid == kid {
					t.Errorf("kid %x: the data plane hears of its end while it is on disk", kid)
				}
			}
		}
	})
	w.c.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		w.c.KeepControl()
		for _, id := range bundlesIn(req.(*kmsg.ProduceRequest)) {
			found := false
			for _, p := range onDisk().Prekeys {
				found = found || p.ID == id
			}
			if !found {
				t.Errorf("the bundle of prekey %v is written before its seed is on disk", id)
			}
			mu.Lock()
			published++
			mu.Unlock()
		}
		return nil, nil, false
	})
	part := a.node.GrantPartition()
	stop := filmed(t, path, func() int64 {
		for _, p := range w.c.PartitionInfos(grantsTopic) {
			if p.Partition == part {
				return p.HighWatermark
			}
		}
		return 0
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	end := sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() { end() })
	consumer := (&running{Agent: a, t: t}).ready()

	producer := w.start(w.enrol(wire.RoleProduce, orders, nil), brief).ready()
	eventually(t, "three keys erased", func() bool {
		l := producer.leaseSoon("orders")
		consumer.opens(l)
		w.commit("billing", map[int32]int64{0: w.send(0, sealed(l.Kid))})
		mu.Lock()
		defer mu.Unlock()
		return len(erased) >= 3
	})
	last := producer.leaseSoon("orders")
	consumer.opens(last)
	images := stop()
	if err := end(); err != nil {
		t.Fatal(err)
	}
	log := w.grantLog(part)
	behind := 0 // images that a restart has to read grants for
	for _, im := range images {
		v := view(t, im.content)
		seeds, kids := make(map[wire.PrekeyID]bool), maps.Clone(erased)
		for _, p := range v.Prekeys {
			seeds[p.ID] = true
		}
		for _, k := range v.Kids {
			kids[k.Kid] = true
		}
		for at, g := range log[:im.end] {
			wrap := g.Wrap(v.Node)
			if wrap == nil {
				continue
			}
			if int64(at) >= v.GrantsNext {
				behind++
				if !seeds[wrap.Prekey] {
					t.Errorf("a restart would read grant %d, and lacks its prekey", at)
				}
				continue
			}
			for _, topic := range g.Header.Topics {
				if kid := keyring.KidOf(topic.Commit); !kids[kid] {
					t.Errorf("a restart would go on behind grant %d, and lacks kid %x", at, kid)
				}
			}
		}
	}
	if len(images) < 10 || behind == 0 || published < 3 {
		t.Errorf("%d images, %d behind their log, %d bundles: the test looked at too little", len(images), behind, published)
	}
	// And a process does go on from one.
	again := filepath.Join(t.TempDir(), "state")
	if err := os.WriteFile(again, images[len(images)-1].content, 0o600); err != nil {
		t.Fatal(err)
	}
	w.start(again, slow).opens(last)
}

// grantLog reads a partition of the grants topic, by offset.
func (w *world) grantLog(partition int32) (out []*wire.Grant) {
	w.t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{grantsTopic: {partition: kgo.NewOffset().At(0)}})}, w.kafka...)...)
	if err != nil {
		w.t.Fatal(err)
	}
	defer cl.Close()
	end, err := listOffset(w.t.Context(), cl, grantsTopic, partition, listEnd)
	if err != nil {
		w.t.Fatal(err)
	}
	for int64(len(out)) < end {
		fetches := poll(w.t.Context(), cl)
		if err := fetches.Err(); err != nil {
			w.t.Fatal(err)
		}
		for _, rec := range fetches.Records() {
			g, err := wire.ParseGrant(rec.Value)
			if err != nil {
				w.t.Fatal(err)
			}
			out = append(out, g)
		}
	}
	return out
}

// A restart must find nothing with which it could seal (PROTOCOL.md §2.13).
func TestNothingThatSealsIsEverOnDisk(t *testing.T) {
	w := newWorld(t)
	w.start(w.enrol(wire.RoleConsume, orders, billing), quick).ready()
	path := w.enrol(wire.RoleProduce|wire.RoleConsume, orders, billing)
	stop := filmed(t, path, func() int64 { return 0 })
	both := w.start(path, quick).ready()
	var secrets [][]byte // leases, and the roots they are cut from where they can be read
	instances := make(map[wire.InstanceID]bool)
	eventually(t, "four epochs", func() bool {
		l := both.leaseSoon("orders")
		secrets = append(secrets, bytes.Clone(l.Node[:]))
		if root, err := both.root("orders", l.Kid); err == nil {
			secrets = append(secrets, bytes.Clone(root.Root[:]))
		}
		s := both.Snapshot()
		for _, e := range s.Epochs {
			instances[e.Instance] = true
		}
		return s.EpochsBegun >= 4
	})
	both.stop()
	images := stop()
	if len(images) < 5 || len(secrets) < 4 || len(instances) == 0 {
		t.Fatalf("%d images, %d secrets, %d instances: the test looked at too little", len(images), len(secrets), len(instances))
	}
	for i, im := range images {
		for _, secret := range secrets {
			if bytes.Contains(im.content, secret) {
				t.Fatalf("image %d holds a node of a tree", i)
			}
		}
		// What it holds of its own epochs is what any consumer holds: a topic secret each.
		for _, k := range view(t, im.content).Kids {
			if !instances[k.Instance] {
				t.Errorf("image %d names instance %v", i, k.Instance)
			}
		}
	}
	producer := w.enrol(wire.RoleProduce, orders, nil)
	stop = filmed(t, producer, func() int64 { return 0 })
	alone := w.start(producer, quick).ready()
	alone.leaseSoon("orders")
	instance := alone.Snapshot().Epochs[0].Instance
	alone.stop()
	for i, im := range stop() {
		if bytes.Contains(im.content, instance[:]) {
			t.Errorf("image %d of a node that only produces names its instance", i)
		}
	}
}
