// Package sidecar puts one process together. A Sidecar is the agent, which has the keys; the
// engine, which has the module; the proxy, which has the clients; and metrics of all three. A
// KeyServer is the agent for data planes elsewhere. It decides nothing itself.
package sidecar

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/agent"
	"github.com/wasm-e2ee/wasm-e2ee/host/config"
	"github.com/wasm-e2ee/wasm-e2ee/host/engine"
	"github.com/wasm-e2ee/wasm-e2ee/host/exposure"
	"github.com/wasm-e2ee/wasm-e2ee/host/metrics"
	"github.com/wasm-e2ee/wasm-e2ee/host/proxy"
)

// A Sidecar is a running process's worth of agent, engine and proxy.
type Sidecar struct {
	process
	Engine *engine.Engine
	proxy  *proxy.Proxy
}

// Start brings a sidecar up as file says and returns once it serves clients and the node is
// known to the others: its credential is on the roster, and its prekey if it consumes. It
// ends when ctx does; see Wait.
func Start(ctx context.Context, file *config.File, log *slog.Logger) (*Sidecar, error) {
	s := &Sidecar{process: process{done: make(chan struct{})}}
	if err := s.open(ctx, file, log); err != nil {
		if s.proxy != nil {
			s.proxy.Close()
		}
		return nil, errors.Join(err, s.close())
	}

	// The agent outlives the proxy: requests that drain still need keys.
	agentCtx, stopAgent := context.WithCancel(context.WithoutCancel(ctx))
	proxyCtx, stopProxy := context.WithCancel(ctx)
	agentDone := make(chan error, 1)
	if s.metrics != nil {
		s.metrics.Serve(metrics.Source{
			Agent: s.Agent.Snapshot, Plane: &metrics.Plane{Module: s.Engine.Counters, Proxy: s.proxy.Stats}, Draining: func() bool { return proxyCtx.Err() != nil },
			Exposure: func(asOf time.Time) (*exposure.Report, error) { return report(s.Agent, file, asOf) },
		})
	}
	go func() {
		err := s.Agent.Run(agentCtx)
		stopProxy()
		agentDone <- err
	}()
	go func() {
		err := s.proxy.Run(proxyCtx)
		stopAgent()
		s.err = errors.Join(err, <-agentDone, s.close())
		close(s.done)
	}()

	if err := join(ctx, s.Agent, s.done); err != nil {
		stopAgent()
		return nil, errors.Join(err, s.Wait())
	}
	log.Info("serving", "listen", s.Addr().String(), "bootstrap", file.Bootstrap, "profile", file.Profile(), "exposure_window", file.KX1().P().String())
	logMetrics(s.metrics, log)
	return s, nil
}

func logMetrics(s *metrics.Server, log *slog.Logger) {
	if s != nil {
		log.Info("metrics and probes", "url", "http://"+s.Addr().String()+"/metrics")
	}
}

// revokedPeriod is how often a node that starts looks whether it is revoked.
const revokedPeriod = 100 * time.Millisecond

// join returns once the agent's node is known to the others, or done is closed. One that is
// revoked never will be: it may run on with the keys that it has, and not begin anew.
func join(ctx context.Context, a *agent.Agent, done <-chan struct{}) error {
	look := time.NewTicker(revokedPeriod)
	defer look.Stop()
	for ready := false; ; {
		if a.Snapshot().Revoked {
			return fmt.Errorf("this node is revoked: %w\nhint: enrol it anew, with a new state file: wasm-e2ee enroll --state FILE TICKET", abi.StatusNotEntitled)
		}
		if ready {
			return nil
		}
		select {
		case <-a.Ready():
			ready = true
		case <-look.C:
		case <-done:
			return ctx.Err()
		}
	}
}

// open makes the parts, in the order in which they need each other.
func (s *Sidecar) open(ctx context.Context, file *config.File, log *slog.Logger) error {
	if file.Metrics.Listen != "" { // first, so that probes are answered while the rest starts
		var err error
		if s.metrics, err = metrics.Listen(file.Metrics.Listen, log); err != nil {
			return err
		}
	}
	policy, err := file.Policy.Config()
	if err != nil {
		return err
	}
	module, err := FindModule(file.Module)
	if err != nil {
		return err
	}
	brokerTLS, err := file.BrokerTLS()
	if err != nil {
		return err
	}
	clientTLS, err := file.LocalTLS()
	if err != nil {
		return err
	}
	if s.Agent, err = openAgent(ctx, file, log); err != nil {
		return err
	}
	s.Engine, err = engine.New(ctx, engine.Options{Module: module, CacheDir: CacheDir(file.CacheDir), Config: policy, Log: log,
		SkipUnreadable: file.Policy.OnUnreadable == config.Skip}, s.Agent)
	if err != nil {
		return err
	}
	s.Agent.OnErase(func(kids []abi.Kid) { s.Engine.Erase(kids...) })
	brokers, err := s.Agent.Brokers(ctx)
	if err != nil {
		return err
	}
	// A node that does not consume has no groups to keep to: plain topics are free to all.
	var groups proxy.Groups
	if s.Agent.Snapshot().Roles.Has(wire.RoleConsume) {
		groups = s.Agent
	}
	s.proxy, err = proxy.New(proxy.Config{
		Bootstrap: file.Bootstrap, Listen: file.Listen, AdvertisedHost: file.AdvertisedHost,
		TLS: brokerTLS, ClientTLS: clientTLS, ProduceWait: file.ProduceWait, NamesOnly: len(file.Policy.Plain) > 0, Log: log,
	}, s.Engine, groups)
	if err != nil {
		return err
	}
	for _, b := range brokers {
		if err := s.proxy.Learn(b.NodeID, b.Host, b.Port); err != nil {
			return err
		}
	}
	return nil
}

func openAgent(ctx context.Context, file *config.File, log *slog.Logger) (*agent.Agent, error) {
	kafka, err := file.Kafka()
	if err != nil {
		return nil, err
	}
	return agent.Open(ctx, agent.Config{
		Kafka: kafka, StateFile: file.State, Timing: file.KX1(), RequireGroups: file.Policy.Groups,
		RequireFresh: file.Policy.Freshness == config.Require, Log: log,
	})
}

// report is on what a node holds as of a time, its sending keys included.
func report(a *agent.Agent, file *config.File, asOf time.Time) (*exposure.Report, error) {
	report, err := exposure.Of(a.View(), file.KX1(), nil, asOf)
	if err == nil {
		snapshot := a.Snapshot()
		report.AddSending(append(snapshot.Epochs, snapshot.Pending...))
	}
	return report, err
}

// Addr is where local clients connect.
func (s *Sidecar) Addr() net.Addr { return s.proxy.Addr() }

// close frees the parts that Run does not.
func (s *Sidecar) close() error {
	var errs []error
	if s.metrics != nil { // it reads the others
		errs = append(errs, s.metrics.Close())
	}
	if s.Engine != nil {
		errs = append(errs, s.Engine.Close(context.Background()))
	}
	if s.Agent != nil {
		errs = append(errs, s.Agent.Close())
	}
	return errors.Join(errs...)
}
