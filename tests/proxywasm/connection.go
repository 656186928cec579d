package proxywasm

import (
	"io"
	"net"
)

// Why a connection closed, as the callbacks are told.
const (
	closeUnknown = iota
	closeLocal
	closeRemote
)

// actionContinue is what a callback returns to let its bytes pass.
const actionContinue = 0

// A connection is a client's, and the one to the upstream that tcp_proxy makes for it once the
// filter lets it. Bytes that the filter has stopped stay in fromClient or fromUpstream.
type connection struct {
	w        *worker
	vm       *vm
	listener Listener
	id       uint32 // of its context; 0 where there is none
	number   uint64 // connection.id

	down, up                 *socket // up is nil until it is connected
	dialing                  bool
	fromClient, fromUpstream []byte
	showClient, showUpstream bool // a callback sees the buffer, or has stopped it
	clientEnd, upstreamEnd   bool // end of stream came from there
	paused                   bool // for the test's sake nothing is read from the client
	closing, closed          bool
}

// begin runs what a new connection begins with.
func (c *connection) begin() {
	if c.vm.failed {
		c.close(closeLocal)
		return
	}
	c.id = c.vm.newStream(c)
	c.vm.call(c.id, "proxy_on_context_create", c.id, rootID)
	action, fine := c.vm.call(c.id, "proxy_on_new_connection", c.id)
	if !fine {
		c.flush()
	} else if action == actionContinue {
		c.forward()
	}
}

// forward lets what the client sent pass to tcp_proxy, which connects first.
func (c *connection) forward() {
	switch {
	case c.closing:
	case c.up != nil:
		c.up.write(c.fromClient)
		c.fromClient = nil
		if c.clientEnd {
			c.up.finish()
		}
		c.pump()
	case !c.dialing: // nothing is read from the client until there is an upstream
		c.dialing = true
		c.w.p.running.Add(1)
		go c.dial()
	}
}

func (c *connection) dial() {
	defer c.w.p.running.Done()
	network, address := split(c.listener.Upstream)
	conn, err := net.DialTimeout(network, address, connectTimeout)
	posted := c.w.post(func() {
		switch {
		case err != nil:
			c.w.p.log.add(LevelDebug, "tcp_proxy: "+err.Error())
			c.close(closeLocal)
		case c.closing:
			conn.Close()
		default:
			if c.up = newSocket(c.w, conn, c.upstreamSent, c.toUpstreamWritten); c.up != nil {
				c.pump()
			}
		}
	})
	if !posted && err == nil {
		conn.Close()
	}
}

// clientSent gives the filter what a read brought, with what it has stopped before.
func (c *connection) clientSent(b []byte, err error) {
	if c.closing {
		return
	}
	c.fromClient = append(c.fromClient, b...)
	switch {
	case err == io.EOF:
		c.clientEnd = true
	case err != nil:
		c.close(closeRemote)
		return
	}
	c.showClient = true
	action, fine := c.vm.call(c.id, "proxy_on_downstream_data", c.id, uint32(len(c.fromClient)), truth(c.clientEnd))
	switch {
	case c.closing:
		return
	case !fine:
		c.flush()
		return
	case action == actionContinue:
		c.showClient = false
		c.forward()
	}
	if c.clientEnd && c.down.finned {
		c.close(closeRemote)
		return
	}
	c.pump()
}

// upstreamSent is the same in the other direction. There, nothing can be continued later.
func (c *connection) upstreamSent(b []byte, err error) {
	if c.closing {
		return
	}
	c.fromUpstream = append(c.fromUpstream, b...)
	switch {
	case err == io.EOF:
		c.upstreamEnd = true
	case err != nil: // what came before the error is dropped with it
		c.up.close()
		c.flush()
		return
	}
	c.showUpstream = true
	action, fine := c.vm.call(c.id, "proxy_on_upstream_data", c.id, uint32(len(c.fromUpstream)), truth(c.upstreamEnd))
	pass := fine && !c.closing && action == actionContinue
	if pass {
		c.showUpstream = false
		c.down.write(c.fromUpstream)
		c.fromUpstream = nil
	}
	if c.upstreamEnd && fine && !c.closed {
		c.vm.call(c.id, "proxy_on_upstream_connection_close", c.id, closeUnknown)
	}
	switch {
	case c.closing:
		return
	case !fine:
		c.flush()
		return
	case pass && c.upstreamEnd:
		c.down.finish()
	}
	c.upstreamDone()
	c.pump()
}

// upstreamDone closes where both directions of the upstream have ended: then tcp_proxy has no
// use for the client either.
func (c *connection) upstreamDone() {
	if !c.closing && c.upstreamEnd && c.up.finned {
		c.up.close()
		c.flush()
	}
}

func (c *connection) toClientWritten(err error) {
	switch {
	case c.closed:
	case err != nil:
		c.close(closeRemote)
	case c.closing && c.down.ended, c.clientEnd && c.down.finned:
		c.close(closeLocal)
	default:
		c.pump()
	}
}

func (c *connection) toUpstreamWritten(err error) {
	switch {
	case c.closing:
	case err != nil:
		c.up.close()
		c.flush()
	default:
		c.upstreamDone()
		c.pump()
	}
}

// pump has each side read where the other can take it and the filter has not stopped too much.
func (c *connection) pump() {
	if c.closing || c.up == nil {
		return
	}
	limit := c.w.p.opts.BufferLimit
	if !c.clientEnd && !c.paused && !c.up.blocked && len(c.fromClient) < limit {
		c.down.ask()
	}
	if !c.upstreamEnd && !c.down.blocked && len(c.fromUpstream) < limit {
		c.up.ask()
	}
}

// flush closes the connection once the client has taken what was written to it. The filter
// hears nothing more of it until then.
func (c *connection) flush() {
	if c.closing {
		return
	}
	c.closing = true
	if c.down.pending == 0 {
		c.close(closeLocal)
		return
	}
	c.down.closeAfter()
}

// close ends the connection and its context. What the client sent before it closed still goes
// to the upstream.
func (c *connection) close(why uint32) {
	if c.closed {
		return
	}
	c.closing, c.closed = true, true
	if c.id != 0 {
		c.vm.call(c.id, "proxy_on_downstream_connection_close", c.id, why)
		c.vm.call(c.id, "proxy_on_done", c.id)
		c.vm.call(c.id, "proxy_on_log", c.id)
		c.vm.call(c.id, "proxy_on_delete", c.id)
		delete(c.vm.streams, c.id)
	}
	c.down.close()
	if c.up != nil {
		if why == closeRemote {
			c.up.closeAfter()
		} else {
			c.up.close()
		}
	}
	delete(c.w.conns, c)
}

// resume is proxy_continue_stream of the downstream.
func (c *connection) resume() {
	if c.closed {
		return
	}
	c.forward()
}

func truth(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}
