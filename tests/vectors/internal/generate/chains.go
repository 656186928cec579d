package main

import (
	"slices"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/tests/vectors"
)

// chains are what a consumer finds by comparing grants (PROTOCOL.md §2.14), what revocation
// leaves as it was, and what is taken without effect because it has been erased.
func (c controls) chains() {
	good := grant(drafting{})
	_, commit := derived(&good.Header, "orders")
	kid := []vectors.Bytes{kidOf(commit)}
	taken := grantRecord(good, now)
	before := append(members(), taken)
	next := func(edit func(h *wire.GrantHeader)) vectors.ControlRecord {
		return grantRecord(grant(drafting{header: func(h *wire.GrantHeader) {
			h.Epoch, h.Prev = 1, good.Header.Digest()
			edit(h)
		}, nodes: []key{peer}}), now)
	}
	found := func(name, comment string, before []vectors.ControlRecord, record vectors.ControlRecord, finding vectors.Kind) {
		c.judge("grant-"+name, "grant-"+name, comment, before, record, vectors.ControlWant{Kind: vectors.Taken, Kids: kid, Findings: []vectors.Kind{finding}})
	}
	c.judge("grant-next", "", "The next header of the instance.", before, next(func(h *wire.GrantHeader) {}), vectors.ControlWant{Kind: vectors.Taken, Kids: kid})
	found("prev", "It follows another header than was here: it counts, with an alarm.", before, next(func(h *wire.GrantHeader) { h.Prev[0] ^= 1 }), vectors.Conflict)
	found("two-of-epoch", "Another header of the instance's epoch: it counts, with an alarm.", before,
		next(func(h *wire.GrantHeader) { h.Epoch, h.Prev, h.Flags = 0, wire.Digest{}, wire.GrantArchive }), vectors.Conflict)
	found("gap", "Epochs of the instance are missing before it: it counts, with an alarm.", before, next(func(h *wire.GrantHeader) { h.Epoch = 2 }), vectors.Rollback)

	// The producers' view of revocation.
	first := authority(nil)
	second := authority(func(a *wire.AuthorityState) { a.Seq, a.Prev, a.Issued = 2, first.Digest(), first.Issued+1 })
	states := append(members(), rosterRecord(first, now-minute), rosterRecord(second, now-minute))
	by := func(epoch uint32, seq uint64, at uint64, prev wire.Digest) *wire.Grant {
		return grant(drafting{header: func(h *wire.GrantHeader) {
			h.Epoch, h.Prev, h.AuthoritySeq, h.Start, h.UseBy = epoch, prev, seq, at, at+210_000
			if epoch == 0 {
				h.Start, h.UseBy = good.Header.Start, good.Header.UseBy
			}
		}, nodes: []key{reader, peer}})
	}
	newer := by(0, 2, 0, wire.Digest{})
	older := by(1, 1, now-minute+1, newer.Header.Digest())
	older.Wraps = nil
	older.Signature = producer.sign(wire.TypeEpochGrant, realm, older.AppendBody(nil))
	found("authority-back", "Its producer goes by an older AuthorityState than before: it counts, with an alarm.",
		append(slices.Clone(states), grantRecord(newer, now)), grantRecord(older, now), vectors.Rollback)
	hours := now + 3*60*minute
	stale := grant(drafting{header: func(h *wire.GrantHeader) { h.Start, h.UseBy, h.AuthoritySeq = hours, hours+210_000, 1 }, nodes: []key{peer}})
	c.judge("grant-authority-stale", "grant-authority-stale", "Its producer goes by an older AuthorityState than one that was due to be renewed by start: it counts, with an alarm.",
		states, grantRecord(stale, hours), vectors.ControlWant{Kind: vectors.Taken, Findings: []vectors.Kind{vectors.Rollback}})
	ahead := grant(drafting{header: func(h *wire.GrantHeader) { h.AuthoritySeq = 3 }, nodes: []key{peer}})
	c.judge("grant-authority-ahead", "grant-authority-ahead", "Its producer goes by an AuthorityState that the reader's roster still lacks S + skew later: it counts, with an alarm.",
		states, grantRecord(ahead, now), vectors.ControlWant{Kind: vectors.Taken, Findings: []vectors.Kind{vectors.Rollback}})

	// The reader's bundle has long been there.
	published := append(members(), rosterRecord(bundle(reader, nil), now-minute))
	soon := now + 10*minute
	without := grant(drafting{header: func(h *wire.GrantHeader) { h.Start, h.UseBy = soon, soon+210_000 }, nodes: []key{peer}})
	c.judge("grant-omitted", "grant-omitted", "No wrap for the reader, whose bundle had long been there: it counts, with an alarm.",
		published, grantRecord(without, soon), vectors.ControlWant{Kind: vectors.Taken, Findings: []vectors.Kind{vectors.Omitted}})

	second2 := grant(drafting{header: func(h *wire.GrantHeader) { h.Start++ }})
	c.judge("grant-second-header", "grant-second-header", "A second header that opens to a known kid: the first counts, with an alarm.", before,
		grantRecord(second2, now), vectors.ControlWant{Kind: vectors.Conflict, Kids: kid, Findings: []vectors.Kind{vectors.Conflict}})
	again := taken
	again.Now = over + 4*minute
	c.judge("grant-erased", "grant-erased", "Its kid was erased: nothing is resurrected.", before, again, vectors.ControlWant{Kind: vectors.Taken})
	c.after("grant-erased", read(over), read(over+3*minute))
	nothing := vectors.ControlWant{Kind: vectors.Taken}
	c.judgeAs(func(c *wire.Credential) { c.DataNotBefore = now }, "grant-data", "grant-data", "An epoch that starts before the reader's data_not_before.", members(), taken, nothing)
	c.judgeAs(func(c *wire.Credential) { c.Topics[0].Name = "payments" }, "grant-own-topic", "grant-own-topic", "A topic that the reader may not consume.", members(), taken, nothing)

	// Revocation ends what starts at revoked_at and later.
	revoked := authority(func(a *wire.AuthorityState) { a.Revoked[0].At++ }, producer)
	c.judge("grant-before-revoked", "", "Its signer's credential was revoked after its start.", append(members(), rosterRecord(revoked, now)), taken, vectors.ControlWant{Kind: vectors.Taken, Kids: kid})
	byRoot := authority(func(a *wire.AuthorityState) { a.Issuer = root.public() }, issuer)
	c.refused("grant-issuer-revoked", "The certificate of its signer's issuer was revoked by its start.", append(members(), rosterRecord(byRoot, now)), taken, vectors.NotEntitled)
	follows := authority(func(a *wire.AuthorityState) { a.Seq, a.Prev = 2, byRoot.Digest() })
	c.refused("state-issuer-revoked", "The state before revokes its issuer's certificate.", append(members(), rosterRecord(byRoot, now)), rosterRecord(follows, now), vectors.NotEntitled)
}
