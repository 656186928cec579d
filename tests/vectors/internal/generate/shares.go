package main

import (
	"bytes"
	"crypto/sha256"
	"slices"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/tests/vectors"
)

// A sharing edits a share before what covers the edited part is made.
type sharing struct {
	proof  drafting // of the producer
	secret []byte   // wrapped instead of the topic secret
	edit   func(k *wire.KeyShare)
	sealed func(k *wire.KeyShare) []byte // instead of its wrap
	signer *key
	to     *key
}

// share is the peer's, for the reader.
func share(s sharing) *wire.KeyShare {
	to := reader
	if s.to != nil {
		to = *s.to
	}
	s.proof.nodes = []key{peer}
	g := grant(s.proof)
	k := &wire.KeyShare{
		Realm: g.Header.Realm, Proof: g.Proof(), Sharer: peer.node(), Credential: serial(peer.Seed()[0]),
		Recipient: to.node(), Prekey: wire.PrekeyIDOf(kemPublic(prekeySeed(to))), Topic: g.Header.Topics[0].Name,
	}
	if s.secret == nil {
		s.secret, _ = derived(&g.Header, k.Topic)
	}
	if s.edit != nil {
		s.edit(k)
	}
	copy(k.HPKE[:], shareWrap(&k.Proof.Header, to, k.Sharer, s.secret))
	if s.sealed != nil {
		copy(k.HPKE[:], s.sealed(k))
	}
	signer := peer
	if s.signer != nil {
		signer = *s.signer
	}
	k.Signature = signer.sign(wire.TypeKeyShare, k.Realm, k.AppendBody(nil))
	return k
}

// shareWrap seals a topic secret to a node's prekey in a sharer's name.
func shareWrap(h *wire.GrantHeader, to key, sharer wire.NodeID, secret []byte) []byte {
	digest, node, kem := h.Digest(), to.node(), kemPublic(prekeySeed(to))
	sum := sha256.Sum256(kem)
	return sealTo(kem, slices.Concat([]byte("KX1 share v1\x00"), digest[:], node[:], sum[:], sharer[:]), secret)
}

func shareRecord(k *wire.KeyShare, at uint64) vectors.ControlRecord {
	commit := k.Commit()
	return vectors.ControlRecord{
		Topic: "grants", Partition: int32(k.Recipient[3] % 16), Key: wire.KeyShareKey([wire.KidSize]byte(kidOf(commit[:])), k.Recipient),
		Value: k.Append(nil), Now: at,
	}
}

// neighbour is a node of the reader's partition.
func neighbour() key {
	for b := byte(0x50); ; b++ {
		if k := keyOf(b); partitionOf(k) == partitionOf(reader) {
			return k
		}
	}
}

// read is progress that erases the epoch of the cast's grants a window later.
func read(at uint64) vectors.ControlProgress {
	return vectors.ControlProgress{Ends: map[int32]int64{0: 10}, Committed: map[int32]int64{0: 10}, Now: at}
}

// over is when the end offsets of the cast's epoch may be noted: use_by, the skew and 2 min.
const over = now - minute + 210_000 + 3*minute

// shares are what a consumer refuses of what peers share with it.
func (c controls) shares() {
	before := members()
	good := share(sharing{})
	taken := shareRecord(good, now)
	commit := good.Commit()
	kid := []vectors.Bytes{kidOf(commit[:])}
	holds := vectors.ControlWant{Kind: vectors.Taken, Kids: kid}
	nothing := vectors.ControlWant{Kind: vectors.Taken}
	c.judge("share-taken", "", "A sound share.", before, taken, holds)
	c.judge("share-again", "", "The same share again changes nothing.", append(members(), taken), taken, holds)
	c.encodings("share", taken, before)

	refused := func(name, comment string, kind vectors.Kind, s sharing) {
		c.refused("share-"+name, comment, before, shareRecord(share(s), now), kind)
	}
	header := func(edit func(h *wire.GrantHeader)) sharing { return sharing{proof: drafting{header: edit}} }
	edit := func(edit func(k *wire.KeyShare)) sharing { return sharing{edit: edit} }
	refused("header-realm", "A header of another realm in a share of this one.", vectors.Malformed, edit(func(k *wire.KeyShare) { k.Proof.Header.Realm = wire.RealmIDOf(others.public()) }))
	refused("header-times", "The header's use_by is not after its start.", vectors.Malformed, header(func(h *wire.GrantHeader) { h.UseBy = h.Start }))
	refused("topic", "A topic that the header does not list.", vectors.Malformed, edit(func(k *wire.KeyShare) { k.Topic = "payments" }))
	moved := taken
	moved.Partition = (moved.Partition + 1) % 16
	c.refused("share-partition", "In another partition than its recipient's.", before, moved, vectors.Malformed)

	refused("realm", "Of another realm: ordinary on a shared cluster.", vectors.OtherRealm, header(func(h *wire.GrantHeader) { h.Realm = wire.RealmIDOf(others.public()) }))
	other := neighbour()
	c.judge("share-not-for-us", "share-not-for-us", "For another node of the partition.", before, shareRecord(share(sharing{to: &other}), now), nothing)
	refused("unknown-sharer", "Its sharer's credential is not on the roster.", vectors.UnknownCredential,
		sharing{edit: func(k *wire.KeyShare) { k.Sharer, k.Credential = stranger.node(), serial(stranger.Seed()[0]) }, signer: &stranger})
	refused("other-node", "It names the credential of another node.", vectors.Unauthentic, edit(func(k *wire.KeyShare) { k.Credential = serial(producer.Seed()[0]) }))
	refused("signature", "Signed by somebody else in the sharer's name.", vectors.Unauthentic, sharing{signer: &stranger})

	// Sharers that are no peers now.
	for _, tt := range []struct {
		name, comment string
		edit          func(c *wire.Credential)
	}{
		{"role", "Its sharer may not share.", func(c *wire.Credential) { c.Roles = wire.RoleConsume }},
		{"no-consumer", "Its sharer may not consume.", func(c *wire.Credential) { c.Roles = wire.RoleShare }},
		{"sharer-topic", "Its sharer's credential names other topics.", func(c *wire.Credential) { c.Topics[0].Name = "payments" }},
		{"expired", "Its sharer's credential has ended.", func(c *wire.Credential) { c.NotAfter = now - 1 }},
	} {
		c.refused("share-"+tt.name, tt.comment, append(members()[:2], rosterRecord(credential(peer, wire.RoleConsume|wire.RoleShare, tt.edit), now-minute)), taken, vectors.NotEntitled)
	}
	c.refused("share-narrowed", "A newer credential without the topic replaces its sharer's.", append(members(), rosterRecord(credential(peer, wire.RoleConsume|wire.RoleShare, func(c *wire.Credential) {
		c.Serial, c.NotBefore, c.Topics[0].Name = serial(0x31), c.NotBefore+minute, "payments"
	}), now-minute)), taken, vectors.NotEntitled)
	c.refused("share-revoked", "Its sharer's credential is revoked.", append(members(), rosterRecord(authority(nil, peer), now)), taken, vectors.NotEntitled)

	// The producer's part is judged as a grant is.
	refused("future", "Its epoch starts after now + skew.", vectors.Clock, header(func(h *wire.GrantHeader) { h.Start, h.UseBy = now+2*minute, now+5*minute }))
	refused("t-max", "Its epoch is longer than T_max.", vectors.NotEntitled, header(func(h *wire.GrantHeader) { h.UseBy = h.Start + day + 1 }))
	refused("unknown-producer", "Its producer's credential is not on the roster.", vectors.UnknownCredential,
		sharing{proof: drafting{header: func(h *wire.GrantHeader) { h.Producer, h.Credential = stranger.node(), serial(stranger.Seed()[0]) }, signer: &stranger}})
	refused("producer-node", "Its header names the credential of another node.", vectors.Unauthentic, header(func(h *wire.GrantHeader) { h.Producer = peer.node() }))
	refused("producer-signature", "Its header is signed by the sharer in the producer's name.", vectors.Unauthentic, sharing{proof: drafting{signer: &peer}})
	refused("producer-role", "Its producer may not produce.", vectors.NotEntitled,
		sharing{proof: drafting{header: func(h *wire.GrantHeader) { h.Producer, h.Credential = peer.node(), serial(peer.Seed()[0]) }, signer: &peer}})
	refused("producer-topic", "Its producer may not produce to all topics of the header.", vectors.NotEntitled,
		header(func(h *wire.GrantHeader) { h.Topics = append(h.Topics, wire.GrantTopic{Name: "payments"}) }))
	c.refused("share-producer-revoked", "Its producer's credential was revoked by start.", append(members(), rosterRecord(authority(nil, producer), now)), taken, vectors.NotEntitled)

	refused("secret", "Another secret than the producer committed to: an alarm.", vectors.Unauthentic, sharing{secret: bytes.Repeat([]byte{0xE6}, 32)})
	refused("wrap", "A wrap that was made for another header.", vectors.Unauthentic, sharing{sealed: func(k *wire.KeyShare) []byte {
		h := grantHeader(func(h *wire.GrantHeader) { h.Epoch = 9 })
		return shareWrap(&h, reader, k.Sharer, es)
	}})
	refused("wrap-sharer", "A wrap that another sharer made.", vectors.Unauthentic, sharing{sealed: func(k *wire.KeyShare) []byte {
		ts, _ := derived(&k.Proof.Header, k.Topic)
		return shareWrap(&k.Proof.Header, reader, producer.node(), ts)
	}})
	refused("prekey-gone", "Wrapped for a prekey that is not held.", vectors.Erased, edit(func(k *wire.KeyShare) { k.Prekey[0] ^= 1 }))
	again := shareRecord(share(header(func(h *wire.GrantHeader) { h.Start++ })), now)
	c.judge("share-second-header", "share-second-header", "A second header that opens to a known kid: the first counts.", append(members(), taken), again, vectors.ControlWant{Kind: vectors.Conflict, Kids: kid})

	// What is taken, and brings nothing.
	late := taken
	late.Now = over + 4*minute
	c.judge("share-erased", "share-erased", "Its kid was erased: nothing is resurrected.", append(members(), taken), late, nothing)
	c.after("share-erased", read(over), read(over+3*minute))
	c.judge("share-hard-cap", "share-hard-cap", "An epoch past the hard cap.", before,
		shareRecord(share(header(func(h *wire.GrantHeader) { h.Start, h.UseBy = now-8*day, now-8*day+210_000 })), now), nothing)
	c.judgeAs(func(c *wire.Credential) { c.DataNotBefore = now }, "share-data", "share-data", "An epoch that starts before the reader's data_not_before.", before, taken, nothing)
	c.judgeAs(func(c *wire.Credential) { c.Topics[0].Name = "payments" }, "share-own-topic", "share-own-topic", "A topic that the reader may not consume.", before, taken, nothing)
}
