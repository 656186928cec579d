package demo

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi/plugin"
	"github.com/wasm-e2ee/wasm-e2ee/host/config"
	"github.com/wasm-e2ee/wasm-e2ee/host/envoy"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
	"github.com/wasm-e2ee/wasm-e2ee/host/lease"
	"github.com/wasm-e2ee/wasm-e2ee/host/process"
	"github.com/wasm-e2ee/wasm-e2ee/host/sidecar"
)

// envoyTime bounds the start of an Envoy: V8 compiles the whole module first.
const envoyTime = 90 * time.Second

// An envoyPlane is a data plane in an Envoy of its own.
type envoyPlane struct {
	*process.Process
	admin string // HOST:PORT
	begun time.Time
	spec  envoy.Spec
}

// startEnvoy does what an operator does with `agent pair`, `agent`, `envoy config` and envoy.
func (s *stage) startEnvoy(ctx context.Context, o Options, name, state string, log *slog.Logger) (*plane, error) {
	fail := func(err error) (*plane, error) { return nil, fmt.Errorf("%s's Envoy: %w", name, err) }
	e := &envoyPlane{begun: time.Now()}
	key, err := lease.NewKey(rand.Reader)
	if err != nil {
		return fail(err)
	}
	defer key.Wipe()
	text := lease.MarshalKey(key)
	defer clear(text)
	file := &config.File{Cluster: config.Cluster{Bootstrap: []string{s.bootstrap}}, State: state, Timing: timing,
		Agent: config.Agent{Listen: "127.0.0.1:0", PairingKeyFile: filepath.Join(s.dir, name+".key")}}
	if err := os.WriteFile(file.Agent.PairingKeyFile, text, 0o600); err != nil {
		return fail(err)
	}
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer context.AfterFunc(ctx, stop)()
	agent, err := sidecar.StartKeyServer(life, file, log)
	if err != nil {
		stop()
		return fail(err)
	}
	s.onTeardown = append(s.onTeardown, func() { stop(); _ = agent.Wait() })

	file.Agent.Listen = agent.Addr().String()
	e.spec = envoy.Spec{File: file, Node: keyring.View{Realm: agent.Agent.View().Realm, Node: agent.Agent.View().Node}}
	if err := e.arrange(ctx, o); err != nil {
		return fail(err)
	}
	conf, err := envoy.Write(e.spec)
	if err != nil {
		return fail(err)
	}
	path := filepath.Join(s.dir, name+"-envoy.yaml")
	if err := os.WriteFile(path, conf, 0o600); err != nil {
		return fail(err)
	}
	e.Process, err = process.Start(process.Spec{Name: name + "'s Envoy", Env: []string{plugin.KeyVariable + "=" + strings.TrimSpace(string(text))},
		Args: []string{o.Envoy, "-c", path, "--log-level", "warning", "--concurrency", "1", "--disable-hot-restart"}})
	if err != nil {
		return fail(err)
	}
	s.onTeardown = append(s.onTeardown, func() { e.Stop(5 * time.Second) })
	s.out.step("%-10s agent at %s, Envoy starting: V8 compiles the module", name, agent.Addr())
	return &plane{Agent: agent.Agent, addr: file.Listen, name: name, envoy: e}, nil
}

// arrange finds module, brokers, and ports that are free for all of them.
func (e *envoyPlane) arrange(ctx context.Context, o Options) error {
	path, err := sidecar.ModulePath(o.Module)
	if err != nil {
		return err
	}
	wasm, err := sidecar.FindModule(path)
	if err != nil {
		return err
	}
	if path, err = filepath.Abs(path); err != nil {
		return err
	}
	if e.spec.Module, err = envoy.ReadModule(ctx, path, wasm); err != nil {
		return err
	}
	if e.spec.Envoy, err = envoy.Version(ctx, o.Envoy); err != nil {
		return err
	}
	if e.spec.Cluster, err = envoy.Discover(ctx, &e.spec.File.Cluster); err != nil {
		return err
	}
	for range 50 {
		ports, ok := e.free()
		if ok {
			e.admin = net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[0]))
			e.spec.Admin, e.spec.File.Listen = e.admin, net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[1]))
			return nil
		}
	}
	return errors.New("no free ports on 127.0.0.1")
}

// free looks for a port for Envoy's administration, and one to begin with that has free ones
// for the brokers behind it.
func (e *envoyPlane) free() (ports []int, ok bool) {
	for _, port := range []int{0, 0} {
		ln, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			return nil, false
		}
		defer ln.Close()
		ports = append(ports, ln.Addr().(*net.TCPAddr).Port)
	}
	for _, b := range e.spec.Cluster.Brokers {
		ln, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[1]+1+int(b.NodeID))))
		if err != nil {
			return nil, false
		}
		defer ln.Close()
	}
	return ports, true
}

// ready returns once clients are served.
func (e *envoyPlane) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, envoyTime)
	defer cancel()
	for {
		if response, err := e.get(ctx, "/ready"); err == nil {
			response.Body.Close()
			return nil
		}
		select {
		case <-e.Done():
			return fmt.Errorf("it ended:\n%s", e.Output())
		case <-ctx.Done():
			return fmt.Errorf("it is not ready: %w\n%s", ctx.Err(), e.Output())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// get asks Envoy's administration; the answer's body is the caller's to close.
func (e *envoyPlane) get(ctx context.Context, path string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+e.admin+path, nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err == nil && response.StatusCode != http.StatusOK {
		response.Body.Close()
		err = fmt.Errorf("%s: %s", path, response.Status)
	}
	return response, err
}
