package sidecar

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/host/config"
	"github.com/wasm-e2ee/wasm-e2ee/host/exposure"
	"github.com/wasm-e2ee/wasm-e2ee/host/lease"
	"github.com/wasm-e2ee/wasm-e2ee/host/metrics"
)

// A KeyServer is a running process without a data plane: an agent, and the lease channel to
// data planes elsewhere on the machine.
type KeyServer struct {
	process
	server *lease.Server
	ln     net.Listener
}

// StartKeyServer brings an agent up as file says and returns once data planes are served and the
// node is known to the others, as Start does. It ends when ctx does; see Wait.
func StartKeyServer(ctx context.Context, file *config.File, log *slog.Logger) (*KeyServer, error) {
	s := &KeyServer{process: process{done: make(chan struct{})}}
	if err := s.open(ctx, file, log); err != nil {
		return nil, errors.Join(err, s.close())
	}

	// The agent outlives the channel: calls that are under way still need keys.
	agentCtx, stopAgent := context.WithCancel(context.WithoutCancel(ctx))
	serverCtx, stopServer := context.WithCancel(ctx)
	agentDone := make(chan error, 1)
	if s.metrics != nil {
		s.metrics.Serve(metrics.Source{
			Agent: s.Agent.Snapshot, Channel: s.server.Stats, Draining: func() bool { return serverCtx.Err() != nil },
			Exposure: func(asOf time.Time) (*exposure.Report, error) { return report(s.Agent, file, asOf) },
		})
	}
	go func() {
		err := s.Agent.Run(agentCtx)
		stopServer()
		agentDone <- err
	}()
	go func() {
		err := s.server.Run(serverCtx, s.ln)
		stopServer()
		stopAgent()
		s.err = errors.Join(err, <-agentDone, s.close())
		close(s.done)
	}()

	if err := join(ctx, s.Agent, s.done); err != nil {
		stopAgent()
		return nil, errors.Join(err, s.Wait())
	}
	log.Info("serving keys to data planes", "listen", s.Addr().String(), "realm", s.Agent.View().Realm.String(), "bootstrap", file.Bootstrap, "profile", file.Profile(), "exposure_window", file.KX1().P().String())
	logMetrics(s.metrics, log)
	return s, nil
}

// open makes the parts, in the order in which they need each other.
func (s *KeyServer) open(ctx context.Context, file *config.File, log *slog.Logger) (err error) {
	if err := file.CheckAgent(); err != nil {
		return err
	}
	if file.Metrics.Listen != "" { // first, so that probes are answered while the rest starts
		if s.metrics, err = metrics.Listen(file.Metrics.Listen, log); err != nil {
			return err
		}
	}
	key, err := lease.ReadKey(file.Agent.PairingKeyFile)
	if err != nil {
		return err
	}
	if s.Agent, err = openAgent(ctx, file, log); err != nil {
		key.Wipe()
		return err
	}
	if s.ln, err = lease.Listen(file.Agent.Listen); err != nil {
		key.Wipe()
		return err
	}
	s.server = lease.New(lease.Config{Realm: s.Agent.View().Realm, Key: key, Log: log}, s.Agent)
	return nil
}

// Addr is where data planes connect.
func (s *KeyServer) Addr() net.Addr { return s.ln.Addr() }

// close frees the parts that Run does not.
func (s *KeyServer) close() error {
	var errs []error
	if s.metrics != nil { // it reads the others
		errs = append(errs, s.metrics.Close())
	}
	if s.Agent != nil {
		errs = append(errs, s.Agent.Close())
	}
	return errors.Join(errs...)
}
