package interop

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"encoding/pem"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

func requestFields(q *wire.EpochRequest) object {
	kids := []any{}
	for _, kid := range q.Kids {
		kids = append(kids, octets(kid[:]))
	}
	return object{
		"realm": octets(q.Realm[:]), "node": octets(q.Node[:]), "cred_serial": octets(q.Credential[:]), "group": octets(q.Group),
		"created": q.Created, "kids": kids,
	}
}

func shareFields(k *wire.KeyShare) object {
	grant := grantFields(&wire.Grant{Header: k.Proof.Header, Partition: k.Proof.Partition})
	return object{
		"realm": octets(k.Realm[:]), "grant": grant, "sharer": octets(k.Sharer[:]), "cred_serial": octets(k.Credential[:]),
		"recipient": octets(k.Recipient[:]), "prekey_id": octets(k.Prekey[:]), "topic": octets(k.Topic),
	}
}

// A group is a producer of the peer's, and two members of one group: ours and the peer's.
type group struct {
	realm        wire.RealmID
	producerSeed octets
	producer     *wire.Credential
	memberSeed   octets // of the peer's member
	kemSeed      octets
	member       *wire.Credential
	bundle       *wire.PrekeyBundle

	state    *keyring.State // of ours
	roster   *keyring.Roster
	consumer *keyring.Consumer
	own      *wire.PrekeyBundle
}

func newGroup(x *exchange) *group {
	x.Helper()
	rootSeed, issuerSeed := x.bytes(32), x.bytes(32)
	g := &group{producerSeed: x.bytes(32), memberSeed: x.bytes(32), kemSeed: x.bytes(32)}
	rootPub, _, realm := x.identity(rootSeed)
	issuerPub, issuerNode, _ := x.identity(issuerSeed)
	g.realm = realm
	issuer := x.credential(wire.Credential{Realm: realm, Node: issuerNode, Subject: issuerPub, Roles: wire.RoleIssuer, Issuer: rootPub}, rootSeed)
	all, billing := []wire.Pattern{{Prefix: true}}, []wire.Pattern{{Name: "billing"}}
	give := func(pub wire.PublicKey, node wire.NodeID, roles wire.Roles) *wire.Credential {
		return x.credential(wire.Credential{Realm: realm, Node: node, Subject: pub, Roles: roles, Topics: all, Groups: billing, Issuer: issuerPub}, issuerSeed)
	}
	pub, node, _ := x.identity(g.producerSeed)
	g.producer = give(pub, node, wire.RoleProduce)
	pub, node, _ = x.identity(g.memberSeed)
	g.member = give(pub, node, wire.RoleConsume|wire.RoleShare)

	state, err := keyring.NewState(x.source)
	x.must(err)
	own := give(state.Node().PublicKey(), state.Node().ID(), wire.RoleConsume|wire.RoleShare)
	file := append(append([]byte{}, rootPub[:]...), 2)
	for _, c := range []*wire.Credential{own, issuer} {
		b := c.Append(nil)
		file = append(binary.BigEndian.AppendUint16(file, uint16(len(b))), b...)
	}
	x.must(state.Node().Install(pem.EncodeToMemory(&pem.Block{Type: "KX1 CREDENTIAL", Bytes: file}), x.now))
	g.state, g.roster, g.consumer = state, keyring.NewRoster(state, keyring.DefaultTiming()), keyring.NewConsumer(state, keyring.DefaultTiming(), x.source)
	for _, c := range []*wire.Credential{issuer, own, g.producer, g.member} {
		x.must(g.roster.Apply(c.Key(), c.Append(nil), x.now))
	}
	g.bundle = x.prekey(g.kemSeed, g.memberSeed, g.member, nil)
	g.bundle.NotAfter = max(g.bundle.NotAfter, g.bundle.Created+1000)
	g.bundle.Signature = wire.PrekeyBundle{}.Signature
	copy(g.bundle.Signature[:], ed25519.Sign(ed25519.NewKeyFromSeed(g.memberSeed), wire.SignatureInput(wire.TypePrekeyBundle, realm, g.bundle.AppendBody(nil))))
	x.must(g.roster.Apply(g.bundle.Key(), g.bundle.Append(nil), x.now))
	rec, err := g.consumer.NewPrekey(x.now)
	x.must(err)
	g.own, err = wire.ParsePrekeyBundle(rec.Value)
	x.must(err)
	x.must(g.roster.Apply(rec.Key, rec.Value, x.now))
	return g
}

// grant has the peer's producer grant topics to bundles.
func (g *group) grant(x *exchange, es octets, topics []string, bundles ...*wire.PrekeyBundle) (header object, key octets, parts []octets) {
	x.Helper()
	named, to := []octets{}, []object{}
	for _, topic := range topics {
		named = append(named, octets(topic))
	}
	for _, b := range bundles {
		id := wire.PrekeyIDOf(b.KEMPub[:])
		to = append(to, object{"node": octets(b.Node[:]), "prekey_id": octets(id[:]), "kem_pub": octets(b.KEMPub[:])})
	}
	at := uint64(x.now.UnixMilli())
	header = object{
		"realm": octets(g.realm[:]), "node": octets(g.producer.Node[:]), "cred_serial": octets(g.producer.Serial[:]), "instance": x.bytes(16),
		"epoch": x.Uint32(), "start": at, "use_by": at + 1 + x.Uint64N(1e6), "flags": 0, "authority_seq": 0, "prev": x.bytes(32), "topics": named,
	}
	var made struct {
		Key   octets
		Parts []octets
	}
	x.peer.must("make_grant", object{"header": header, "es": es, "seed": g.producerSeed, "recipients": to}, &made)
	return header, made.Key, made.Parts
}

// TestMembersShareWithEachOther: the peer's member asks ours and opens what it shares; ours
// asks the peer's and opens what that shares.
func TestMembersShareWithEachOther(t *testing.T) {
	x := newExchange(t)
	for range rounds {
		g := newGroup(x)
		topics := x.topics()

		// Ours holds the epoch, the peer's does not.
		es := x.bytes(32)
		_, key, parts := g.grant(x, es, topics, g.own)
		own := g.state.Node().GrantPartition()
		kids, err := g.consumer.ApplyGrant(own, 0, key, parts[own], g.roster, x.now)
		x.must(err)
		request := wire.EpochRequest{
			Realm: g.realm, Node: g.member.Node, Credential: g.member.Serial, Group: "billing", Created: uint64(x.now.UnixMilli()),
		}
		for _, kid := range kids {
			request.Kids = append(request.Kids, kid)
		}
		slices.SortFunc(request.Kids, func(a, b [wire.KidSize]byte) int { return bytes.Compare(a[:], b[:]) })
		var made octets
		x.peer.must("make_request", object{"q": requestFields(&request), "seed": g.memberSeed}, &made)
		tasks, err := g.consumer.Share(request.Key(), made, g.roster, x.now)
		x.must(err)
		if len(tasks) != len(kids) {
			t.Fatalf("%d of %d kids are shared", len(tasks), len(kids))
		}
		producer, ours := g.producer.Subject, g.state.Node().PublicKey()
		for _, task := range tasks {
			rec, err := g.consumer.MakeShare(task, parts[own], x.now)
			x.must(err)
			k, err := wire.ParseKeyShare(rec.Value)
			x.must(err)
			args := object{"data": octets(rec.Value), "producer_pub": octets(producer[:]), "sharer_pub": octets(ours[:])}
			var got read
			x.peer.must("read_share", args, &got)
			differ(t, "share", got.Fields, shareFields(k))
			if !bytes.Equal(got.Key, rec.Key) {
				t.Errorf("share: the peer's key is %x, ours %x", []byte(got.Key), rec.Key)
			}
			var opened struct{ Ts, Root, Kid octets }
			args["seed"] = g.kemSeed
			x.peer.must("open_share", args, &opened)
			want, err := g.consumer.Root(k.Topic, task.Kid, x.now)
			x.must(err)
			if !bytes.Equal(opened.Root, want.Root[:]) || !bytes.Equal(opened.Kid, want.Kid[:]) {
				t.Errorf("topic %s: the peer opens another root", k.Topic)
			}
		}

		// The peer's holds another epoch, ours does not.
		es = x.bytes(32)
		header, key, parts := g.grant(x, es, topics, g.bundle)
		if kids, err := g.consumer.ApplyGrant(own, 1, key, parts[own], g.roster, x.now); err != nil || len(kids) != 0 {
			t.Fatal(kids, err)
		}
		var found []abi.Kid
		for i, topic := range topics {
			var keys struct{ Ts, Kid, Root octets }
			x.peer.must("derive", object{
				"es": es, "realm": header["realm"], "node": header["node"], "instance": header["instance"], "epoch": header["epoch"],
				"topic": octets(topic), "leaves": []uint32{}, "partition": 0,
			}, &keys)
			found = append(found, abi.Kid(keys.Kid))
			us := g.state.Node().ID()
			s := object{
				"realm": octets(g.realm[:]), "sharer": octets(g.member.Node[:]), "cred_serial": octets(g.member.Serial[:]),
				"recipient": octets(us[:]), "topic": octets(topic),
			}
			var made struct{ Key, Value octets }
			x.peer.must("make_share", object{"s": s, "part": parts[x.IntN(16)], "kem_pub": octets(g.own.KEMPub[:]), "ts": keys.Ts, "seed": g.memberSeed}, &made)
			got, err := g.consumer.ApplyShare(own, int64(2+i), made.Key, made.Value, g.roster, x.now)
			if err != nil || len(got) != 1 || got[0] != abi.Kid(keys.Kid) {
				t.Fatalf("topic %s: the share brings %x (%v)", topic, got, err)
			}
			root, err := g.consumer.Root(topic, got[0], x.now)
			x.must(err)
			if !bytes.Equal(root.Root[:], keys.Root) {
				t.Errorf("topic %s: we open another root", topic)
			}
		}
		rec, err := g.consumer.EpochRequest("billing", found, x.now.Add(time.Second))
		x.must(err)
		q, err := wire.ParseEpochRequest(rec.Value)
		x.must(err)
		var got read
		x.peer.must("read_request", object{"data": octets(rec.Value), "pub": octets(ours[:])}, &got)
		differ(t, "request", got.Fields, requestFields(q))
		if !bytes.Equal(got.Key, rec.Key) {
			t.Errorf("request: the peer's key is %x", []byte(got.Key))
		}
	}
}

func TestOddSharesAreJudgedAlike(t *testing.T) {
	x := newExchange(t)
	accepted := 0
	for range odd {
		producer, sharer := ed25519.NewKeyFromSeed(x.bytes(32)), ed25519.NewKeyFromSeed(x.bytes(32))
		at := x.Uint64N(1 << 41)
		k := wire.KeyShare{
			Realm: wire.RealmID(x.bytes(16)), Sharer: wire.NodeID(x.bytes(16)), Credential: wire.Serial(x.bytes(16)), Recipient: wire.NodeID(x.bytes(16)),
			Prekey: wire.PrekeyID(x.bytes(8)), HPKE: [wire.WrapSize]byte(x.bytes(wire.WrapSize)),
		}
		g := wire.Grant{Partition: uint8(x.IntN(17)), Header: wire.GrantHeader{
			Realm: k.Realm, Producer: wire.NodeID(x.bytes(16)), Credential: wire.Serial(x.bytes(16)), Instance: wire.InstanceID(x.bytes(16)),
			Epoch: x.Uint32(), Start: at, UseBy: at + 1 + x.Uint64N(1000), AuthoritySeq: x.Uint64(), RosterDigest: wire.Digest(x.bytes(32)),
		}}
		for range 1 + x.IntN(3) {
			g.Header.Topics = append(g.Header.Topics, wire.GrantTopic{Name: "t" + x.name(), Commit: wire.Digest(x.bytes(32))})
		}
		if slices.SortFunc(g.Header.Topics, func(a, b wire.GrantTopic) int { return strings.Compare(a.Name, b.Name) }); x.IntN(12) == 0 {
			slices.Reverse(g.Header.Topics)
		}
		k.Topic = g.Header.Topics[x.IntN(len(g.Header.Topics))].Name
		switch x.IntN(12) {
		case 0:
			k.Topic = x.name()
		case 1:
			g.Header.Realm[0] ^= 1
		case 2:
			g.Header.UseBy = x.near(at)
		case 3:
			g.Header.Flags = wire.GrantFlags(x.IntN(4))
		}
		copy(g.Signature[:], ed25519.Sign(producer, wire.SignatureInput(wire.TypeEpochGrant, g.Header.Realm, g.AppendBody(nil))))
		k.Proof = g.Proof()
		if x.IntN(12) == 0 {
			k.Proof.Signature[x.IntN(64)] ^= 1
		}
		data := x.signed(sharer, wire.TypeKeyShare, k.Realm, x.spoil(k.AppendBody(nil)))
		got, err := wire.ParseKeyShare(data)
		fields := object{}
		if err == nil {
			h := &got.Proof
			err = verified(sharer.Public().(ed25519.PublicKey), wire.TypeKeyShare, got.Realm, got.AppendBody(nil), got.Signature[:])
			if err == nil {
				err = verified(producer.Public().(ed25519.PublicKey), wire.TypeEpochGrant, h.Header.Realm, h.AppendBody(nil), h.Signature[:])
			}
			fields = shareFields(got)
		}
		args := object{"producer_pub": octets(producer.Public().(ed25519.PublicKey)), "sharer_pub": octets(sharer.Public().(ed25519.PublicKey))}
		if x.judge("read_share", args, data, fields, err) {
			accepted++
		}
	}
	x.both(accepted)
}

func TestOddRequestsAreJudgedAlike(t *testing.T) {
	x := newExchange(t)
	accepted := 0
	for range odd {
		key := ed25519.NewKeyFromSeed(x.bytes(32))
		pub := key.Public().(ed25519.PublicKey)
		q := wire.EpochRequest{
			Realm: wire.RealmID(x.bytes(16)), Node: wire.NodeID(x.bytes(16)), Credential: wire.Serial(x.bytes(16)), Group: x.name(), Created: x.Uint64(),
		}
		count := x.IntN(4)
		if x.IntN(8) == 0 {
			count = 255 + x.IntN(3)
		}
		for range count {
			q.Kids = append(q.Kids, [wire.KidSize]byte(x.bytes(wire.KidSize)))
		}
		if x.IntN(8) > 0 {
			slices.SortFunc(q.Kids, func(a, b [wire.KidSize]byte) int { return bytes.Compare(a[:], b[:]) })
		}
		if len(q.Kids) > 1 && x.IntN(12) == 0 {
			q.Kids[0] = q.Kids[1]
		}
		data := x.signed(key, wire.TypeEpochRequest, q.Realm, x.spoil(q.AppendBody(nil)))
		got, err := wire.ParseEpochRequest(data)
		fields := object{}
		if err == nil {
			err = verified(pub, wire.TypeEpochRequest, got.Realm, got.AppendBody(nil), got.Signature[:])
			fields = requestFields(got)
		}
		if x.judge("read_request", object{"pub": octets(pub)}, data, fields, err) {
			accepted++
		}
	}
	x.both(accepted)
}
