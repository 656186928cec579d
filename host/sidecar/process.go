package sidecar

import (
	"net"

	"github.com/wasm-e2ee/wasm-e2ee/host/agent"
	"github.com/wasm-e2ee/wasm-e2ee/host/metrics"
)

// A process is what a Sidecar and a KeyServer have in common.
type process struct {
	Agent   *agent.Agent
	metrics *metrics.Server // nil: not configured
	done    chan struct{}
	err     error
}

// MetricsAddr is where metrics and probes are served, nil where they are not.
func (p *process) MetricsAddr() net.Addr {
	if p.metrics == nil {
		return nil
	}
	return p.metrics.Addr()
}

// Wait returns when the process has drained and ended, with what went wrong.
func (p *process) Wait() error {
	<-p.done
	return p.err
}
