package keyring

import (
	"cmp"
	"fmt"
	"slices"
	"time"
	"unique"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

// maxMissing bounds the kids that are known to be of no use here, in memory only: with
// epochs of 3 minutes, 8 days of 68 producers. About 100 bytes each.
const maxMissing = 1 << 18

// joining is how long after its first bundle a node may still be missing from new grants:
// what started before then counts as before it joined (PROTOCOL.md §2.8.5).
const joining = 5 * time.Minute

// A missing is what a signed header says of a kid that it gave no secret for.
type missing struct {
	topic string // "" where nothing is known but that its key is gone
	start uint64 // Unix ms
	why   abi.Status
	wraps bool // the header's part has a wrap for this node
	final bool // no share is taken: too old, before data_not_before, or erased here
}

// reject remembers why the kids of a signed header cannot be opened here: those of topics
// that this node may read. StatusOK is for a part that will be opened: then it is those that
// are too old.
func (c *Consumer) reject(g *wire.Grant, why abi.Status, now time.Time) {
	h := &g.Header
	for i := range h.Topics {
		t := &h.Topics[i]
		kid := KidOf(t.Commit)
		if _, gone := c.state.erased[kid]; gone || c.state.secrets[kid] != nil || c.state.node.covers(wire.RoleConsume, t.Name) != nil {
			continue
		}
		old := c.tooOld(h, t.Name, now)
		m := missing{topic: t.Name, start: h.Start, why: why, wraps: g.Wrap(c.state.node.ID()) != nil, final: old != abi.StatusOK}
		if why == abi.StatusOK {
			m.why = old
		}
		if m.why != abi.StatusOK {
			c.miss(kid, m)
		}
	}
}

// tooOld says whether an epoch of topic is out of this node's reach, whoever brings its
// secret: StatusUnreadable before data_not_before, StatusErased behind the hard cap.
func (c *Consumer) tooOld(h *wire.GrantHeader, topic string, now time.Time) abi.Status {
	switch {
	case h.Start < c.state.node.Credential().DataNotBefore:
		return abi.StatusUnreadable
	case h.UseBy+c.hardCap(topic) <= unixMs(now):
		return abi.StatusErased
	}
	return abi.StatusOK
}

// rejectKid remembers a kid whose key is gone for good.
func (c *Consumer) rejectKid(kid abi.Kid, why abi.Status) {
	c.miss(kid, missing{why: why, final: true})
}

// miss forgets any other kid for this one when there are too many: that one counts as named
// by no grant. A second header that names a kid, which only a dishonest producer signs, makes
// nothing older than the first said, so that nothing becomes history by it.
func (c *Consumer) miss(kid abi.Kid, m missing) {
	if first, ok := c.missing[kid]; ok && first.topic != "" && m.topic != "" {
		if first.topic != m.topic {
			return
		}
		m.start = max(m.start, first.start)
		m.wraps = m.wraps || first.wraps
		m.final = m.final && first.final
	}
	for other := range c.missing {
		if len(c.missing) < maxMissing {
			break
		}
		delete(c.missing, other)
	}
	m.topic = unique.Make(m.topic).Value()
	c.missing[kid] = m
}

// Askable reports whether a peer's KeyShare could still bring the root of topic's kid
// (PROTOCOL.md §2.10): it is not held, was not erased here, and is not too old for this node.
func (c *Consumer) Askable(topic string, kid abi.Kid) bool {
	if c.state.node.covers(wire.RoleConsume, topic) != nil || c.state.secrets[kid] != nil {
		return false
	}
	if _, gone := c.state.erased[kid]; gone {
		return false
	}
	m, ok := c.missing[kid]
	return !ok || !m.final && m.topic == topic
}

// Missing is the topic of a kid that a signed header names and gave no secret for, "" for
// others.
func (c *Consumer) Missing(kid abi.Kid) (topic string) { return c.missing[kid].topic }

// Requestable returns what a request for kids should list, at most wire.MaxRequested: first
// kids themselves, then others that are missing, those of the same topics from the oldest of
// kids on, which the reader of those comes to next. Without kids it is the newest of all.
// skip names those that were asked for lately.
func (c *Consumer) Requestable(kids []abi.Kid, skip func(abi.Kid) bool) []abi.Kid {
	type candidate struct {
		kid   abi.Kid
		start uint64
	}
	out := slices.Clone(kids[:min(len(kids), wire.MaxRequested)])
	from := map[string]uint64{} // by topic, the oldest of kids
	for _, kid := range out {
		if m, ok := c.missing[kid]; ok {
			if start, seen := from[m.topic]; !seen || m.start < start {
				from[m.topic] = m.start
			}
		}
	}
	var more []candidate
	for kid, m := range c.missing {
		start, same := from[m.topic]
		if m.final || len(kids) > 0 && (!same || m.start < start) || skip(kid) || slices.Contains(out, kid) {
			continue
		}
		more = append(more, candidate{kid, m.start})
	}
	slices.SortFunc(more, func(a, b candidate) int {
		if len(kids) == 0 {
			a, b = b, a
		}
		return cmp.Compare(a.start, b.start)
	})
	for _, m := range more[:min(len(more), wire.MaxRequested-len(out))] {
		out = append(out, m.kid)
	}
	return out
}

// Unreadable says what a batch of kid is, for which there is no root: the grants were read
// to an end that was fetched after the batch came, and the peers had their time to share.
// committed says that a group of the credential has read in the batch's partition. The error
// wraps abi.StatusHistory where the batch is passed over like expired data, StatusErased or
// StatusUnreadable (PROTOCOL.md §2.8.5).
func (c *Consumer) Unreadable(topic string, kid abi.Kid, committed bool) error {
	fail := func(s abi.Status, why, hint string) error {
		return fmt.Errorf("topic %s, kid %x: %w: %s\nhint: %s", topic, kid, s, why, hint)
	}
	m, ok := c.missing[kid]
	x, held := c.state.secrets[kid]
	_, gone := c.state.erased[kid]
	switch {
	case held && x.topic != topic:
		m, ok = missing{topic: x.topic}, true
	case held: // and due to go
		gone = true
	}
	switch {
	case gone || ok && m.topic == "":
		return fail(abi.StatusErased, "as configured, after its groups had read it or at the hard cap", "begin at a later offset, or keep keys for longer with policy.replay")
	case !ok:
		return fail(abi.StatusUnreadable, "no signed grant names it", "somebody wrote this without a grant of this realm, or "+GrantsTopic+" lost records: compare its retention with the topic's")
	case m.topic != topic:
		return fail(abi.StatusUnreadable, "its key belongs to another topic", "the broker serves a record where it was not written: treat it as hostile until explained")
	}
	sealed := "sealed in an epoch that started at " + fromMs(m.start).UTC().Format(time.RFC3339)
	cred := c.state.node.Credential()
	early := m.start < cred.DataNotBefore || c.state.firstBundle == 0 || m.start < c.state.firstBundle+ms(joining)
	switch {
	case m.why == abi.StatusErased && m.wraps:
		return fail(abi.StatusErased, sealed+", for a prekey that this node has erased, or past the hard cap", "was its state restored from a backup, or was it offline for longer than its bundles last? Another member of the group may still share the key: start one")
	case early && !m.wraps && !committed:
		return fail(abi.StatusHistory, sealed+", before this node joined", "nothing to do; another member of its group would share what that has yet to read")
	case m.start < cred.DataNotBefore:
		return fail(abi.StatusUnreadable, sealed+", before data_not_before of this node's credential", "begin at a later offset, or issue a credential with an earlier data_not_before")
	case early:
		return fail(abi.StatusUnreadable, sealed+", before this node joined, but its group has read this partition before: another member had the key", "start a member of the group that still has its state and role share, and keep two of them up; or begin at a later offset")
	}
	return fail(abi.StatusUnreadable, sealed+", for other nodes only", "compare this node's topics and the end of its credential with what the producer saw; another member of its group with role share would share the key")
}

// Recall reads once more a grant that was applied before this process started: what headers
// say of kids that they gave no secret for is in memory only. It brings nothing back.
func (c *Consumer) Recall(partition int32, offset int64, key, value []byte, r *Roster, now time.Time) error {
	g, err := c.verifyGrant(partition, key, value, r, now)
	if err != nil {
		return fmt.Errorf("grants: %w", err)
	}
	c.noteSource(&g.Header, offset)
	why := abi.StatusUnreadable
	if g.Wrap(c.state.node.ID()) != nil {
		why = abi.StatusErased // it was opened then, or could not be
	}
	c.reject(g, why, now)
	return nil
}
