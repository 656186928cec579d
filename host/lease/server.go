// Package lease is the agent's side of the lease channel (abi/PROTOCOL.md §2.12): over HTTP on
// loopback or a Unix socket it hands leases and roots to data planes without storage, which
// show that they have the pairing key. It keeps channels and decides nothing about keys; it
// tells whoever is not paired nothing at all.
package lease

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi/channel"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

// Bounds on what one end may cost. A call takes AnswerTime and little more.
const (
	maxConns   = 1024 // connections, paired or not
	readTime   = 5 * time.Second
	writeTime  = 10 * time.Second
	idleTime   = 2 * time.Minute
	closeTime  = 2 * time.Second // for calls under way at the end
	sweep      = 10 * time.Second
	quietTime  = time.Minute // from one line on a refused handshake to the next
	maxHeaders = 8 << 10
)

// Config is what a Server needs to know.
type Config struct {
	Realm wire.RealmID
	Key   *Key         // wiped when Run returns
	Log   *slog.Logger // nil: none
}

// A Server answers data planes. It is safe for concurrent use.
type Server struct {
	cfg      Config
	keys     Keys
	channels table
	stats    counters
	conns    atomic.Int64
	warned   atomic.Int64 // when a refused handshake was last logged, Unix ms
}

// New makes a server over an agent's keys.
func New(cfg Config, keys Keys) *Server {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Server{cfg: cfg, keys: keys}
}

// Run answers on ln until ctx ends, lets the calls that are under way end, and closes ln.
func (s *Server) Run(ctx context.Context, ln net.Listener) error {
	server := http.Server{
		Handler: s, ErrorLog: slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug), ConnState: s.bound,
		ReadTimeout: readTime, WriteTimeout: writeTime, IdleTimeout: idleTime, MaxHeaderBytes: maxHeaders,
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ln) }()
	t := time.NewTicker(sweep)
	defer t.Stop()
	var err error
	for running := true; running; {
		select {
		case err = <-ended: // the listener failed
			running = false
		case <-t.C:
			s.channels.expire(time.Now())
		case <-ctx.Done():
			stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
			if server.Shutdown(stop) != nil { // somebody is slow to read
				server.Close()
			}
			cancel()
			err, running = <-ended, false
		}
	}
	s.channels.dropAll()
	s.cfg.Key.Wipe()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// bound closes connections that are too many.
func (s *Server) bound(c net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		if s.conns.Add(1) > maxConns {
			c.Close()
		}
	case http.StateClosed, http.StateHijacked:
		s.conns.Add(-1)
	}
}

// ServeHTTP answers one request. Who is not paired learns a status code and nothing else.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	code, answer := http.StatusNotFound, []byte(nil)
	switch {
	case r.URL.Path != channel.HandshakePath && r.URL.Path != channel.CallPath:
	case r.Method != http.MethodPost:
		code = http.StatusMethodNotAllowed
	case r.URL.Path == channel.HandshakePath:
		code, answer = s.handshake(w, r)
	default:
		code, answer = s.call(w, r)
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = w.Write(answer) // who is gone makes a new channel
}

// handshake answers message 1 with the new channel's id and message 2.
func (s *Server) handshake(w http.ResponseWriter, r *http.Request) (int, []byte) {
	first, err := io.ReadAll(http.MaxBytesReader(w, r.Body, channel.HelloSize))
	if err != nil {
		s.stats.handshakesRefused.Add(1)
		return http.StatusBadRequest, nil
	}
	session, second, err := respond(s.cfg.Key, s.cfg.Realm, first)
	if err != nil {
		s.stats.handshakesRefused.Add(1)
		s.warn(r)
		return http.StatusBadRequest, nil
	}
	id := s.channels.add(session, time.Now())
	s.stats.begun.Add(1)
	return http.StatusOK, append(id[:], second[:]...)
}

// warn says that a handshake did not authenticate, once a minute.
func (s *Server) warn(r *http.Request) {
	now, last := time.Now().UnixMilli(), s.warned.Load()
	if now-last >= quietTime.Milliseconds() && s.warned.CompareAndSwap(last, now) {
		s.cfg.Log.Warn("a data plane asked for a channel and is not paired with this agent", "remote", r.RemoteAddr,
			"hint", "give it this agent's pairing key and realm id")
	}
}

// call answers one message on a channel. Whatever goes wrong ends the channel.
func (s *Server) call(w http.ResponseWriter, r *http.Request) (code int, answer []byte) {
	defer func() {
		if code != http.StatusOK {
			s.stats.callsRefused.Add(1)
		}
	}()
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, channel.MaxCall))
	if len(body) < channel.IDSize {
		return http.StatusBadRequest, nil
	}
	id, now := channel.ID(body[:channel.IDSize]), time.Now()
	session := s.channels.get(id, now)
	if session == nil {
		return http.StatusGone, nil
	}
	defer func() {
		if code != http.StatusOK {
			s.channels.drop(id)
		}
	}()
	if err != nil || !session.calling.TryLock() {
		return http.StatusBadRequest, nil
	}
	defer session.calling.Unlock()
	plain, err := session.open(body[channel.IDSize:])
	if err != nil {
		return http.StatusBadRequest, nil
	}
	s.channels.use(session, now)
	requests, err := channel.ParseRequests(plain)
	if err != nil {
		return http.StatusBadRequest, nil
	}
	ctx, cancel := context.WithTimeout(r.Context(), channel.AnswerTime)
	defer cancel()
	reply := s.answer(ctx, requests)
	defer clear(reply)
	message, err := session.seal(reply)
	if err != nil {
		return http.StatusBadRequest, nil
	}
	return http.StatusOK, message
}
