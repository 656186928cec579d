package envoy

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/broker"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/nodes"
)

// A face is one node's way for clients through e2ee.wasm, whatever runs the module.
type face interface {
	fmt.Stringer
	bootstrap() string        // for clients
	metric(name string) int64 // as Envoy names them: refusals_total.direction.seal.status.pending; 0 while nothing answers
	log() string              // the module's, and that of whatever runs it
	rss() int64               // resident bytes of what runs the module
}

// An envoyFace is an Envoy and its agent.
type envoyFace struct {
	*Envoy
	agent *nodes.Agent
	addr  string
}

// A faceSpec says how one of a world's Envoys is run.
type faceSpec struct {
	version string
	workers int
	unix    bool // the agent is behind a Unix socket
	hot     bool // may be restarted hot
	more    nodes.Settings
}

// startEnvoy enrols a node and starts its agent and its Envoy.
func (w *world) startEnvoy(t testing.TB, s faceSpec) *envoyFace {
	t.Helper()
	// The bootstrap listener, one for each broker id, and the ports of administration and agent.
	ports, err := broker.StablePort(len(w.broker.Nodes) + 4)
	if err != nil {
		t.Fatal(err)
	}
	last := ports + len(w.broker.Nodes) + 3
	f := &envoyFace{addr: fmt.Sprintf("127.0.0.1:%d", ports)}
	listen := fmt.Sprintf("127.0.0.1:%d", last)
	if s.unix {
		listen = fmt.Sprintf("unix:%s/%d.sock", nodes.Scratch("run"), ports)
	}
	more := nodes.Settings{"listen": f.addr, "produce_wait": produceWait.String(), "timing": w.timing}
	for k, v := range s.more {
		more[k] = v
	}
	f.agent = nodes.NewAgent(t, w.broker.Bootstrap, w.realm.Enroll(t, w.role), listen, more)
	spec := Spec{Version: s.version, Workers: s.workers, KeyFile: f.agent.KeyFile, Admin: fmt.Sprintf("127.0.0.1:%d", last-1),
		Config: filepath.Join(t.TempDir(), "envoy.yaml")}
	if s.hot {
		spec.Base = ports
	}
	nodes.MustRun(t, "envoy", "config", "--config", f.agent.Config, "--admin", spec.Admin, "--out", spec.Config)
	f.Envoy = Start(t, spec)
	return f
}

func (f *envoyFace) String() string    { return "Envoy " + f.Spec.Version }
func (f *envoyFace) bootstrap() string { return f.addr }
func (f *envoyFace) log() string       { return f.Log() }
func (f *envoyFace) rss() int64        { return RSS(f.Pid()) }

func (f *envoyFace) metric(name string) int64 {
	all, err := f.Stats("wasmcustom.wasm_e2ee_")
	if err != nil {
		return 0
	}
	return all[name]
}

// closed is how many connections were closed for what was sent: by the module, and by a broker
// instead of an answer.
func (f *envoyFace) closed() int64 {
	return f.metric("closed_connections_total.fault.client") + f.metric("closed_connections_total.fault.broker")
}

// A sidecarFace is a sidecar: keys and module in one process.
type sidecarFace struct {
	*nodes.Sidecar
	metrics string // HOST:PORT
}

func (w *world) startSidecar(t testing.TB) *sidecarFace {
	t.Helper()
	port, err := broker.StablePort(1)
	if err != nil {
		t.Fatal(err)
	}
	f := &sidecarFace{metrics: fmt.Sprintf("127.0.0.1:%d", port)}
	f.Sidecar = nodes.StartSidecar(t, w.broker.Bootstrap, w.realm.Enroll(t, w.role),
		nodes.Settings{"metrics": map[string]string{"listen": f.metrics}, "timing": w.timing})
	return f
}

func (f *sidecarFace) String() string    { return "sidecar" }
func (f *sidecarFace) bootstrap() string { return f.Addr }
func (f *sidecarFace) log() string       { return f.Output() }
func (f *sidecarFace) rss() int64        { return RSS(f.Pid()) }

var label = regexp.MustCompile(`\.([a-z]+)\.([a-z0-9_]+)`)

func (f *sidecarFace) metric(name string) int64 {
	if base, labels, ok := strings.Cut(name, "."); ok {
		labels = strings.Trim(label.ReplaceAllString("."+labels, `,$1="$2"`), ",")
		name = base + "{" + labels + "}"
	}
	text, err := get(f.metrics, "/metrics")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), "wasm_e2ee_"+name+" "); ok {
			n, _ := strconv.ParseFloat(value, 64)
			return int64(n)
		}
	}
	return 0
}
