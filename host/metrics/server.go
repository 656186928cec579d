// Package metrics serves what an operator watches a sidecar or an agent by: Prometheus metrics, two
// probes, and the report of host/exposure on what the node holds at that moment. It reads the
// parts when it is asked and keeps nothing. No key, no record and no name of a topic,
// partition or group is in a metric; the report names topics, as the state file does.
//
// Names and meanings are in examples/sidecar/OPERATING.md. It serves no profiles: a heap
// profile or a dump of goroutines says more about a process with keys than anybody should
// have over HTTP.
package metrics

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/host/agent"
	"github.com/wasm-e2ee/wasm-e2ee/host/exposure"
	"github.com/wasm-e2ee/wasm-e2ee/host/lease"
	"github.com/wasm-e2ee/wasm-e2ee/host/proxy"
)

const (
	// contactLimit is how old the last contact with the control topics may be for a node to
	// be ready: several tries, each of which may take its time.
	contactLimit = time.Minute

	// answerTime bounds one answer, and closeTime how long those under way may take at the end.
	answerTime = 30 * time.Second
	closeTime  = 2 * time.Second

	// scrapes bounds how many run at once: each asks every instance of the module.
	scrapes = 4
)

// A Source is where the values come from. Its functions may be called from any goroutine,
// until Close returns.
type Source struct {
	Agent    func() agent.Snapshot
	Plane    *Plane             // nil where the data plane is elsewhere
	Channel  func() lease.Stats // nil where there is no data plane elsewhere
	Exposure func(asOf time.Time) (*exposure.Report, error)
	Draining func() bool // no further request of a client is taken
}

// A Plane is the data plane of this process.
type Plane struct {
	Module func() [abi.NumCounters]uint64
	Proxy  func() proxy.Stats
}

// A Server answers over HTTP from the moment it listens; before it has a Source it says that
// the process starts.
type Server struct {
	http http.Server
	ln   net.Listener
	done chan struct{}

	mu     sync.RWMutex // held for reading while the source is in use
	source *Source
}

// Listen opens addr, HOST:PORT, and answers.
func Listen(addr string, log *slog.Logger) (*Server, error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("metrics: %w\nhint: metrics.listen in the configuration is taken or not this machine's; every process of a machine needs its own port", err)
	}
	s := &Server{ln: ln, done: make(chan struct{})}
	errorLog := slog.NewLogLogger(log.Handler(), slog.LevelWarn)
	registry := prometheus.NewRegistry()
	registry.MustRegister(newCollector(s), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorLog: errorLog, MaxRequestsInFlight: scrapes}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, "alive") })
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.HandleFunc("GET /exposure", s.exposure)
	s.http = http.Server{Handler: mux, ErrorLog: errorLog,
		ReadHeaderTimeout: answerTime, WriteTimeout: answerTime, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10}
	go func() {
		defer close(s.done)
		if err := s.http.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			log.Error("metrics are served no longer", "listen", ln.Addr().String(), "err", err)
		}
	}()
	return s, nil
}

// Addr is where it listens.
func (s *Server) Addr() net.Addr { return s.ln.Addr() }

// Serve sets the source.
func (s *Server) Serve(source Source) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.source = &source
}

// Close ends the server. When it returns, the source is not in use.
func (s *Server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	err := s.http.Shutdown(ctx)
	if err != nil { // somebody is slow to read
		err = s.http.Close()
	}
	<-s.done
	s.mu.Lock()
	defer s.mu.Unlock()
	s.source = nil
	return err
}

// with calls f with the source and reports whether there is one.
func (s *Server) with(f func(*Source)) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.source == nil {
		return false
	}
	f(s.source)
	return true
}

// readyz says whether clients are served and keys are exchanged, and otherwise why not.
func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	why := "the process starts"
	s.with(func(src *Source) {
		if why = "the process drains"; !src.Draining() {
			snapshot := src.Agent()
			why = unready(&snapshot, time.Now())
		}
	})
	if why != "" {
		answer(w, http.StatusServiceUnavailable, "not ready: "+why)
		return
	}
	answer(w, http.StatusOK, "ready")
}

// unready is why a node cannot do its work, "" where it can.
func unready(a *agent.Snapshot, at time.Time) string {
	switch {
	case a.Revoked:
		return "the credential is revoked"
	case !at.Before(a.NotAfter):
		return "the credential has ended"
	case !a.Ready:
		return "the roster is not read to its end, or the first prekey is not acknowledged"
	case at.Sub(a.Contact) > contactLimit:
		return fmt.Sprintf("no contact with the control topics for over %v", contactLimit)
	}
	return ""
}

// exposure answers with the report, as of the query's as_of (RFC 3339) or now.
func (s *Server) exposure(w http.ResponseWriter, r *http.Request) {
	asOf := time.Now()
	if text := r.URL.Query().Get("as_of"); text != "" {
		var err error
		if asOf, err = time.Parse(time.RFC3339, text); err != nil {
			answer(w, http.StatusBadRequest, "as_of is not a time such as 2026-01-02T15:04:05Z")
			return
		}
	}
	var report *exposure.Report
	var err error
	if !s.with(func(src *Source) { report, err = src.Exposure(asOf) }) {
		answer(w, http.StatusServiceUnavailable, "the process starts")
		return
	}
	if err != nil {
		answer(w, http.StatusInternalServerError, err.Error())
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(report) // who is gone needs no answer
}

func answer(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = fmt.Fprintln(w, text) // who is gone needs no answer
}
