// Package broker runs a real Apache Kafka (KRaft) from the jars in build/deps/kafka, on free
// ports of the loopback address and in a folder of its own, for tests and benchmarks.
package broker

import (
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/base64"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/host/process"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/deps"
)

//go:embed log4j2.properties
var log4j2 []byte

// Options say what to start. The zero value is one node, plaintext.
type Options struct {
	Nodes      int               // combined broker and controller nodes; 0 means 1
	Advertise  []string          // per node, the host:port that clients are told; empty: its own
	Listen     []string          // per node, the host:port of the client listener; empty: a free port
	Properties map[string]string // added to server.properties, or replacing lines of it
}

// A Cluster is a running Kafka.
type Cluster struct {
	Bootstrap string // what clients are given: host:port, comma separated
	Dir       string // logs, data and configuration
	Nodes     []*Node
}

// A Node is one broker of a cluster.
type Node struct {
	ID      int
	Addr    string // where its client listener listens
	Data    string // log.dirs
	Process *process.Process
}

// startTimeout bounds the start of a cluster: a node takes about 5 s alone on an idle machine
// with 2 cores, three nodes beside busy tests several times that.
const startTimeout = 3 * time.Minute

// Start formats and starts a cluster in a new folder under dir and returns when every node
// says that it is up. The caller stops it with Kill or Stop.
func Start(dir string, o Options) (*Cluster, error) {
	if o.Nodes == 0 {
		o.Nodes = 1
	}
	c := &Cluster{Dir: dir}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "log4j2.properties"), log4j2, 0o644); err != nil {
		return nil, err
	}
	ports, err := FreePorts(3 * o.Nodes)
	if err != nil {
		return nil, err
	}
	client, inner, control := ports[:o.Nodes], ports[o.Nodes:2*o.Nodes], ports[2*o.Nodes:]
	var voters, bootstrap []string
	for i := range o.Nodes {
		voters = append(voters, fmt.Sprintf("%d@127.0.0.1:%d", i+1, control[i]))
	}
	var uuid [16]byte
	_, _ = rand.Read(uuid[:])
	clusterID := base64.RawURLEncoding.EncodeToString(uuid[:])
	for i := range o.Nodes {
		n := &Node{ID: i + 1, Addr: fmt.Sprintf("127.0.0.1:%d", client[i])}
		if o.Listen != nil {
			n.Addr = o.Listen[i]
		}
		advertised := n.Addr
		if o.Advertise != nil {
			advertised = o.Advertise[i]
		}
		bootstrap = append(bootstrap, advertised)
		n.Data = filepath.Join(dir, fmt.Sprintf("node-%d", n.ID))
		c.Nodes = append(c.Nodes, n)
		replicas := fmt.Sprint(min(o.Nodes, 3))
		p := map[string]string{
			"node.id":                                          fmt.Sprint(n.ID),
			"process.roles":                                    "broker,controller",
			"controller.quorum.voters":                         strings.Join(voters, ","),
			"controller.listener.names":                        "CONTROLLER",
			"inter.broker.listener.name":                       "INNER",
			"listeners":                                        fmt.Sprintf("CLIENT://%s,INNER://127.0.0.1:%d,CONTROLLER://127.0.0.1:%d", n.Addr, inner[i], control[i]),
			"advertised.listeners":                             fmt.Sprintf("CLIENT://%s,INNER://127.0.0.1:%d", advertised, inner[i]),
			"listener.security.protocol.map":                   "CLIENT:PLAINTEXT,INNER:PLAINTEXT,CONTROLLER:PLAINTEXT",
			"log.dirs":                                         n.Data,
			"group.initial.rebalance.delay.ms":                 "0",
			"group.coordinator.append.linger.ms":               "0",
			"offsets.topic.num.partitions":                     "1",
			"offsets.topic.replication.factor":                 replicas,
			"transaction.state.log.num.partitions":             "1",
			"transaction.state.log.replication.factor":         replicas,
			"transaction.state.log.min.isr":                    "1",
			"share.coordinator.state.topic.num.partitions":     "1",
			"share.coordinator.state.topic.replication.factor": replicas,
			"share.coordinator.state.topic.min.isr":            "1",
			"auto.create.topics.enable":                        "false",
			"auto.leader.rebalance.enable":                     "false",
			"num.partitions":                                   "1",
			// Records carry whatever times a test likes, years ago too.
			"log.retention.ms":               "-1",
			"default.replication.factor":     replicas,
			"log.cleaner.dedupe.buffer.size": "16777216",
			"controlled.shutdown.enable":     "true",
			"num.network.threads":            "2",
			"num.io.threads":                 "4",
		}
		maps.Copy(p, o.Properties)
		var lines []string
		for _, k := range slices.Sorted(maps.Keys(p)) {
			lines = append(lines, k+"="+p[k]+"\n")
		}
		if err := os.WriteFile(c.properties(n), []byte(strings.Join(lines, "")), 0o644); err != nil {
			return nil, err
		}
	}
	c.Bootstrap = strings.Join(bootstrap, ",")

	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	errs := make([]error, o.Nodes)
	var wg sync.WaitGroup
	for i, n := range c.Nodes {
		wg.Go(func() { errs[i] = c.start(ctx, n, clusterID) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			c.Kill()
			return nil, err
		}
	}
	return c, nil
}

func (c *Cluster) properties(n *Node) string {
	return filepath.Join(c.Dir, fmt.Sprintf("node-%d.properties", n.ID))
}

func (c *Cluster) start(ctx context.Context, n *Node, clusterID string) error {
	if out, err := c.Tool(ctx, "kafka.tools.StorageTool", "format", "--cluster-id="+clusterID, "-c", c.properties(n)); err != nil {
		return fmt.Errorf("format node %d: %w\n%s", n.ID, err, out)
	}
	return c.Restart(ctx, n)
}

// Restart starts a node whose process is not running, on the data that it has, and waits
// until it is up.
func (c *Cluster) Restart(ctx context.Context, n *Node) error {
	p, err := process.Start(process.Spec{
		Name: fmt.Sprintf("kafka node %d", n.ID),
		Args: c.java("-Xmx512m", "kafka.Kafka", c.properties(n)),
		Dir:  c.Dir,
	})
	if err != nil {
		return err
	}
	n.Process = p
	return p.WaitFor(ctx, "Kafka Server started")
}

// Stop stops every node in order, as an operator would, and kills what does not stop.
func (c *Cluster) Stop() {
	var wg sync.WaitGroup
	for _, n := range c.Nodes {
		if n.Process != nil {
			wg.Go(func() { n.Process.Stop(20 * time.Second) })
		}
	}
	wg.Wait()
}

// Kill ends every node at once.
func (c *Cluster) Kill() {
	for _, n := range c.Nodes {
		if n.Process != nil {
			n.Process.Kill()
		}
	}
}

// Tool runs one of Kafka's command-line classes and returns what it printed.
func (c *Cluster) Tool(ctx context.Context, class string, args ...string) (string, error) {
	return process.Run(ctx, process.Spec{Name: class, Args: c.java("-Xmx256m", class, args...), Dir: c.Dir})
}

func (c *Cluster) java(heap, class string, args ...string) []string {
	return append(Java(heap, "file:"+filepath.Join(c.Dir, "log4j2.properties"), class), args...)
}

// Java is the start of a command line that runs a class from Kafka's jars or our Java client,
// with little memory and a quick start rather than a high speed.
func Java(heap, log4j, class string) []string {
	return []string{"java", heap, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto",
		"-Dlog4j2.configurationFile=" + log4j,
		"-cp", deps.Dir(deps.Java) + ":" + filepath.Join(deps.Dir(deps.Kafka), "*"), class}
}

// FreePorts returns n different TCP ports of the loopback address that nobody listens on.
func FreePorts(n int) ([]int, error) {
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}
