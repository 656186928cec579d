package keyring

import (
	"errors"
	"fmt"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

// ErrOmitted says that a grant has no wrap for this node, though it should.
var ErrOmitted = errors.New("this node is missing from a grant")

// comparisons is what the headers that follow are held against (PROTOCOL.md §2.14), and
// what was found out. It is in memory only: after a restart the first header of an instance
// is taken as it comes.
type comparisons struct {
	instances map[wire.NodeID]map[wire.InstanceID]*instance
	ahead     *wire.GrantHeader // the oldest that goes by a state which this node lacks
	findings  []error
}

// An instance is a producing instance as its headers show it.
type instance struct {
	followed  bool // the fields below are of its newest header
	epoch     uint32
	digest    wire.Digest
	authority uint64
	useBy     uint64 // Unix ms, of any header
	rate      headerRate
}

// Findings returns what comparing the grants has shown since the last call: errors that wrap
// ErrRollback, ErrConflict or ErrOmitted. Each is an alarm: honest producers on an honest
// cluster cause none. Call it after ApplyGrant, and every minute or so.
func (c *Consumer) Findings(r *Roster, now time.Time) []error {
	if h := c.compared.ahead; h != nil {
		switch {
		case h.AuthoritySeq <= r.authoritySeq():
			c.compared.ahead = nil
		case unixMs(now) >= h.Start+r.lateness():
			c.compared.ahead = nil
			c.found(h, fmt.Sprintf("goes by authority state %d, but the roster still offers this node %d", h.AuthoritySeq, r.authoritySeq()), ErrRollback)
		}
	}
	out := c.compared.findings
	c.compared.findings = nil
	return out
}

func (c *Consumer) found(h *wire.GrantHeader, what string, err error) {
	c.compared.findings = append(c.compared.findings,
		fmt.Errorf("producer %v, instance %v, epoch %d: %s: %w", h.Producer, h.Instance, h.Epoch, what, err))
}

// lateness is how long a state may take to everybody: S, and the clocks' difference.
func (r *Roster) lateness() uint64 {
	late := ms(StateValidity)
	if a := r.authority; a != nil {
		late = max(late, a.NextUpdate-a.Issued)
	}
	return late + ms(r.timing.Skew)
}

// compare holds a verified part against what was seen before. Its error wraps ErrRate:
// the grant is not to be opened (PROTOCOL.md §2.15).
func (c *Consumer) compare(g *wire.Grant, r *Roster, now time.Time) error {
	h := &g.Header
	digest := h.Digest()
	i, err := c.instance(h)
	if err != nil {
		return err
	}
	fresh := c.unknown(h)
	c.compareChain(i, h, digest)
	c.compareAuthority(h, r)
	if omitted := c.omitted(g, r); omitted != "" {
		c.found(h, "no wrap for this node, which may read topic "+omitted, ErrOmitted)
	}
	if !i.followed || h.Epoch > i.epoch {
		i.followed, i.epoch, i.digest, i.authority = true, h.Epoch, digest, h.AuthoritySeq
	}
	i.useBy = max(i.useBy, h.UseBy)
	if fresh && !i.rate.take(h.Start) {
		return fmt.Errorf("producer %v, instance %v: more than %d grants in %v: %w", h.Producer, h.Instance, headerBurst, headerBurst*headerInterval, ErrRate)
	}
	return nil
}

// compareChain checks that an instance's headers follow each other: every partition has
// every header, whomever it is wrapped for. A header that comes again, or late because its
// producer wrote it again, says nothing.
func (c *Consumer) compareChain(i *instance, h *wire.GrantHeader, digest wire.Digest) {
	switch {
	case !i.followed && h.Epoch == 0 && h.Prev != wire.Digest{}:
		c.found(h, "the first header names a predecessor", ErrConflict)
	case !i.followed:
	case h.Epoch == i.epoch && digest != i.digest:
		c.found(h, "signed two headers for it", ErrConflict)
	case h.Epoch == i.epoch+1 && h.Prev != i.digest:
		c.found(h, "its header follows another one than was here", ErrConflict)
	case h.Epoch > i.epoch+1:
		c.found(h, fmt.Sprintf("the log has nothing of the instance since epoch %d", i.epoch), ErrRollback)
	case h.Epoch == i.epoch+1 && h.AuthoritySeq < i.authority:
		c.found(h, fmt.Sprintf("goes by authority state %d after %d", h.AuthoritySeq, i.authority), ErrRollback)
	}
}

// compareAuthority compares which AuthorityState a producer goes by with those of this
// node's own roster. Producers are thereby compared with each other.
func (c *Consumer) compareAuthority(h *wire.GrantHeader, r *Roster) {
	for _, s := range r.seen {
		if h.AuthoritySeq < s.seq && h.Start >= s.nextUpdate+ms(c.timing.Skew) {
			c.found(h, fmt.Sprintf("goes by authority state %d, though %d is out for longer than it is good for", h.AuthoritySeq, s.seq), ErrRollback)
			return
		}
	}
	if h.AuthoritySeq > r.authoritySeq() && (c.compared.ahead == nil || h.Start < c.compared.ahead.Start) {
		c.compared.ahead = h
	}
}

// omitted names a topic of a part without a wrap for this node that should have one: the
// node was entitled to the topic around the epoch's start, and had read back its own bundle
// well before. A producer reads the roster to its end before each grant, so that neither a
// newcomer nor a rotation is in doubt for longer than the clocks and propagation make it.
func (c *Consumer) omitted(g *wire.Grant, r *Roster) string {
	h, own := &g.Header, c.state.node.ID()
	n := r.nodes[own]
	if g.Wrap(own) != nil || n == nil || h.AuthoritySeq > r.authoritySeq() {
		return "" // a newer state may have revoked this node
	}
	margin := ms(2*c.timing.Skew + propagation)
	published := false
	for _, p := range c.state.prekeys {
		published = published || p.readBack != 0 && p.readBack+margin <= h.Start && h.Start+margin < p.notAfter
	}
	if !published || n.bundle == nil {
		return ""
	}
	for _, t := range h.Topics {
		if r.mayRead(n, t.Name, h.Start-margin) != nil && r.mayRead(n, t.Name, h.Start) != nil && r.mayRead(n, t.Name, h.Start+margin) != nil {
			return t.Name
		}
	}
	return ""
}

// unknown reports whether a header names something that this node has not seen yet: what
// is written again costs its producer nothing.
func (c *Consumer) unknown(h *wire.GrantHeader) bool {
	for _, t := range h.Topics {
		kid := KidOf(t.Commit)
		_, erased := c.state.erased[kid]
		_, missing := c.missing[kid]
		if !erased && !missing && c.state.secrets[kid] == nil && c.state.node.covers(wire.RoleConsume, t.Name) == nil {
			return true
		}
	}
	return false
}

// unfollowAll forgets every instance's place: the log is another one.
func (c *Consumer) unfollowAll() {
	for _, of := range c.compared.instances {
		for _, i := range of {
			i.followed = false
		}
	}
}

// unfollow forgets an instance's place in its chain after a record that was refused before
// its signature was looked at, for a clock that was wrong or a credential that is not known:
// the next header follows one that does not count here.
func (c *Consumer) unfollow(value []byte, err error) {
	if !errors.Is(err, abi.StatusClockSkew) && !errors.Is(err, ErrUnknownCredential) {
		return
	}
	if g, err := wire.ParseGrant(value); err == nil {
		if i := c.compared.instances[g.Header.Producer][g.Header.Instance]; i != nil {
			i.followed = false
		}
	}
}
