package proxy

import (
	"context"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

func createTopic(ctx context.Context, cl *kgo.Client, topic string, partitions int32) error {
	r, err := kadm.NewClient(cl).CreateTopic(ctx, partitions, 1, nil, topic)
	if err != nil {
		return err
	}
	return r.Err
}

func TestRecordsComeOutAsTheyWentIn(t *testing.T) {
	for _, codec := range []kgo.CompressionCodec{kgo.NoCompression(), kgo.SnappyCompression(), kgo.ZstdCompression()} {
		r := newRig(t, nil, nil)
		r.createTopic("orders", 3)
		want := values("v", 50)
		producer := r.client(kgo.ProducerBatchCompression(codec))
		for i, v := range want {
			r.produce(producer, "orders", int32(i%3), v)
		}
		got := r.consume(r.client(from("orders")), len(want))
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Fatalf("got %v", got)
		}
		s := r.proxy.Stats()
		if s.Sealed != 50 || s.Opened == 0 || len(s.SealRefused)+len(s.OpenRefused) != 0 {
			t.Errorf("stats %+v", s)
		}
	}
}

func TestBrokerHoldsWhatTheFilterMade(t *testing.T) {
	r := newRig(t, nil, nil)
	r.createTopic("orders", 1)
	r.produce(r.client(kgo.ProducerBatchCompression(kgo.NoCompression())), "orders", 0, "canary")
	if got := stored(r, "orders", 0); len(got) != 1 || slices.Contains(got, "canary") {
		t.Fatalf("stored %q", got)
	}
}

func TestClientsReachTheSidecarOnly(t *testing.T) {
	r := newRig(t, nil, nil, kfake.NumBrokers(3))
	for _, topic := range []string{"a", "b", "c"} {
		r.createTopic(topic, 6)
	}
	var dials dialCounter
	producer := r.client(kgo.Dialer(dials.dial))
	for p := range int32(6) {
		for _, topic := range []string{"a", "b", "c"} {
			r.produce(producer, topic, p, values(topic, 3)...)
		}
	}
	group := r.client(kgo.Dialer(dials.dial), from("a", "b", "c"), kgo.ConsumerGroup("g"))
	r.consume(group, 54)
	if err := group.CommitUncommittedOffsets(r.ctx()); err != nil {
		t.Fatal(err)
	}
	adm := kadm.NewClient(producer)
	if _, err := adm.DescribeGroups(r.ctx(), "g"); err != nil {
		t.Fatal(err)
	}
	if _, err := adm.BrokerMetadata(r.ctx()); err != nil {
		t.Fatal(err)
	}
	local := map[string]bool{r.addr(): true}
	for _, ln := range r.proxy.listeners() {
		local[ln] = true
	}
	for addr, n := range dials.addrs {
		if !local[addr] {
			t.Errorf("%d connections to %s, which is not the sidecar's", n, addr)
		}
	}
	if len(dials.addrs) != 4 {
		t.Errorf("dialled %v, want the bootstrap listener and three brokers", dials.addrs)
	}
}

func TestPlainTopicsPassUntouched(t *testing.T) {
	r := newRig(t, nil, nil)
	for _, topic := range []string{"plain", "orders"} {
		r.createTopic(topic, 1)
		r.produce(r.client(), topic, 0, "a", "b")
		if got := r.consume(r.client(from(topic)), 2); !slices.Equal(got, []string{"a", "b"}) {
			t.Errorf("%s: consumed %q", topic, got)
		}
	}
	if got := r.consume(r.direct(from("plain")), 2); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("the broker holds %q", got)
	}
}
