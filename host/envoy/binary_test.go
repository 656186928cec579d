package envoy

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wasm-e2ee/wasm-e2ee/host/process"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/deps"
)

// binaries are the Envoys that the configuration must suit, by version. The first is part of
// make e2e, along with every test that has RealEnvoy in its name.
func binaries(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	for i, version := range []string{"1.40.0", "1.39.3", "1.37.0"} {
		part := deps.Envoy(version)
		if i == 0 {
			deps.Need(t, part)
		}
		if deps.Have(part) {
			found[version] = filepath.Join(deps.Dir(part), "envoy")
		}
	}
	return found
}

// put writes a configuration, of s with the module that is there, to a file of its own.
func put(t *testing.T, s Spec, wasm []byte) string {
	t.Helper()
	dir := t.TempDir()
	module := filepath.Join(dir, "e2ee.wasm")
	if err := os.WriteFile(module, wasm, 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	if s.Module, err = ReadModule(t.Context(), module, wasm); err != nil {
		t.Fatal(err)
	}
	text, err := Write(s)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "envoy.yaml")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestEveryRealEnvoyAcceptsWhatIsWritten(t *testing.T) {
	proof := certify(t, "broker-1.example.com")
	secure := fmt.Sprintf("tls: {enabled: true, ca: %s, cert: %s, key: %s}\nclient_tls: {cert: %s, key: %s}\n", proof.CA, proof.Cert, proof.Key, proof.Cert, proof.Key)
	for version, binary := range binaries(t) {
		if says, err := Version(t.Context(), binary); err != nil || says != version {
			t.Errorf("Envoy %s says that it is %q: %v", version, says, err)
		}
		known := spec(t, "bootstrap: [127.0.0.1:9092]\nagent: {listen: '127.0.0.1:9465', pairing_key_file: pairing.key}\n", 1)
		known.Envoy = version
		for name, path := range map[string]string{
			"of its version":        put(t, known, leastModule()),
			"three brokers and TLS": put(t, spec(t, "bootstrap: [localhost:9092, 127.0.0.1:9093]\nlisten: '[::1]:19092'\n"+secure+unixAgent, 3), leastModule()),
		} {
			if err := Validate(t.Context(), binary, path); err != nil {
				t.Errorf("Envoy %s, %s: %v", version, name, err)
			}
		}
		bad := put(t, spec(t, "bootstrap: [localhost:9092]\n"+unixAgent, 1), bytes.Replace(leastModule(), []byte("0_2_1"), []byte("9_9_9"), 1))
		if err := Validate(t.Context(), binary, bad); err == nil || !strings.Contains(err.Error(), "wasm-e2ee") {
			t.Errorf("Envoy %s, a module of another ABI: %v", version, err)
		}
	}
}

// run starts Envoy 1.40.0 with a configuration that lets every byte pass, waits until it serves,
// and returns where clients begin.
func run(t *testing.T, text string, brokers []kadm.BrokerDetail) (listen string) {
	t.Helper()
	ports := free(t, 2+len(brokers))
	s := spec(t, fmt.Sprintf("listen: 127.0.0.1:%d\n", ports)+text+unixAgent, 0)
	s.Cluster.Brokers, s.Admin = brokers, fmt.Sprintf("127.0.0.1:%d", ports+1+len(brokers))
	p, err := process.Start(process.Spec{Name: "envoy", Args: []string{binaries(t)["1.40.0"], "-c", put(t, s, leastModule()),
		"--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Stop(5 * time.Second) })
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if response, err := http.Get("http://" + s.Admin + "/ready"); err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return s.File.Listen
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("not ready\n%s", p.Output())
		}
	}
}

// What a client that is served takes at most, and one that is not tries for.
const (
	served  = 30 * time.Second
	refused = 3 * time.Second
)

// ping returns how a client sees the cluster, which it gives so much time.
func ping(t *testing.T, listen string, limit time.Duration, opts ...kgo.Opt) error {
	t.Helper()
	client, err := kgo.NewClient(append(opts, kgo.SeedBrokers(listen), kgo.RetryTimeout(time.Second), kgo.RequestRetries(1))...)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	return client.Ping(ctx)
}

// free returns the first of n ports in a row that were free just now.
func free(t *testing.T, n int) int {
	t.Helper()
	for range 100 {
		var held []net.Listener
		first := 0
		for i := range n {
			ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", max(0, first+i)))
			if err != nil {
				break
			}
			held = append(held, ln)
			if i == 0 {
				first = ln.Addr().(*net.TCPAddr).Port
			}
		}
		for _, ln := range held {
			ln.Close()
		}
		if len(held) == n {
			return first
		}
	}
	t.Fatal("no free ports in a row")
	return 0
}

// TestBehindARealEnvoyABrokerMustProveItsName has brokers with good and with bad certificates.
func TestBehindARealEnvoyABrokerMustProveItsName(t *testing.T) {
	binaries(t)
	right, other, stranger := certify(t, "127.0.0.1"), certify(t, "broker.example.com"), certify(t, "127.0.0.1")
	for name, c := range map[string]struct {
		server certificateFiles
		ca     string
		ok     bool
	}{
		"its address":        {right, right.CA, true},
		"another name":       {other, other.CA, false},
		"of another root":    {stranger, right.CA, false},
		"two to begin with":  {right, right.CA, true},
		"two with bad names": {other, other.CA, false},
	} {
		pair, err := tls.LoadX509KeyPair(c.server.Cert, c.server.Key)
		if err != nil {
			t.Fatal(err)
		}
		cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.TLS(&tls.Config{Certificates: []tls.Certificate{pair}}))
		if err != nil {
			t.Fatal(err)
		}
		defer cluster.Close()
		seeds := cluster.ListenAddrs()[0]
		if strings.HasPrefix(name, "two") {
			seeds += "," + seeds
		}
		_, port, _ := net.SplitHostPort(cluster.ListenAddrs()[0])
		at, _ := strconv.Atoi(port)
		listen := run(t, fmt.Sprintf("bootstrap: [%s]\ntls: {enabled: true, ca: %s}\n", seeds, c.ca), []kadm.BrokerDetail{{NodeID: 0, Host: "127.0.0.1", Port: int32(at)}})
		limit := served
		if !c.ok {
			limit = refused
		}
		if err = ping(t, listen, limit); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestARealEnvoyServesClientsWithTLS(t *testing.T) {
	binaries(t)
	proof := certify(t, "127.0.0.1")
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	pem, err := os.ReadFile(proof.CA)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	text := fmt.Sprintf("bootstrap: [%s]\nclient_tls: {cert: %s, key: %s}\n", cluster.ListenAddrs()[0], proof.Cert, proof.Key)
	brokers := []kadm.BrokerDetail{{NodeID: 0, Host: "127.0.0.1", Port: 1}}
	listen := run(t, text, brokers)
	if err := ping(t, listen, served, kgo.DialTLSConfig(&tls.Config{RootCAs: roots})); err != nil {
		t.Error(err)
	}
	if err := ping(t, listen, refused); err == nil {
		t.Error("a client without TLS was served")
	}
}

// A client that connects while a broker restarts waits for it. Where it stays away, the client
// sees a reset, after which each tries again; an end without one is final for some.
func TestBehindARealEnvoyAClientWaitsForABrokerThatRestarts(t *testing.T) {
	binaries(t)
	port := free(t, 1)
	listen := run(t, fmt.Sprintf("bootstrap: ['127.0.0.1:%d']\n", port), []kadm.BrokerDetail{{NodeID: 0, Host: "127.0.0.1", Port: int32(port)}})
	conn, err := net.Dial("tcp", listen)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(served))
	begin := time.Now()
	_, _ = conn.Write([]byte{0})
	if _, err := conn.Read([]byte{0}); !errors.Is(err, syscall.ECONNRESET) || time.Since(begin) < time.Second {
		t.Errorf("a broker that stays away: %v after %v", err, time.Since(begin))
	}
	started := make(chan *kfake.Cluster, 1)
	time.AfterFunc(time.Second, func() {
		cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(port))
		if err != nil {
			t.Error(err)
		}
		started <- cluster
	})
	var dials atomic.Int32
	dial := func(ctx context.Context, network, host string) (net.Conn, error) {
		dials.Add(1)
		return new(net.Dialer).DialContext(ctx, network, host)
	}
	if err := ping(t, listen, served, kgo.Dialer(dial)); err != nil || dials.Load() != 1 {
		t.Errorf("a broker that comes a second later: %v, %d connections", err, dials.Load())
	}
	if cluster := <-started; cluster != nil {
		cluster.Close()
	}
}
