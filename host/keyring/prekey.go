package keyring

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

// maxPrekeys bounds the seeds held while nothing is read back from the roster; then the
// newest bundle is published again instead of a new one.
const maxPrekeys = 64

// derive computes what is public of a prekey from its seed.
func (p *prekey) derive() (err error) {
	if p.pub, err = kemPublic(&p.seed); err == nil {
		p.id = wire.PrekeyIDOf(p.pub)
	}
	return err
}

func (c *Consumer) newest() *prekey {
	if n := len(c.state.prekeys); n > 0 {
		return c.state.prekeys[n-1]
	}
	return nil
}

// shareSettle is how long a prekey that opened a KeyShare is kept for what else answers the
// same request.
const shareSettle = 5 * time.Second

// PrekeyDue reports whether a new prekey must be made: at start, every PrekeyRotation, under
// a new credential, and soon after a KeyShare. What was shared may be erased before the prekey would be, and a
// share of it stands in the log. The agent also makes one after a resume.
func (c *Consumer) PrekeyDue(now time.Time) bool {
	p, at := c.newest(), unixMs(now)
	if cred := c.state.node.Credential(); p != nil && cred != nil && p.credential != cred.Serial {
		return true
	}
	return p == nil || !c.rotated || at >= p.created+ms(c.timing.PrekeyRotation) || c.shared != 0 && at >= c.shared+ms(shareSettle)
}

// NewPrekey makes a prekey and returns its bundle's record for the roster. The state must
// reach the disk before the record is written. generation = max(previous + 1, now).
func (c *Consumer) NewPrekey(now time.Time) (Record, error) {
	n := &c.state.node
	if err := n.Check(now); err != nil {
		return Record{}, fmt.Errorf("prekey: %w", err)
	}
	if !n.HasRole(wire.RoleConsume) {
		return Record{}, fmt.Errorf("prekey: the credential lacks role %v: %w", wire.RoleConsume, abi.StatusNotEntitled)
	}
	created := unixMs(now)
	c.rotated, c.shared = true, 0
	if len(c.state.prekeys) >= maxPrekeys {
		rec, _ := c.Bundle()
		return rec, nil
	}
	cred := n.Credential()
	offline := min(c.timing.Offline, time.Duration(cred.OfflineAllow)*time.Second)
	p := &prekey{
		credential: cred.Serial,
		generation: max(created, c.state.marks[n.ID()].generation+1),
		created:    created,
		notAfter:   created + uint64(offline.Milliseconds()),
		mark:       -1,
	}
	if last := c.newest(); last != nil {
		p.generation = max(p.generation, last.generation+1)
	}
	if err := readAll(c.rand, p.seed[:]); err != nil {
		return Record{}, fmt.Errorf("prekey: %w", err)
	}
	if err := p.derive(); err != nil {
		return Record{}, err
	}
	c.state.prekeys = append(c.state.prekeys, p)
	if c.state.firstBundle == 0 {
		c.state.firstBundle = created
	}
	c.state.version++
	rec, ok := c.Bundle()
	if !ok {
		return Record{}, fmt.Errorf("prekey: %w", wire.ErrMalformed)
	}
	return rec, nil
}

// Bundle is the record of the newest prekey, to be written again while it is not read
// back or after somebody overwrote it, at most once a second. ok is false before the first
// NewPrekey, and when the newest was signed under a credential that is held no more.
func (c *Consumer) Bundle() (rec Record, ok bool) {
	p, n := c.newest(), &c.state.node
	if p == nil || n.Credential() == nil || n.Credential().Serial != p.credential {
		return Record{}, false
	}
	b := &wire.PrekeyBundle{
		Realm: n.Realm(), Node: n.ID(), Credential: p.credential,
		Generation: p.generation, Created: p.created, NotAfter: p.notAfter,
		KEMPub: [wire.KEMPublicSize]byte(p.pub),
	}
	b.Signature = sign(&n.seed, wire.TypePrekeyBundle, b.Realm, b.AppendBody(nil))
	return Record{Key: b.Key(), Value: b.Append(nil)}, true
}

// Published reports whether the newest prekey was read back from the roster.
func (c *Consumer) Published() bool {
	p := c.newest()
	return p != nil && p.readBack != 0
}

// NoteRoster sees every record that was read from the roster, after Roster.Apply: the own
// bundle marks its prekey as published. again asks to write Bundle once more, because the
// newest was there and somebody overwrote it. ErrDuplicateNode: another process publishes
// for this node.
func (c *Consumer) NoteRoster(key, value []byte, now time.Time) (again bool, err error) {
	n := &c.state.node
	own := wire.PrekeyBundle{Node: n.ID()}
	if n.Credential() == nil || !bytes.Equal(key, own.Key()) {
		return false, nil
	}
	b, err := wire.ParsePrekeyBundle(value)
	if err != nil || verify(n.PublicKey(), wire.TypePrekeyBundle, n.Realm(), b.AppendBody(nil), &b.Signature) != nil {
		return c.Published(), nil
	}
	id := wire.PrekeyIDOf(b.KEMPub[:])
	i := slices.IndexFunc(c.state.prekeys, func(p *prekey) bool { return p.id == id })
	if i < 0 {
		if p := c.newest(); p == nil || b.Generation >= p.generation {
			return false, fmt.Errorf("roster: bundle of generation %d is not this process's: %w; hint: was the state file copied or restored?", b.Generation, ErrDuplicateNode)
		}
		return c.Published(), nil
	}
	p := c.state.prekeys[i]
	if p.readBack == 0 {
		p.readBack = unixMs(now)
		for _, older := range c.state.prekeys[:i] {
			if older.superseded == 0 {
				older.superseded = p.readBack
			}
		}
		c.state.version++
	}
	return i != len(c.state.prekeys)-1 && c.Published(), nil
}

// graceOver reports whether a superseded prekey's grace has passed.
func (c *Consumer) graceOver(p *prekey, at uint64) bool {
	return p.superseded != 0 && at >= p.superseded+uint64(c.timing.PrekeyGrace.Milliseconds())
}

// PrekeysWaiting reports whether superseded prekeys wait for NoteGrantsEnd.
func (c *Consumer) PrekeysWaiting(now time.Time) bool {
	return slices.ContainsFunc(c.state.prekeys, func(p *prekey) bool {
		return p.mark < 0 && c.graceOver(p, unixMs(now))
	})
}

// NoteGrantsEnd says that the own partition ended at end, by an answer to a question that
// was asked at asked. A superseded prekey goes when its grace is over and the reader has
// passed an end that was asked for after that: call it while PrekeysWaiting.
func (c *Consumer) NoteGrantsEnd(end int64, asked time.Time) {
	for _, p := range c.state.prekeys {
		if p.mark < 0 && end >= 0 && c.graceOver(p, unixMs(asked)) {
			p.mark = end
			c.state.version++
		}
	}
}

// erasePrekeys wipes what is superseded, out of its grace, and behind the grants reader.
func (c *Consumer) erasePrekeys() {
	kept := c.state.prekeys[:0]
	for _, p := range c.state.prekeys {
		if p.mark >= 0 && c.state.grantsNext >= p.mark {
			clear(p.seed[:])
			c.state.version++
			continue
		}
		kept = append(kept, p)
	}
	clear(c.state.prekeys[len(kept):])
	c.state.prekeys = kept
}
