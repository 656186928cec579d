package main

import (
	"bytes"
	"slices"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/tests/vectors"
)

// authority is the realm's first AuthorityState, which revokes nodes since the minute before.
func authority(edit func(a *wire.AuthorityState), revoked ...key) *wire.AuthorityState {
	a := &wire.AuthorityState{Realm: realm, Seq: 1, Issued: now - minute, NextUpdate: now + 59*minute, Issuer: issuer.public()}
	for _, k := range revoked {
		a.Revoked = append(a.Revoked, wire.Revocation{Serial: serial(k.Seed()[0]), At: a.Issued})
	}
	slices.SortFunc(a.Revoked, func(a, b wire.Revocation) int { return bytes.Compare(a.Serial[:], b.Serial[:]) })
	if edit != nil {
		edit(a)
	}
	signer := issuer
	if a.Issuer == root.public() {
		signer = root
	}
	a.Signature = signer.sign(wire.TypeAuthorityState, a.Realm, a.AppendBody(nil))
	return a
}

// authorities are what a node refuses of AuthorityStates, and what one that is taken ends.
func (c controls) authorities() {
	newcomer := keyOf(0x30)
	before := append(members(), rosterRecord(bundle(peer, nil), now-minute),
		rosterRecord(credential(newcomer, wire.RoleConsume, nil), now-minute), rosterRecord(bundle(newcomer, nil), now-minute))
	taken := func(name, refusal, comment string, before []vectors.ControlRecord, a *wire.AuthorityState, kind vectors.Kind, recipients ...key) {
		c.judge(name, refusal, comment, before, rosterRecord(a, now), vectors.ControlWant{Kind: kind, Recipients: nodes(recipients...)})
	}
	taken("state-taken", "", "A sound state that revokes nobody.", before, authority(nil), vectors.Taken, peer, newcomer)
	taken("state-by-root", "", "A sound state that the root signed.", before,
		authority(func(a *wire.AuthorityState) { a.Issuer = root.public() }, newcomer), vectors.Taken, peer)
	taken("recipient-revoked", "recipient-revoked", "Its credential is revoked.", before, authority(nil, newcomer), vectors.Taken, peer)
	taken("state-signer-no-issuer", "state-signer-no-issuer", "Signed by a node that is no issuer: it waits for a certificate that never comes, and revokes nobody.", before,
		signedBy(peer, newcomer), vectors.Taken, peer, newcomer)
	c.encodings("state", rosterRecord(authority(nil, newcomer), now), before)

	refused := func(name, comment string, before []vectors.ControlRecord, kind vectors.Kind, a *wire.AuthorityState) {
		taken("state-"+name, "state-"+name, comment, before, a, kind, peer, newcomer)
	}
	refused("seq-zero", "A seq of 0.", before, vectors.Malformed, authority(func(a *wire.AuthorityState) { a.Seq = 0 }, newcomer))
	refused("seq-high", "A seq above issued.", before, vectors.Malformed, authority(func(a *wire.AuthorityState) { a.Seq = a.Issued + 1 }, newcomer))
	refused("times", "Its next_update is before it was issued.", before, vectors.Malformed, authority(func(a *wire.AuthorityState) { a.NextUpdate = a.Issued - 1 }, newcomer))
	refused("order", "Revocations that do not ascend.", before, vectors.Malformed, authority(func(a *wire.AuthorityState) { a.Revoked = append(a.Revoked, a.Revoked[0]) }, newcomer))
	refused("realm", "Of another realm: ordinary on a shared cluster.", before, vectors.OtherRealm, authority(func(a *wire.AuthorityState) { a.Realm = wire.RealmIDOf(others.public()) }, newcomer))
	refused("future", "Issued after now + 2 x skew.", before, vectors.Clock, authority(func(a *wire.AuthorityState) { a.Issued, a.NextUpdate = now+3*minute, now+day }, newcomer))
	forged := authority(nil, newcomer)
	forged.Signature = stranger.sign(wire.TypeAuthorityState, realm, forged.AppendBody(nil))
	refused("signature", "Signed by somebody else in the issuer's name.", before, vectors.Unauthentic, forged)
	refused("issuer-early", "Issued before its issuer's certificate began.", before, vectors.NotEntitled, authority(func(a *wire.AuthorityState) { a.Issued = now - 31*day }, newcomer))
	refused("own-issuer", "It revokes its own issuer's certificate.", before, vectors.NotEntitled, authority(nil, newcomer, issuer))

	first := authority(nil)
	second := authority(func(a *wire.AuthorityState) { a.Seq, a.Prev, a.Issued = 2, first.Digest(), first.Issued+1 })
	after := append(slices.Clone(before), rosterRecord(first, now), rosterRecord(second, now))
	refused("rollback", "A seq below the highest seen.", after, vectors.Rollback, first)
	refused("two-of-seq", "Another state with a seq that is taken: the first counts.", after, vectors.Conflict,
		authority(func(a *wire.AuthorityState) { a.Seq, a.Prev, a.Issued = 2, second.Prev, second.Issued }, newcomer))
	refused("issued-earlier", "Issued before its predecessor.", after, vectors.Conflict,
		authority(func(a *wire.AuthorityState) { a.Seq, a.Prev, a.Issued = 3, second.Digest(), second.Issued-1 }, newcomer))
	taken("state-fork", "state-fork", "It names another predecessor than the state before it: it counts, with an alarm.", after,
		authority(func(a *wire.AuthorityState) { a.Seq, a.Prev, a.Issued = 3, first.Digest(), second.Issued }, newcomer), vectors.Conflict, peer)

	late := bundle(newcomer, func(b *wire.PrekeyBundle) { b.Generation, b.Created = now, now })
	c.refused("bundle-revoked", "Made after its credential was revoked.", append(slices.Clone(before), rosterRecord(authority(nil, newcomer), now)), rosterRecord(late, now), vectors.NotEntitled)
	c.refused("grant-revoked", "Its signer's credential was revoked by its start.", append(members(), rosterRecord(authority(nil, producer), now)), grantRecord(grant(drafting{}), now), vectors.NotEntitled)
}

// signedBy is a state in a node's own name.
func signedBy(k key, revoked ...key) *wire.AuthorityState {
	a := authority(func(a *wire.AuthorityState) { a.Issuer = k.public() }, revoked...)
	a.Signature = k.sign(wire.TypeAuthorityState, a.Realm, a.AppendBody(nil))
	return a
}
