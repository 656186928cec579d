package simulation

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// margin is how far two clocks of the fleet, and two readers of one log, may be apart.
const margin = 2*skew + 2*tick

// learning is how long what stands on the roster may take to be acted upon.
const learning = margin

// A member is what everybody can know of a node: what stood on the roster, and when.
type member struct {
	node    *node
	creds   []*wire.Credential
	revoked time.Time // when that was written; zero: not
	first   time.Time // when its first bundle was
	until   time.Time // end of the last one
}

// newest is the member's credential of the highest lineage.
func (m *member) newest() *wire.Credential {
	return slices.MaxFunc(m.creds, func(a, b *wire.Credential) int { return int(a.Lineage) - int(b.Lineage) })
}

// must reports whether a credential of the member counts at t by any clock of the fleet, may
// whether it does by some.
func (m *member) must(t time.Time) bool {
	return m.revoked.IsZero() && slices.ContainsFunc(m.creds, func(c *wire.Credential) bool {
		return !time.UnixMilli(int64(c.NotBefore)).After(t.Add(-margin)) && time.UnixMilli(int64(c.NotAfter)).After(t.Add(margin))
	})
}

func (m *member) may(t time.Time) bool {
	return (m.revoked.IsZero() || t.Before(m.revoked.Add(learning))) && time.UnixMilli(int64(m.newest().NotAfter)).After(t.Add(-margin))
}

// recipients is who must be granted a topic's next epoch, or else who may be (§2.7.2).
func (f *fleet) recipients(topic string, must bool) map[wire.NodeID]bool {
	out := map[wire.NodeID]bool{}
	for id, m := range f.members {
		if !slices.Contains(m.node.consumes, topic) || m.first.IsZero() {
			continue
		}
		if must && m.must(f.now) && f.now.Sub(m.first) > margin && m.until.After(f.now.Add(margin)) ||
			!must && m.may(f.now) && m.until.After(f.now.Add(-margin)) {
			out[id] = true
		}
	}
	return out
}

// note keeps what a record of the roster says to everybody.
func (f *fleet) note(rec keyring.Record) {
	if rec.Value == nil {
		return
	}
	switch wire.Type(rec.Key[0]) {
	case wire.TypeCredential:
		c, err := wire.ParseCredential(rec.Value)
		f.must(err)
		if c.Roles.Has(wire.RoleIssuer) {
			return
		}
		m := f.members[c.Node]
		if m == nil {
			m = &member{}
			f.members[c.Node] = m
		}
		if !slices.ContainsFunc(m.creds, func(o *wire.Credential) bool { return o.Serial == c.Serial }) {
			if len(m.creds) > 0 && c.Lineage != m.newest().Lineage+1 {
				f.fail("node %v has lineage %d after %d", c.Node, c.Lineage, m.newest().Lineage)
			}
			if !m.revoked.IsZero() {
				f.fail("node %v, revoked at %v, is renewed", c.Node, m.revoked.Sub(began))
			}
			m.creds = append(m.creds, c)
		}
	case wire.TypePrekeyBundle:
		b, err := wire.ParsePrekeyBundle(rec.Value)
		f.must(err)
		m := f.members[b.Node]
		if m.first.IsZero() {
			m.first = f.now
		}
		m.until = time.UnixMilli(int64(b.NotAfter))
	case wire.TypeAuthorityState:
		a, err := wire.ParseAuthorityState(rec.Value)
		f.must(err)
		f.fresh = f.now.Add(time.Duration(a.NextUpdate-a.Issued) * time.Millisecond)
		for _, r := range a.Revoked {
			for _, m := range f.members {
				if m.revoked.IsZero() && slices.ContainsFunc(m.creds, func(c *wire.Credential) bool { return c.Serial == r.Serial }) {
					m.revoked = f.now
				}
			}
		}
	}
}

// explain judges what keyring says of a record: what a thief wrote, or what was written before
// the reader looked, has a cause, and all else is an alarm without one.
func (n *node) explain(where string, err error, rec keyring.Record) {
	var signer wire.NodeID
	if typ := typeOf(rec); typ == wire.TypePrekeyBundle || typ == wire.TypeEpochRequest || typ == wire.TypeRenewal {
		copy(signer[:], rec.Key[1:])
	} else if g, err := wire.ParseGrant(rec.Value); err == nil {
		signer = g.Header.Producer
	}
	m := n.members[signer]
	switch {
	case n.thief:
		// It has no say, and gets what hold allows.
	case m != nil && m.node.thief && (errors.Is(err, abi.StatusNotEntitled) || errors.Is(err, keyring.ErrRollback)):
		n.count("refused: written by a thief", 1)
	case where == "comparison of grants" && n.fleet.now.Before(n.theft) && errors.Is(err, keyring.ErrRollback):
		n.count("findings: a thief's grants go by an old state", 1)
	case where == "comparison of grants" && n.fleet.now.Before(n.replayed.Add(12*time.Hour)) && errors.Is(err, keyring.ErrRollback):
		// Whoever read them first since its start takes their place in the chain for the present one.
		n.count("findings: the broker wrote old grants again", 1)
	case where == "roster" && !n.ready && errors.Is(err, keyring.ErrRollback):
		// An older bundle that compaction has not removed.
	case where == "roster" && errors.Is(err, abi.StatusClockSkew) && n.behind(typeOf(rec), m):
		n.count("records that waited for a clock", 1)
	default:
		n.alarm(where, err)
	}
}

// behind reports whether the node's clock is further behind a signer's than it may be behind the
// broker's.
func (n *node) behind(typ wire.Type, signer *member) bool {
	other := n.office.clock
	if typ != wire.TypeAuthorityState {
		other = signer.node.clock
	}
	return other.at(n.fleet.now).Sub(n.now()) > skew
}

func typeOf(rec keyring.Record) wire.Type {
	if len(rec.Key) == 0 {
		return 0
	}
	return wire.Type(rec.Key[0])
}

// alarm is for what an honest fleet does not cause.
func (n *node) alarm(where string, err error) { n.fail("alarm at %s: %s: %v", n.name, where, err) }

// fail reports a violation. A simulation that has gone wrong goes on for a while: what follows
// may tell the cause.
func (f *fleet) fail(format string, args ...any) {
	f.t.Helper()
	f.t.Errorf("%v: %s", f.now.Sub(began), fmt.Sprintf(format, args...))
	f.mu.Lock()
	f.failures++
	stop := f.failures >= 20
	f.mu.Unlock()
	if stop {
		f.t.FailNow()
	}
}

// count adds to a number that the test prints; most keeps the largest.
func (f *fleet) count(what string, n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.counts[what] += n
}

func (f *fleet) most(what string, n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.maxima[what] = max(f.maxima[what], n)
}
