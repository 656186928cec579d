package main

import (
	"bytes"
	"strings"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/tests/vectors"
)

// grants are what a consumer refuses of the grants topic.
func (c controls) grants() {
	before := members()
	good := grant(drafting{})
	_, commit := derived(&good.Header, "orders")
	kid := vectors.Bytes(kidOf(commit))
	taken := grantRecord(good, now)
	c.judge("grant-taken", "", "A sound grant.", before, taken, vectors.ControlWant{Kind: vectors.Taken, Kids: []vectors.Bytes{kid}})
	c.judge("grant-again", "", "The same part again changes nothing.", append(before, taken), taken, vectors.ControlWant{Kind: vectors.Taken, Kids: []vectors.Bytes{kid}})
	c.encodings("grant", taken, before)

	refused := func(name, comment string, kind vectors.Kind, d drafting) {
		c.refused("grant-"+name, comment, before, grantRecord(grant(d), now), kind)
	}
	header := func(edit func(h *wire.GrantHeader)) drafting { return drafting{header: edit} }
	part := func(edit func(g *wire.Grant)) drafting { return drafting{part: edit} }
	refused("flags", "An unknown flag.", vectors.Malformed, header(func(h *wire.GrantHeader) { h.Flags = 2 }))
	refused("times", "use_by is not after start.", vectors.Malformed, header(func(h *wire.GrantHeader) { h.UseBy = h.Start }))
	refused("no-topic", "A header without a topic.", vectors.Malformed, header(func(h *wire.GrantHeader) { h.Topics = nil }))
	refused("topic-name", "A topic without a name.", vectors.Malformed, header(func(h *wire.GrantHeader) { h.Topics[0].Name = "" }))
	refused("topic-long", "A topic of more than 249 bytes.", vectors.Malformed, header(func(h *wire.GrantHeader) { h.Topics[0].Name = strings.Repeat("t", 250) }))
	refused("topics-order", "Topics that do not ascend.", vectors.Malformed, header(func(h *wire.GrantHeader) { h.Topics = append(h.Topics, wire.GrantTopic{Name: "a"}) }))
	refused("topics-count", "More than 512 topics.", vectors.Malformed, header(func(h *wire.GrantHeader) {
		h.Topics = nil
		for i := range wire.MaxTopics + 1 {
			h.Topics = append(h.Topics, wire.GrantTopic{Name: string([]byte{'a' + byte(i/676), 'a' + byte(i/26%26), 'a' + byte(i%26)}), Commit: wire.Digest{1}})
		}
	}))
	refused("wraps-order", "Wraps that do not ascend by node.", vectors.Malformed, part(func(g *wire.Grant) { g.Wraps = append(g.Wraps, g.Wraps[0]) }))
	refused("wrap-partition", "A wrap in another partition than its node's.", vectors.Malformed, part(func(g *wire.Grant) {
		w := g.Wraps[0]
		w.Node[0], w.Node[3] = 0xff, w.Node[3]+1
		g.Wraps = append(g.Wraps, w)
	}))
	flipped := bytes.Clone(taken.Value)
	flipped[len(flipped)-1] ^= 1
	c.refused("grant-wraps-hash", "A bit of a wrap flipped: wraps_hash is another.", before, vectors.ControlRecord{Topic: "grants", Partition: taken.Partition, Key: taken.Key, Value: flipped, Now: now}, vectors.Malformed)
	moved := taken
	moved.Partition = (moved.Partition + 1) % 16
	c.refused("grant-partition", "The part of one partition in another.", before, moved, vectors.Malformed)

	refused("realm", "Of another realm: ordinary on a shared cluster.", vectors.OtherRealm, header(func(h *wire.GrantHeader) { h.Realm = wire.RealmIDOf(others.public()) }))
	refused("future", "It starts after now + skew.", vectors.Clock, header(func(h *wire.GrantHeader) { h.Start, h.UseBy = now+2*minute, now+5*minute }))
	refused("t-max", "Longer than T_max.", vectors.NotEntitled, header(func(h *wire.GrantHeader) { h.UseBy = h.Start + day + 1 }))
	refused("unknown-producer", "Its producer's credential is not on the roster.", vectors.UnknownCredential,
		drafting{header: func(h *wire.GrantHeader) { h.Producer, h.Credential = stranger.node(), serial(stranger.Seed()[0]) }, signer: &stranger})
	refused("other-node", "It names the credential of another node.", vectors.Unauthentic, header(func(h *wire.GrantHeader) { h.Producer = peer.node() }))
	refused("signature", "Signed by a co-recipient in the producer's name.", vectors.Unauthentic, drafting{signer: &peer})
	refused("role", "Its signer may not produce.", vectors.NotEntitled,
		drafting{header: func(h *wire.GrantHeader) { h.Producer, h.Credential = peer.node(), serial(peer.Seed()[0]) }, signer: &peer})
	refused("topic", "Its signer may not produce to the topic.", vectors.NotEntitled, header(func(h *wire.GrantHeader) { h.Topics[0].Name = "payments" }))
	refused("expired", "Its signer's credential had ended at start.", vectors.NotEntitled, header(func(h *wire.GrantHeader) { h.Credential = serial(0x40) }))
	late := c["grant-expired"]
	late.Before = append(members(), rosterRecord(credential(producer, wire.RoleProduce, func(c *wire.Credential) { c.Serial, c.NotAfter = serial(0x40), now-2*minute }), now-minute))
	c["grant-expired"] = late
	refused("commit", "A commitment to another secret than the one that is wrapped.", vectors.Unauthentic, header(func(h *wire.GrantHeader) { h.Topics[0].Commit = wire.Digest{9} }))
	refused("secret", "Another secret than the one committed to.", vectors.Unauthentic, drafting{secret: bytes.Repeat([]byte{0xE6}, 32)})
	refused("wrap", "A wrap that does not open: made for another header.", vectors.Unauthentic, part(func(g *wire.Grant) {
		other := grantHeader(func(h *wire.GrantHeader) { h.Epoch = 9 })
		for i := range g.Wraps {
			if g.Wraps[i].Node == reader.node() {
				g.Wraps[i] = wrap(&other, reader, es)
			}
		}
	}))
	refused("prekey-gone", "Wrapped for a prekey that is not held.", vectors.Erased, part(func(g *wire.Grant) {
		for i := range g.Wraps {
			g.Wraps[i].Prekey[0] ^= 1
		}
	}))
	c.judge("grant-not-for-us", "grant-not-for-us", "A sound grant without a wrap for the reader.", before, grantRecord(grant(drafting{nodes: []key{peer}}), now), vectors.ControlWant{Kind: vectors.Taken})
	c.judge("grant-hard-cap", "grant-hard-cap", "An epoch past the hard cap: its data is gone by rule.", before,
		grantRecord(grant(drafting{header: func(h *wire.GrantHeader) { h.Start, h.UseBy = now-8*day, now-8*day+210_000 }}), now), vectors.ControlWant{Kind: vectors.Taken})
}
