package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestDrainAnswersWhatWasTaken(t *testing.T) {
	r := newRig(t, nil, nil)
	r.createTopic("orders", 1)
	entered, proceed := make(chan struct{}), make(chan struct{})
	r.filter.onSeal(func(context.Context, string, int32) error {
		close(entered)
		<-proceed
		return nil
	})
	raw, idle := dialRaw(r), dialRaw(r)
	idle.roundTrip(metadataRequest("orders"))
	raw.send(produceRequest(9, -1, "orders", batchOf("x")))
	<-entered
	stopped := make(chan error, 1)
	go func() { stopped <- r.stop() }()
	if _, err := idle.frame(); !errors.Is(err, io.EOF) {
		t.Errorf("idle connection: %v, want it closed", err)
	}
	if conn, err := net.Dial("tcp", r.addr()); err == nil {
		conn.Close()
		t.Error("the listener still accepts")
	}
	select {
	case <-stopped:
		t.Fatal("Run ended before the request was answered")
	default:
	}
	close(proceed)
	resp, err := raw.receive()
	if err != nil {
		t.Fatal(err)
	}
	if code := resp.(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode; code != 0 {
		t.Errorf("code %d", code)
	}
	if _, err := raw.frame(); !errors.Is(err, io.EOF) {
		t.Errorf("after the answer: %v, want the connection closed", err)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if got := stored(r, "orders", 0); len(got) != 1 {
		t.Errorf("the broker holds %d batches", len(got))
	}
}

func TestBrokerThatGoesTakesItsConnectionsAlong(t *testing.T) {
	r := newRig(t, nil, nil)
	r.createTopic("orders", 1)
	idle, waiting := dialRaw(r), dialRaw(r)
	idle.roundTrip(metadataRequest("orders"))
	long := fetchRequest(12, "orders", 0)
	long.MaxWaitMillis = 60000
	waiting.send(long)
	r.eventually("both are connected", func() bool { return r.proxy.Stats().Open >= 2 })
	r.cluster.Close()
	for _, raw := range []*rawConn{idle, waiting} {
		if _, err := raw.frame(); !errors.Is(err, io.EOF) {
			t.Errorf("got %v, want the connection closed", err)
		}
	}
	late := dialRaw(r)
	late.send(metadataRequest("orders"))
	if _, err := late.frame(); !errors.Is(err, io.EOF) {
		t.Errorf("got %v, want the connection closed", err)
	}
	r.eventually("it is logged", func() bool { return r.logged.count("broker cannot be reached") == 1 })
}

func TestBootstrapFallsBackToABrokerThatAnswers(t *testing.T) {
	const dead = "127.0.0.1:1" // nobody listens there
	r := newRig(t, func(c *Config) { c.Bootstrap = append([]string{dead}, c.Bootstrap...) }, nil)
	r.createTopic("orders", 1)
	r.produce(r.client(), "orders", 0, "x")
	if r.proxy.reachable.Load() != 1 {
		t.Error("the address that answered is not remembered")
	}
}

func TestSidecarNeverConnectsToItself(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "0.0.0.0", "[::]"} {
		probe, err := net.Listen("tcp", host+":0")
		if err != nil {
			t.Logf("cannot listen on %s here: %v", host, err)
			continue
		}
		probe.Close()
		r := newRig(t, func(c *Config) { c.Listen = host + ":0" }, nil)
		port, err := r.proxy.localPort(7, "127.0.0.1", int32(r.proxy.bootstrapPort()))
		if err != nil {
			t.Fatal(err)
		}
		raw := dialRawAt(r, net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))))
		raw.send(metadataRequest("orders"))
		if _, err := raw.frame(); !errors.Is(err, io.EOF) {
			t.Errorf("got %v, want the connection closed", err)
		}
		r.eventually("it is explained", func() bool { return r.logged.count("own listener", "hint:") == 1 })
		if n := r.proxy.Stats().Connections; n != 1 {
			t.Errorf("%d connections", n)
		}
	}
}

func TestRecordsGoOnWhileLeadersMove(t *testing.T) {
	r := newRig(t, nil, nil, kfake.NumBrokers(3))
	r.createTopic("orders", 1)
	var dials dialCounter
	producer, consumer := r.client(kgo.Dialer(dials.dial)), r.client(kgo.Dialer(dials.dial), from("orders"))
	want := values("v", 30)
	for i, v := range want {
		if i%5 == 4 {
			if err := r.cluster.MoveTopicPartition("orders", 0, int32(i/5)%3); err != nil {
				t.Fatal(err)
			}
		}
		r.produce(producer, "orders", 0, v)
	}
	if got := r.consume(consumer, len(want)); !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	local := append(r.proxy.listeners(), r.addr())
	for addr := range dials.addrs {
		if !slices.Contains(local, addr) {
			t.Errorf("a client dialled %s, which is not the sidecar's", addr)
		}
	}
}

func TestBrokerAtANewAddressKeepsItsListener(t *testing.T) {
	r := newRig(t, nil, nil)
	first, err := r.proxy.localPort(7, "127.0.0.1", 1)
	if err != nil {
		t.Fatal(err)
	}
	host, port, err := net.SplitHostPort(r.cluster.ListenAddrs()[0])
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.proxy.Learn(7, host, int32(n)); err != nil {
		t.Fatal(err)
	}
	second, err := r.proxy.localPort(7, host, int32(n))
	if err != nil || second != first {
		t.Errorf("port %d, then %d, %v", first, second, err)
	}
	r.createTopic("orders", 1)
	cl := r.clientOf([]string{net.JoinHostPort("127.0.0.1", strconv.Itoa(int(first)))})
	r.produce(cl, "orders", 0, "x")
	if r.logged.count("broker has moved", "broker=7") != 1 {
		t.Error("the move is not logged")
	}
}

func TestBrokersListenAboveTheBootstrapPortWhereFree(t *testing.T) {
	r := newRig(t, nil, nil)
	if _, err := r.proxy.localPort(2, "h", 1); err != nil || r.logged.count("the port for a broker is not free") != 0 {
		t.Errorf("warned although no port was asked for, or %v", err)
	}
	r.proxy.fixedPort = true // as if the port had been configured
	want := r.proxy.bootstrapPort() + 1 + 3
	probe, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(want)))
	free := err == nil
	if free {
		probe.Close()
	}
	got, err := r.proxy.localPort(3, "h", 1)
	if err != nil {
		t.Fatal(err)
	}
	if free && int(got) != want {
		t.Errorf("port %d, want %d", got, want)
	}
	// Its neighbour's port is taken, and the last one does not exist.
	taken, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(want+1)))
	if err == nil {
		defer taken.Close()
	}
	for _, id := range []int32{4, 1<<31 - 1} {
		if got, err := r.proxy.localPort(id, "h", 1); err != nil || got <= 0 || int(got) == want+1 {
			t.Errorf("broker %d: port %d, %v", id, got, err)
		}
	}
}

func TestClientsAreToldTheAdvertisedHost(t *testing.T) {
	for configured, want := range map[string]string{"": "127.0.0.1", "kafka.example.com": "kafka.example.com"} {
		r := newRig(t, func(c *Config) { c.AdvertisedHost = configured }, nil)
		r.createTopic("orders", 1)
		raw := dialRaw(r)
		meta := raw.roundTrip(metadataRequest("orders")).(*kmsg.MetadataResponse)
		coord := kmsg.NewPtrFindCoordinatorRequest()
		coord.Version, coord.CoordinatorKey = 2, "g"
		found := raw.roundTrip(coord).(*kmsg.FindCoordinatorResponse)
		describe := kmsg.NewPtrDescribeClusterRequest()
		described := raw.roundTrip(describe).(*kmsg.DescribeClusterResponse)
		port, err := r.proxy.localPort(meta.Brokers[0].NodeID, "127.0.0.1", 1)
		if err != nil {
			t.Fatal(err)
		}
		for what, got := range map[string]struct {
			host string
			port int32
		}{
			"Metadata":        {meta.Brokers[0].Host, meta.Brokers[0].Port},
			"FindCoordinator": {found.Host, found.Port},
			"DescribeCluster": {described.Brokers[0].Host, described.Brokers[0].Port},
		} {
			if got.host != want || got.port != port {
				t.Errorf("%s says %v, want %s:%d", what, got, want, port)
			}
		}
	}
}

func TestNoBrokerStaysNoBroker(t *testing.T) {
	r := newRig(t, nil, nil)
	c := newConn(r.proxy, dialRaw(r).conn, nil)
	for _, id := range []int32{-1, 5} {
		host, port := "", int32(-1)
		if err := c.rewrite(id, &host, &port); err != nil || host != "" || port != -1 {
			t.Errorf("broker %d became %s:%d, %v", id, host, port, err)
		}
	}
	host, port := "broker.example.com", int32(9092)
	if err := c.rewrite(-1, &host, &port); err != nil || host != "" {
		t.Errorf("an address without a broker passes: %s:%d, %v", host, port, err)
	}
	if n := len(r.proxy.listeners()); n != 0 {
		t.Errorf("%d listeners", n)
	}
}

func TestClientThatLeavesFreesItsConnection(t *testing.T) {
	r := newRig(t, nil, nil)
	r.createTopic("orders", 1)
	var served atomic.Int32
	for range 20 {
		raw := dialRaw(r)
		raw.roundTrip(metadataRequest("orders"))
		served.Add(1)
		raw.conn.Close()
	}
	r.eventually("no connection is left", func() bool { return r.proxy.Stats().Open == 0 })
	if got := r.proxy.Stats().Connections; got < 20 {
		t.Errorf("%d connections counted", got)
	}
}

func TestLastRecordWithoutAcksIsDeliveredThoughTheClientLeft(t *testing.T) {
	r := newRig(t, nil, nil)
	r.createTopic("orders", 1)
	r.filter.onSeal(func(context.Context, string, int32) error {
		time.Sleep(20 * time.Millisecond) // the client is gone by then
		return nil
	})
	raw := dialRaw(r)
	for range 5 {
		raw.send(produceRequest(9, 0, "orders", batchOf("x")))
	}
	raw.conn.Close()
	r.eventually("all five are stored", func() bool { return len(stored(r, "orders", 0)) == 5 })
}

func TestBadConfigurationIsExplained(t *testing.T) {
	for _, cfg := range []Config{
		{Listen: "127.0.0.1:0"},
		{Listen: "127.0.0.1:0", Bootstrap: []string{"broker"}},
		{Listen: "nonsense", Bootstrap: []string{"broker:9092"}},
		{Listen: "192.0.2.1:1", Bootstrap: []string{"broker:9092"}},
	} {
		if _, err := New(cfg, &fakeFilter{}, nil); err == nil {
			t.Errorf("%+v is accepted", cfg)
		}
	}
}

func TestAProxyThatIsNotRunGivesItsPortsBack(t *testing.T) {
	p, err := New(Config{Bootstrap: []string{"127.0.0.1:9"}, Listen: "127.0.0.1:0", Log: quietLog()}, &fakeFilter{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	port, err := p.localPort(1, "127.0.0.1", 9)
	if err != nil {
		t.Fatal(err)
	}
	p.Close()
	for _, addr := range []string{p.Addr().String(), net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port)))} {
		if conn, err := net.Dial("tcp", addr); err == nil {
			conn.Close()
			t.Errorf("%s still accepts", addr)
		}
	}
}
