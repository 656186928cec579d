package envoy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wasm-e2ee/wasm-e2ee/abi/plugin"
	"github.com/wasm-e2ee/wasm-e2ee/host/config"
)

// How long the cluster is asked, and how long again after an error.
const (
	discoverTime = 15 * time.Second
	retryTime    = 3 * time.Second
)

// Discover asks the cluster for its id and its brokers, as the agent reaches them.
func Discover(ctx context.Context, c *config.Cluster) (kadm.Metadata, error) {
	opts, err := c.Kafka()
	if err != nil {
		return kadm.Metadata{}, err
	}
	client, err := kgo.NewClient(append(opts, kgo.RetryTimeout(retryTime))...)
	if err != nil {
		return kadm.Metadata{}, err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, discoverTime)
	defer cancel()
	m, err := kadm.NewClient(client).BrokerMetadata(ctx)
	if err != nil {
		return kadm.Metadata{}, fmt.Errorf("cluster %s: %w\nhint: is it up, and are bootstrap, tls and sasl of the configuration right?", strings.Join(c.Bootstrap, ","), err)
	}
	return m, nil
}

// places is where Envoy listens, and where clients find that.
type places struct {
	listen     netip.Addr
	advertised string
	bootstrap  int           // port
	brokers    map[int32]int // port of each, by id
}

// places lays the listeners out as the sidecar does: broker n at the bootstrap port + 1 + n. Ids
// that are too large for that get the ports behind the bootstrap port in their order.
func (s *Spec) places() (*places, error) {
	if len(s.Cluster.Brokers) == 0 {
		return nil, errNoBrokers
	}
	host, text, err := net.SplitHostPort(s.File.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	p := &places{advertised: s.File.AdvertisedHost, brokers: map[int32]int{}}
	if p.bootstrap, err = strconv.Atoi(text); err != nil || p.bootstrap < 1 || p.bootstrap > 65535 {
		return nil, fmt.Errorf("listen: %q has no port of 1 to 65535 (hint: clients must know it, and one more for each broker)", s.File.Listen)
	}
	switch host {
	case "":
		host = "0.0.0.0"
	case "localhost":
		host = "127.0.0.1"
	}
	if p.listen, err = netip.ParseAddr(host); err != nil {
		return nil, fmt.Errorf("listen: %q is no IP address, which Envoy listens on", host)
	}
	if p.advertised == "" {
		if p.listen.IsUnspecified() {
			return nil, fmt.Errorf("listen: %s is every address of the machine, and clients must be told one\nhint: advertised_host in the configuration", s.File.Listen)
		}
		p.advertised = host
	}
	direct := true
	slices.SortFunc(s.Cluster.Brokers, func(a, b kadm.BrokerDetail) int { return cmp.Compare(a.NodeID, b.NodeID) })
	for _, b := range s.Cluster.Brokers {
		if b.NodeID < 0 || b.Host == "" || b.Port < 1 || b.Port > 65535 {
			return nil, fmt.Errorf("the cluster lists broker %d at %q, port %d", b.NodeID, b.Host, b.Port)
		}
		direct = direct && int64(p.bootstrap)+1+int64(b.NodeID) <= 65535
	}
	for i, b := range s.Cluster.Brokers {
		if p.brokers[b.NodeID] = p.bootstrap + 1 + i; direct {
			p.brokers[b.NodeID] = p.bootstrap + 1 + int(b.NodeID)
		}
		if p.brokers[b.NodeID] > 65535 {
			return nil, fmt.Errorf("listen: no port is left for broker %d\nhint: a lower port", b.NodeID)
		}
	}
	return p, nil
}

// addresses is where clients reach each broker. There is no rule for the others: a broker
// without a listener must not be believed to have one.
func (p *places) addresses() plugin.Brokers {
	by := map[int32]string{}
	for id, port := range p.brokers {
		by[id] = net.JoinHostPort(p.advertised, strconv.Itoa(port))
	}
	return plugin.Brokers{ByID: by}
}

// apart refuses the port of a listener that something else of the configuration has.
func (p *places) apart(others ...string) error {
	for _, other := range others {
		addr, err := netip.ParseAddrPort(other)
		if err != nil {
			continue // none, or a socket in the file system
		}
		taken := int(addr.Port()) == p.bootstrap
		for _, port := range p.brokers {
			taken = taken || int(addr.Port()) == port
		}
		if taken {
			return fmt.Errorf("%s is also a port for clients\nhint: listen takes its port, and one more for each broker id", other)
		}
	}
	return nil
}

// address is a place in Envoy's words: "unix:/path", IP:PORT, or, unless local, HOST:PORT.
func address(text string, local bool) (object, error) {
	if path, unix := strings.CutPrefix(text, "unix:"); unix {
		if !strings.HasPrefix(path, "/") {
			return nil, fmt.Errorf("%q is not an absolute path behind unix:", text)
		}
		return obj("pipe", obj("path", path)), nil
	}
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return nil, err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return nil, fmt.Errorf("%q has no port of 1 to 65535", text)
	}
	if local {
		if ip, err := netip.ParseAddr(host); err != nil || !ip.IsLoopback() {
			return nil, errors.New(text + " is not on loopback")
		}
	}
	return socket(host, int(n)), nil
}

func socket(host string, port int) object {
	return obj("socket_address", obj("address", host, "port_value", port))
}
