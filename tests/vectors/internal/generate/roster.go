package main

import (
	"bytes"
	"strings"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/tests/vectors"
)

// encodings are bytes that are no encoding of a message, of each kind that PROTOCOL.md §2
// names under "Parsers".
func (c controls) encodings(kind string, record vectors.ControlRecord, before []vectors.ControlRecord) {
	spoiled := func(edit func(b []byte) []byte) vectors.ControlRecord {
		r := record
		r.Value = edit(bytes.Clone(r.Value))
		return r
	}
	for _, tt := range []struct {
		name, comment string
		edit          func(b []byte) []byte
	}{
		{"version", "An unknown version.", func(b []byte) []byte { b[0]++; return b }},
		{"type", "The type of another message.", func(b []byte) []byte { b[1] ^= 7; return b }},
		{"suite", "An unknown suite.", func(b []byte) []byte { b[2]++; return b }},
		{"cut", "The last byte is missing.", func(b []byte) []byte { return b[:len(b)-1] }},
		{"trailing", "A byte follows.", func(b []byte) []byte { return append(b, 0) }},
	} {
		c.refused(kind+"-"+tt.name, tt.comment, before, spoiled(tt.edit), vectors.Malformed)
	}
	key := record
	key.Key = bytes.Clone(key.Key)
	key.Key[len(key.Key)-1] ^= 1
	c.refused(kind+"-key", "The Kafka key disagrees with the body.", before, key, vectors.Malformed)
}

// credentials are what a node refuses of the roster's credentials.
func (c controls) credentials() {
	newcomer := keyOf(0x20)
	good := func(edit func(c *wire.Credential)) *wire.Credential {
		return credential(newcomer, wire.RoleConsume, edit)
	}
	before := members()
	c.judge("credential-taken", "", "A sound credential.", before, rosterRecord(good(nil), now), vectors.ControlWant{Kind: vectors.Taken})
	c.encodings("credential", rosterRecord(good(nil), now), before)

	refused := func(name, comment string, kind vectors.Kind, m *wire.Credential) {
		c.refused("credential-"+name, comment, before, rosterRecord(m, now), kind)
	}
	refused("role", "An unknown role.", vectors.Malformed, good(func(c *wire.Credential) { c.Roles |= 64 }))
	refused("times", "It ends before it begins.", vectors.Malformed, good(func(c *wire.Credential) { c.NotAfter = c.NotBefore - 1 }))
	refused("pattern", "An exact pattern without a name.", vectors.Malformed, good(func(c *wire.Credential) { c.Topics[0].Name = "" }))
	refused("pattern-long", "A pattern of more than 249 bytes.", vectors.Malformed, good(func(c *wire.Credential) { c.Topics[0].Name = strings.Repeat("t", 250) }))
	kind := good(func(c *wire.Credential) { c.Topics = []wire.Pattern{{Name: "pattern"}} })
	unknown := rosterRecord(kind, now)
	unknown.Value[bytes.Index(unknown.Value, []byte("pattern"))-3] = 2
	c.refused("credential-pattern-kind", "A pattern that is neither exact nor a prefix.", before, unknown, vectors.Malformed)
	other := rosterRecord(kind, now)
	other.Key[0] = 0x0A
	c.refused("roster-type", "A Kafka key of a type that does not exist.", before, other, vectors.Malformed)
	refused("size", "More than 4 KB.", vectors.Malformed, good(func(c *wire.Credential) {
		for range 40 {
			c.Groups = append(c.Groups, wire.Pattern{Name: strings.Repeat("g", 100)})
		}
	}))

	forged := good(nil)
	forged.Signature = stranger.sign(wire.TypeCredential, realm, forged.AppendBody(nil))
	refused("signature", "Signed by somebody else in the issuer's name.", vectors.Unauthentic, forged)
	typed := good(nil)
	typed.Signature = issuer.sign(wire.TypePrekeyBundle, realm, typed.AppendBody(nil))
	refused("signature-type", "The issuer's signature of the same bytes as another message.", vectors.Unauthentic, typed)
	refused("realm", "Of another realm.", vectors.Unauthentic, good(func(c *wire.Credential) { c.Realm = wire.RealmIDOf(others.public()) }))
	refused("issuer-by-issuer", "An issuer certified by an issuer: chains are at most two long.", vectors.Unauthentic,
		good(func(c *wire.Credential) { c.Roles = wire.RoleIssuer }))
	refused("serial", "Another credential under a serial that is taken.", vectors.Unauthentic, credential(producer, wire.RoleProduce, func(c *wire.Credential) { c.NotAfter++ }))

	byNode := credential(newcomer, wire.RoleConsume, func(c *wire.Credential) { c.Issuer = producer.public() })
	byNode.Signature = producer.sign(wire.TypeCredential, realm, byNode.AppendBody(nil))
	c.judge("credential-signer-no-issuer", "credential-signer-no-issuer", "Signed by a node that is no issuer: it waits for a certificate that never comes, and its node is no recipient.",
		append(before, rosterRecord(bundle(peer, nil), now-minute)), rosterRecord(byNode, now), vectors.ControlWant{Kind: vectors.Taken, Recipients: nodes(peer)})

	twin := keyOf(0x21)
	c.refused("credential-two-keys", "Two identity keys in one lineage of a node: the first counts.",
		append(before, rosterRecord(good(nil), now)),
		rosterRecord(credential(twin, wire.RoleConsume, func(c *wire.Credential) { c.Node = newcomer.node() }), now), vectors.Unauthentic)
}

// bundles are what a node refuses of the roster's prekey bundles.
func (c controls) bundles() {
	before := members()
	taken := rosterRecord(bundle(peer, nil), now)
	c.judge("bundle-taken", "", "A sound bundle makes its node a recipient.", before, taken, vectors.ControlWant{Kind: vectors.Taken, Recipients: nodes(peer)})
	c.encodings("bundle", taken, before)

	refused := func(name, comment string, kind vectors.Kind, edit func(b *wire.PrekeyBundle)) {
		c.refused("bundle-"+name, comment, before, rosterRecord(bundle(peer, edit), now), kind)
	}
	refused("times", "It ends before it was made.", vectors.Malformed, func(b *wire.PrekeyBundle) { b.NotAfter = b.Created - 1 })
	refused("generation-future", "A generation above now + 2 x skew.", vectors.Clock, func(b *wire.PrekeyBundle) { b.Generation = now + 3*minute })
	refused("created-future", "Made after now + 2 x skew.", vectors.Clock, func(b *wire.PrekeyBundle) { b.Created, b.NotAfter = now+3*minute, now+day })
	refused("offline", "Good for longer than the credential's offline_allow_s.", vectors.NotEntitled, func(b *wire.PrekeyBundle) { b.NotAfter = b.Created + 3*day + 1 })
	refused("validity", "Made before the credential began.", vectors.NotEntitled, func(b *wire.PrekeyBundle) { b.Created, b.NotAfter = now-11*day, now-9*day })
	refused("other-node", "It names the credential of another node.", vectors.Unauthentic, func(b *wire.PrekeyBundle) { b.Credential = serial(producer.Seed()[0]) })
	refused("kem", "A kem_pub that cannot be wrapped to.", vectors.Malformed, func(b *wire.PrekeyBundle) { clear(b.KEMPub[wire.KEMPublicSize-32:]) })
	forged := bundle(peer, nil)
	forged.Signature = stranger.sign(wire.TypePrekeyBundle, realm, forged.AppendBody(nil))
	c.refused("bundle-signature", "Signed by somebody else.", before, rosterRecord(forged, now), vectors.Unauthentic)

	newer := bundle(peer, func(b *wire.PrekeyBundle) {
		b.Generation++
		b.KEMPub = [wire.KEMPublicSize]byte(kemPublic(bytes.Repeat([]byte{0x99}, 32)))
	})
	c.refused("bundle-rollback", "A generation below one that was seen.", append(before, rosterRecord(newer, now)), taken, vectors.Rollback)
	next := keyOf(0x22)
	c.refused("bundle-lineage", "Of an older lineage than one that was seen, whatever its generation.",
		append(before, rosterRecord(credential(next, wire.RoleConsume, func(c *wire.Credential) { c.Node, c.Lineage = peer.node(), 1 }), now),
			rosterRecord(bundle(next, func(b *wire.PrekeyBundle) { b.Node = peer.node() }), now)),
		rosterRecord(bundle(peer, func(b *wire.PrekeyBundle) { b.Generation++ }), now), vectors.Rollback)
	same := bundle(peer, func(b *wire.PrekeyBundle) { b.NotAfter-- })
	c.refused("bundle-two-of-generation", "Two bundles of one generation: the first counts.", append(before, taken), rosterRecord(same, now), vectors.Conflict)
}

// recipients are nodes that are none: nothing is refused, and nothing is wrapped for them.
func (c controls) recipients() {
	for _, tt := range []struct {
		name, comment string
		cred          func(c *wire.Credential)
		bundle        func(b *wire.PrekeyBundle)
	}{
		{"role", "It may not consume.", func(c *wire.Credential) { c.Roles = wire.RoleProduce }, nil},
		{"topic", "Its credential names other topics.", func(c *wire.Credential) { c.Topics[0].Name = "payments" }, nil},
		{"expired", "Its credential has ended.", func(c *wire.Credential) { c.NotAfter = now - 1 }, nil},
		{"early", "Its credential begins later.", func(c *wire.Credential) { c.NotBefore = now + 2*minute }, nil},
		{"data", "It gets no data yet.", func(c *wire.Credential) { c.DataNotBefore = now + minute }, nil},
		{"bundle-expired", "Its bundle has ended.", nil, func(b *wire.PrekeyBundle) { b.NotAfter = now - 1 }},
		{"interest", "It is interested in other topics.", nil, func(b *wire.PrekeyBundle) { b.Interest = []wire.Pattern{{Name: "payments"}} }},
	} {
		newcomer := keyOf(0x30)
		before := append(members(), rosterRecord(bundle(peer, nil), now-minute), rosterRecord(credential(newcomer, wire.RoleConsume, tt.cred), now-minute))
		record := rosterRecord(bundle(newcomer, tt.bundle), now)
		kind := vectors.Taken
		if tt.name == "early" {
			kind = vectors.NotEntitled // the bundle was made outside the validity
		}
		c.judge("recipient-"+tt.name, "recipient-"+tt.name, tt.comment, before, record, vectors.ControlWant{Kind: kind, Recipients: nodes(peer)})
	}
	// Of an issuer whose certificate ended, or was revoked. The root's word lasts.
	second := keyOf(0x32)
	byRoot := keyOf(0x33)
	ended := credential(second, wire.RoleIssuer, func(c *wire.Credential) { c.Issuer, c.Topics, c.NotAfter = root.public(), nil, now-1 })
	orphan := keyOf(0x34)
	of := credential(orphan, wire.RoleConsume, func(c *wire.Credential) { c.Issuer = second.public() })
	of.Signature = second.sign(wire.TypeCredential, realm, of.AppendBody(nil))
	c.judge("recipient-issuer-expired", "recipient-issuer-expired", "The certificate of its credential's issuer has ended.",
		append(members(), rosterRecord(bundle(peer, nil), now-minute), rosterRecord(ended, now-minute), rosterRecord(of, now-minute)),
		rosterRecord(bundle(orphan, func(b *wire.PrekeyBundle) { b.Created, b.Generation = now-minute, now-minute }), now), vectors.ControlWant{Kind: vectors.Taken, Recipients: nodes(peer)})
	mine := credential(byRoot, wire.RoleConsume, func(c *wire.Credential) { c.Issuer = root.public() })
	c.judge("recipient-issuer-revoked", "recipient-issuer-revoked", "The certificate of its credential's issuer is revoked.",
		append(members(), rosterRecord(bundle(peer, nil), now-minute), rosterRecord(mine, now-minute), rosterRecord(bundle(byRoot, nil), now-minute)),
		rosterRecord(authority(func(a *wire.AuthorityState) { a.Issuer = root.public() }, issuer), now), vectors.ControlWant{Kind: vectors.Taken, Recipients: nodes(byRoot)})

	// The newest credential counts: a narrower one replaces a wider.
	newcomer := keyOf(0x30)
	before := append(members(), rosterRecord(bundle(peer, nil), now-minute), rosterRecord(credential(newcomer, wire.RoleConsume, nil), now-minute), rosterRecord(bundle(newcomer, nil), now-minute))
	narrower := credential(newcomer, wire.RoleConsume, func(c *wire.Credential) {
		c.Serial, c.NotBefore, c.Topics = serial(0x31), c.NotBefore+minute, []wire.Pattern{{Name: "payments"}}
	})
	c.judge("recipient-narrowed", "recipient-narrowed", "A newer credential without the topic replaces the one that had it.", before, rosterRecord(narrower, now),
		vectors.ControlWant{Kind: vectors.Taken, Recipients: nodes(peer)})
}
