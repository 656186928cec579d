package main

import (
	"slices"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/tests/vectors"
)

// late is a member of the group that came after the grant.
var late = keyOf(0x30)

// request is the late member's for kids, signed after edit.
func request(kids [][]byte, edit func(q *wire.EpochRequest)) *wire.EpochRequest {
	q := &wire.EpochRequest{Realm: realm, Node: late.node(), Credential: serial(late.Seed()[0]), Group: "billing", Created: now}
	for _, kid := range kids {
		q.Kids = append(q.Kids, [wire.KidSize]byte(kid))
	}
	if edit != nil {
		edit(q)
	}
	q.Signature = late.sign(wire.TypeEpochRequest, q.Realm, q.AppendBody(nil))
	return q
}

// requests are what a member of the group that holds the epoch refuses of what others ask.
func (c controls) requests() {
	_, commit := derived(ptr(grantHeader(nil)), "orders")
	kid := kidOf(commit)
	kids := []vectors.Bytes{kid}
	held := append(members(), grantRecord(grant(drafting{}), now-minute))
	joined := func(cred func(c *wire.Credential), b func(b *wire.PrekeyBundle)) []vectors.ControlRecord {
		return append(slices.Clone(held), rosterRecord(credential(late, wire.RoleConsume, cred), now-minute), rosterRecord(bundle(late, b), now-minute))
	}
	before := joined(nil, nil)
	good := rosterRecord(request([][]byte{kid}, nil), now)
	want := func(kind vectors.Kind) vectors.ControlWant { return vectors.ControlWant{Kind: kind, Kids: kids} }
	gives := vectors.ControlWant{Kind: vectors.Taken, Kids: kids, Shares: kids}
	c.judge("request-taken", "", "A sound request gets the key.", before, good, gives)
	first := len(c)
	c.encodings("request", good, before)
	if len(c) != first+6 {
		panic("another number of encodings")
	}
	for _, name := range []string{"version", "type", "suite", "cut", "trailing", "key"} {
		v := c["request-"+name]
		v.Want.Kids = kids
		c["request-"+name] = v
	}

	refused := func(name, comment string, kind vectors.Kind, before []vectors.ControlRecord, edit func(q *wire.EpochRequest)) {
		c.judge("request-"+name, "request-"+name, comment, before, rosterRecord(request([][]byte{kid}, edit), now), want(kind))
	}
	refused("count-zero", "No kid.", vectors.Malformed, before, func(q *wire.EpochRequest) { q.Kids = nil })
	refused("count", "More than 256 kids.", vectors.Malformed, before, func(q *wire.EpochRequest) {
		q.Kids = nil
		for i := range wire.MaxRequested + 1 {
			q.Kids = append(q.Kids, [wire.KidSize]byte{byte(i >> 8), byte(i)})
		}
	})
	refused("order", "Kids that do not ascend.", vectors.Malformed, before, func(q *wire.EpochRequest) { q.Kids = append(q.Kids, q.Kids[0]) })
	refused("group-empty", "A group without a name.", vectors.Malformed, before, func(q *wire.EpochRequest) { q.Group = "" })
	refused("realm", "Of another realm.", vectors.Taken, before, func(q *wire.EpochRequest) { q.Realm = wire.RealmIDOf(others.public()) })
	refused("old", "Created more than 10 min ago: the roster keeps it.", vectors.Taken, before, func(q *wire.EpochRequest) { q.Created = now - 10*minute - 1 })
	refused("future", "Created more than 10 min ahead.", vectors.Clock, before, func(q *wire.EpochRequest) { q.Created = now + 10*minute + 1 })
	refused("unknown", "Its node's credential is not on the roster.", vectors.UnknownCredential, held, nil)
	refused("other-node", "It names the credential of another node.", vectors.Unauthentic, before, func(q *wire.EpochRequest) { q.Credential = serial(peer.Seed()[0]) })
	forged := request([][]byte{kid}, nil)
	forged.Signature = stranger.sign(wire.TypeEpochRequest, realm, forged.AppendBody(nil))
	c.judge("request-signature", "request-signature", "Signed by somebody else.", before, rosterRecord(forged, now), want(vectors.Unauthentic))

	// Who asks is not entitled to what it asks for.
	refused("group", "A group that its credential does not list.", vectors.NotEntitled,
		joined(func(c *wire.Credential) { c.Groups[0].Name = "audit" }, nil), nil)
	refused("role", "Its node may not consume.", vectors.NotEntitled, joined(func(c *wire.Credential) { c.Roles = wire.RoleProduce }, nil), nil)
	refused("expired", "Its node's credential has ended.", vectors.NotEntitled, joined(func(c *wire.Credential) { c.NotAfter = now - 1 }, nil), nil)
	refused("revoked", "Its node's credential is revoked.", vectors.NotEntitled, append(slices.Clone(before), rosterRecord(authority(nil, late), now)), nil)
	refused("topic", "A kid of a topic that its credential does not list.", vectors.Taken, joined(func(c *wire.Credential) { c.Topics[0].Name = "payments" }, nil), nil)
	refused("data", "A kid of an epoch that starts before its data_not_before.", vectors.Taken, joined(func(c *wire.Credential) { c.DataNotBefore = now - minute + 1 }, nil), nil)
	refused("narrowed", "A newer credential without the group replaces the one that it names.", vectors.NotEntitled,
		append(slices.Clone(before), rosterRecord(credential(late, wire.RoleConsume, func(c *wire.Credential) {
			c.Serial, c.NotBefore, c.Groups = serial(0x31), c.NotBefore+minute, nil
		}), now-minute)), nil)
	refused("no-bundle", "Its node has no prekey.", vectors.Taken, before[:len(before)-1], nil)
	refused("bundle-expired", "Its node's bundle has ended.", vectors.Taken, joined(nil, func(b *wire.PrekeyBundle) { b.NotAfter = now - 1 }), nil)
	refused("interest", "Its node is interested in other topics.", vectors.Taken, joined(nil, func(b *wire.PrekeyBundle) { b.Interest = []wire.Pattern{{Name: "payments"}} }), nil)

	// The reader has nothing to give.
	refused("not-held", "A kid that the reader does not hold.", vectors.Taken, before, func(q *wire.EpochRequest) { q.Kids[0][0] ^= 1 })
	refused("other-group", "A group that the reader is no member of.", vectors.Taken,
		joined(func(c *wire.Credential) { c.Groups = append(c.Groups, wire.Pattern{Name: "audit"}) }, nil), func(q *wire.EpochRequest) { q.Group = "audit" })
	c.judgeAs(func(c *wire.Credential) { c.Roles = wire.RoleConsume }, "request-no-sharer", "request-no-sharer", "The reader may not share.", before, good, want(vectors.Taken))
	c.judge("request-again", "request-again", "The node was given the kid less than a minute ago.", append(slices.Clone(before), good), good, want(vectors.Taken))
	asked := rosterRecord(request([][]byte{kid}, func(q *wire.EpochRequest) { q.Created = over + minute }), over+minute)
	c.judge("request-passed", "request-passed", "A kid whose epoch the group has passed.", before, asked, want(vectors.Taken))
	c.after("request-passed", read(over))
	asked.Now += 3 * minute
	c.judge("request-erased", "request-erased", "A kid that the reader has erased.", before, asked, vectors.ControlWant{Kind: vectors.Taken})
	c.after("request-erased", read(over), read(over+3*minute))
}

func ptr[T any](v T) *T { return &v }
