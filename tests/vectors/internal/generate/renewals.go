package main

import (
	"bytes"
	"slices"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/tests/vectors"
)

// renewing is the node that renews, its keys in their order.
var renewing = [3]key{keyOf(0x60), keyOf(0x61), keyOf(0x62)}

// renewal asks for the successor of the renewing node's credential of a lineage.
func renewal(lineage int, edit func(q *wire.Renewal)) *wire.Renewal {
	q := &wire.Renewal{Realm: realm, Node: renewing[0].node(), Credential: serial(0x60 + byte(lineage)), Subject: renewing[lineage+1].public()}
	if edit != nil {
		edit(q)
	}
	body := q.AppendBody(nil)
	q.OldKey = renewing[lineage].sign(wire.TypeRenewal, q.Realm, body)
	q.NewKey = renewing[lineage+1].sign(wire.TypeRenewal, q.Realm, body)
	return q
}

// renewed is the credential of a lineage, the first as it was enrolled.
func renewed(lineage int, edit func(c *wire.Credential)) *wire.Credential {
	return credential(renewing[lineage], wire.RoleConsume|wire.RoleShare, func(c *wire.Credential) {
		c.Node, c.Lineage, c.DataNotBefore = renewing[0].node(), uint32(lineage), now-20*day
		if lineage > 0 {
			c.NotBefore, c.NotAfter = now-minute, now-minute+18*day
		}
		if edit != nil {
			edit(c)
		}
	})
}

func decided(m message, at uint64) vectors.DecisionRecord {
	return vectors.DecisionRecord{Key: m.Key(), Value: m.Append(nil), Now: at}
}

// granting is a request whose Credential gets the serial of a lineage.
func granting(q *wire.Renewal, lineage int, at uint64) vectors.DecisionRecord {
	r := decided(q, at)
	s := serial(0x60 + byte(lineage))
	r.Drawn = s[:]
	return r
}

// renewals are what an issuer refuses of requests for the next Credential.
func (c decisions) renewals() {
	before := []vectors.DecisionRecord{decided(renewed(0, nil), now-minute), decided(credential(peer, wire.RoleConsume, nil), now-minute)}
	first := granting(renewal(0, nil), 1, now)
	answers := []vectors.Answer{answerOf(certificate(nil)), answerOf(renewed(1, nil))}
	given := vectors.DecisionWant{Kind: vectors.Taken, Answers: answers}
	nothing := func(kind vectors.Kind) vectors.DecisionWant { return vectors.DecisionWant{Kind: kind} }
	after := append(slices.Clone(before), first)
	c.judge("renewal-taken", "", "A sound request: the same attributes, the next lineage, the new key.", nil, before, first, given)
	c.judge("renewal-again", "", "The same request again gets the same Credential.", nil, after, first, given)
	expired := renewed(0, func(c *wire.Credential) { c.NotBefore, c.NotAfter = now-29*day, now-11*day })
	c.judge("renewal-expired", "", "The Credential ended less than 30 days ago.", nil, []vectors.DecisionRecord{decided(expired, now-minute)}, first, given)

	refused := func(name, comment string, before []vectors.DecisionRecord, record vectors.DecisionRecord, kind vectors.Kind) {
		c.judge("renewal-"+name, "renewal-"+name, comment, nil, before, record, nothing(kind))
	}
	spoiled := func(name, comment string, edit func(b []byte) []byte) {
		r := first
		r.Value = edit(bytes.Clone(r.Value))
		refused(name, comment, before, r, vectors.Malformed)
	}
	spoiled("version", "An unknown version.", func(b []byte) []byte { b[0]++; return b })
	spoiled("type", "The type of another message.", func(b []byte) []byte { b[1] ^= 7; return b })
	spoiled("suite", "An unknown suite.", func(b []byte) []byte { b[2]++; return b })
	spoiled("cut", "The last byte is missing.", func(b []byte) []byte { return b[:len(b)-1] })
	spoiled("trailing", "A byte follows.", func(b []byte) []byte { return append(b, 0) })
	moved := first
	moved.Key = bytes.Clone(moved.Key)
	moved.Key[len(moved.Key)-1] ^= 1
	refused("key", "The Kafka key disagrees with the body.", before, moved, vectors.Malformed)

	edited := func(name, comment string, kind vectors.Kind, edit func(q *wire.Renewal)) {
		refused(name, comment, before, granting(renewal(0, edit), 1, now), kind)
	}
	edited("realm", "Of another realm: ordinary on a shared cluster.", vectors.OtherRealm, func(q *wire.Renewal) { q.Realm = wire.RealmIDOf(others.public()) })
	edited("unknown", "The Credential that it names is not on the roster.", vectors.UnknownCredential, func(q *wire.Renewal) { q.Credential = serial(0x66) })
	edited("other-node", "It names the Credential of another node.", vectors.Unauthentic, func(q *wire.Renewal) { q.Credential = serial(peer.Seed()[0]) })
	edited("issuer", "It names an issuer's certificate.", vectors.Unauthentic, func(q *wire.Renewal) { q.Node, q.Credential = issuer.node(), serial(issuer.Seed()[0]) })
	edited("same-key", "It names the key that it replaces.", vectors.Unauthentic, func(q *wire.Renewal) { q.Subject = renewing[0].public() })
	old := renewal(0, nil)
	old.OldKey = old.NewKey
	refused("old-signature", "Not signed by the old key.", before, granting(old, 1, now), vectors.Unauthentic)
	young := renewal(0, nil)
	young.NewKey = young.OldKey
	refused("new-signature", "Not signed by the new key.", before, granting(young, 1, now), vectors.Unauthentic)

	byRoot := func(revoked key) vectors.DecisionRecord {
		return decided(authority(func(a *wire.AuthorityState) { a.Issuer = root.public() }, revoked), now)
	}
	refused("revoked", "The Credential is revoked.", append(slices.Clone(before), byRoot(renewing[0])), first, vectors.NotEntitled)
	refused("issuer-revoked", "The certificate of its issuer is revoked.", append(slices.Clone(before), byRoot(issuer)), first, vectors.NotEntitled)
	gone := renewed(0, func(c *wire.Credential) { c.NotBefore, c.NotAfter = now-40*day, now-30*day-1 })
	refused("late", "The Credential ended more than 30 days ago.", []vectors.DecisionRecord{decided(gone, now-minute)}, first, vectors.NotEntitled)

	// Two successors of one key, and what comes of a key that was replaced.
	thief := renewal(0, func(q *wire.Renewal) { q.Subject = renewing[2].public() })
	thief.NewKey = renewing[2].sign(wire.TypeRenewal, realm, thief.AppendBody(nil))
	both := []vectors.Bytes{bytes.Repeat([]byte{0x60}, 16), bytes.Repeat([]byte{0x61}, 16)}
	c.judge("renewal-fork", "renewal-fork", "Another key for a lineage that has one: an alarm, and all Credentials of the node are revoked.", nil,
		after, granting(thief, 1, now), vectors.DecisionWant{Kind: vectors.Conflict, Revokes: both})
	second := granting(renewal(1, nil), 2, now)
	twice := append(slices.Clone(after), second)
	c.judge("renewal-followed", "", "A request that was granted, and followed since: what compaction has not removed.", nil, twice, first, nothing(vectors.Taken))
	refused("old-lineage", "Another key for a lineage that was followed twice: an alarm.", twice, granting(thief, 1, now), vectors.Rollback)
}
