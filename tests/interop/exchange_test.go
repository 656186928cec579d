package interop

import (
	"bytes"
	"compress/gzip"
	"crypto/ed25519"
	cryptorand "crypto/rand"
	"encoding/binary"
	"encoding/pem"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
	"github.com/wasm-e2ee/wasm-e2ee/module/filter"
	"github.com/wasm-e2ee/wasm-e2ee/tests/reference"
)

var seedFlag = flag.Uint64("seed", 0, "seed of the inputs that are exchanged with the second implementation; 0 draws one")

// rounds of each exchange.
const rounds = 5

// An exchange draws inputs and gives them to the peer. What HPKE draws is not of the seed.
type exchange struct {
	*testing.T
	*peer
	*rand.Rand
	source *rand.ChaCha8
	now    time.Time
}

func newExchange(t *testing.T) *exchange {
	seed := *seedFlag
	if seed == 0 {
		var b [8]byte
		cryptorand.Read(b[:])
		seed = binary.BigEndian.Uint64(b[:])
	}
	t.Logf("seed %d; hint: go test ./tests/interop -run '%s' -seed %d", seed, t.Name(), seed)
	var key [32]byte
	binary.BigEndian.PutUint64(key[:], seed)
	source := rand.NewChaCha8(key)
	return &exchange{t, startPeer(t), rand.New(source), source, time.UnixMilli(1_700_000_000_000 + int64(source.Uint64()>>24))}
}

func (x *exchange) bytes(n int) octets {
	b := make([]byte, n)
	x.source.Read(b)
	return b
}

func (x *exchange) must(err error) {
	x.Helper()
	if err != nil {
		x.Fatal(err)
	}
}

// topics are names of which the first is granted and the others may be.
func (x *exchange) topics() []string {
	out := []string{fmt.Sprintf("orders-%x", x.bytes(1+x.IntN(100)))}
	for range x.IntN(4) {
		out = append(out, fmt.Sprintf("t%x.%d", x.bytes(x.IntN(20)), len(out)))
	}
	return out
}

// batch is a client's batch of random records, plain or in gzip.
func (x *exchange) batch() []byte {
	var records []kafka.Record
	count := 1 + x.IntN(70)
	for i := range count {
		r := kafka.Record{OffsetDelta: int32(i), TimestampDelta: int64(x.IntN(1000))}
		if x.IntN(3) > 0 {
			r.Key = x.bytes(x.IntN(20))
		}
		if x.IntN(5) > 0 {
			r.Value = x.bytes(x.IntN(200))
		}
		records = append(records, r)
	}
	h := kafka.BatchHeader{
		PartitionLeaderEpoch: -1, LastOffsetDelta: int32(count - 1), NumRecords: int32(count),
		BaseTimestamp: x.now.UnixMilli(), MaxTimestamp: x.now.UnixMilli() + int64(x.IntN(5000)), ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1,
	}
	section := reference.Section(records...)
	if x.IntN(2) == 0 {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		w.Write(section)
		w.Close()
		section, h.Attributes = b.Bytes(), h.Attributes|int16(kafka.CodecGzip)
	}
	return reference.Join(h, section)
}

// identity derives from a seed what the peer makes of it.
func (x *exchange) identity(seed octets) (pub wire.PublicKey, node wire.NodeID, realm wire.RealmID) {
	x.Helper()
	var out struct{ Pub, Node, Realm octets }
	x.peer.must("identity", object{"seed": seed}, &out)
	pub = wire.PublicKey(out.Pub)
	node, realm = wire.NodeID(out.Node), wire.RealmID(out.Realm)
	if !bytes.Equal(pub[:], ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey)) || node != wire.NodeIDOf(pub) || realm != wire.RealmIDOf(pub) {
		x.Fatalf("identity of %x: the peer derives %x, %v, %v", []byte(seed), pub, node, realm)
	}
	return pub, node, realm
}

// csr has the peer make and sign a signing request file.
func (x *exchange) csr(c wire.CSR, seed octets) []byte {
	x.Helper()
	var made octets
	x.peer.must("make_csr", object{"c": csrFields(&c), "seed": seed}, &made)
	return pem.EncodeToMemory(&pem.Block{Type: "KX1 SIGNING REQUEST", Bytes: made})
}

// prekey has the peer make and sign a bundle, and reads it.
func (x *exchange) prekey(kemSeed, signer octets, c *wire.Credential, interest []wire.Pattern) *wire.PrekeyBundle {
	x.Helper()
	var key struct{ Pub, ID octets }
	x.peer.must("prekey", object{"seed": kemSeed}, &key)
	if id := wire.PrekeyIDOf(key.Pub); !bytes.Equal(id[:], key.ID) {
		x.Errorf("prekey id: the peer derives %x, we derive %v", []byte(key.ID), id)
	}
	at := uint64(x.now.UnixMilli())
	fields := object{
		"realm": octets(c.Realm[:]), "node": octets(c.Node[:]), "cred_serial": octets(c.Serial[:]), "generation": at, "created": at,
		"not_after": at + uint64(x.IntN(1+int(c.OfflineAllow)*1000)), "interest": patternFields(interest), "kem_pub": key.Pub,
	}
	var made octets
	x.peer.must("make_bundle", object{"b": fields, "seed": signer}, &made)
	b, err := wire.ParsePrekeyBundle(made)
	x.must(err)
	want := wire.PrekeyBundle{
		Realm: c.Realm, Node: c.Node, Credential: c.Serial, Generation: at, Created: at, NotAfter: fields["not_after"].(uint64),
		Interest: interest, KEMPub: [wire.KEMPublicSize]byte(key.Pub), Signature: b.Signature,
	}
	if !bytes.Equal(want.Append(nil), made) {
		x.Errorf("bundle: the peer writes\n%x\nwe write\n%x", []byte(made), want.Append(nil))
	}
	return b
}

// credential has the peer make and sign a credential, and reads it.
func (x *exchange) credential(c wire.Credential, signer octets) *wire.Credential {
	x.Helper()
	c.Serial = wire.Serial(x.bytes(16))
	c.NotBefore = uint64(x.now.UnixMilli() - x.Int64N(1e6))
	c.NotAfter = uint64(x.now.UnixMilli() + 1e9)
	c.OfflineAllow = 72 * 3600
	var made octets
	x.peer.must("make_credential", object{"c": credentialFields(&c), "seed": signer}, &made)
	got, err := wire.ParseCredential(made)
	x.must(err)
	c.Signature = got.Signature
	if !bytes.Equal(c.Append(nil), made) {
		x.Errorf("credential: the peer writes\n%x\nwe write\n%x", []byte(made), c.Append(nil))
	}
	return got
}

func newFilter(x *exchange) *filter.Filter {
	x.Helper()
	f := filter.New(cryptorand.Reader)
	if s := f.Configure(abi.Config{MaxDecompressed: 1 << 20}); s != abi.StatusOK {
		x.Fatal(s)
	}
	return f
}

// TestGoSpeaksToPython: a realm, an issuer and a producer of ours; the node that asks for a
// credential, publishes a bundle and reads is the peer's.
func TestGoSpeaksToPython(t *testing.T) {
	x := newExchange(t)
	timing := keyring.DefaultTiming()
	for range rounds {
		root, err := keyring.NewRealm(x.source)
		x.must(err)
		issuer, err := root.CertifyIssuer(x.source, x.now.Add(-time.Hour), x.now.Add(365*24*time.Hour))
		x.must(err)
		valid := keyring.Validity{NotBefore: x.now.Add(-time.Minute), NotAfter: x.now.Add(9 * 24 * time.Hour)}
		topics := x.topics()

		state, err := keyring.NewState(x.source)
		x.must(err)
		all := []wire.Pattern{{Prefix: true}}
		file, err := issuer.Issue(x.source, state.Node().CSR(keyring.Attributes{Roles: wire.RoleProduce, Topics: all}), nil, valid)
		x.must(err)
		x.must(state.Node().Install(file, x.now))
		roster := keyring.NewRoster(state, timing)
		for _, rec := range state.Node().RosterRecords() {
			x.must(roster.Apply(rec.Key, rec.Value, x.now))
		}

		// Two nodes of the peer's, so that the recipients have an order.
		var nodes []wire.NodeID
		var kemSeeds []octets
		for range 2 {
			seed, kemSeed := x.bytes(32), x.bytes(32)
			pub, node, _ := x.identity(seed)
			csr := wire.CSR{Subject: pub, OfflineAllow: uint32(259_200 + x.IntN(1000)), Roles: wire.RoleConsume, Topics: all, Groups: []wire.Pattern{{Name: "billing"}}}
			file, err := issuer.Issue(x.source, x.csr(csr, seed), nil, valid)
			x.must(err)
			_, chain, err := keyring.ParseCredentialFile(file)
			x.must(err)
			for _, c := range chain {
				var got read
				x.peer.must("read_credential", object{"data": octets(c.Append(nil))}, &got)
				differ(x, "credential", got.Fields, credentialFields(c))
				if !bytes.Equal(got.Key, c.Key()) {
					x.Errorf("credential: the peer's key is %x", []byte(got.Key))
				}
			}
			x.must(roster.Apply(chain[0].Key(), chain[0].Append(nil), x.now))
			bundle := x.prekey(kemSeed, seed, chain[0], []wire.Pattern{{Prefix: true, Name: topics[0][:3]}, {Prefix: true, Name: "t"}})
			x.must(roster.Apply(bundle.Key(), bundle.Append(nil), x.now))
			nodes, kemSeeds = append(nodes, node), append(kemSeeds, kemSeed)
		}

		producer, err := keyring.NewProducer(state.Node(), timing, nil, x.source)
		x.must(err)
		drafts, refused, err := producer.Prepare(topics, roster, x.now)
		if err != nil || len(refused) != 0 || len(drafts) != 1 {
			t.Fatal(drafts, refused, err)
		}
		x.must(producer.Activate(drafts[0], x.now, x.now))
		identity := state.Node().PublicKey()
		var opened struct {
			read
			Keys []map[string]octets
		}
		for i, node := range nodes {
			rec := drafts[0].Records[keyring.GrantPartition(node)]
			x.peer.must("open_grant", object{
				"part": octets(rec.Value), "producer_pub": octets(identity[:]), "node": octets(node[:]), "seeds": []octets{x.bytes(32), kemSeeds[i]},
			}, &opened)
			g, err := wire.ParseGrant(rec.Value)
			x.must(err)
			differ(x, "grant", opened.Fields, grantFields(g))
			if !bytes.Equal(opened.Key, rec.Key) {
				x.Errorf("grant: the peer's key is %x, ours %x", []byte(opened.Key), rec.Key)
			}
		}
		var want struct{ Digest octets }
		x.peer.must("roster_digest", object{"recipients": recipients(nodes, kemSeeds, x)}, &want.Digest)
		g, _ := wire.ParseGrant(drafts[0].Records[0].Value)
		if !bytes.Equal(g.Header.RosterDigest[:], want.Digest) {
			x.Errorf("roster digest: the peer computes %x, ours is %v", []byte(want.Digest), g.Header.RosterDigest)
		}

		f := newFilter(x)
		for _, topic := range topics {
			lease, err := producer.Lease(topic, x.now)
			x.must(err)
			if s := f.InstallLease(&lease); s != abi.StatusOK {
				t.Fatal(s)
			}
			partition, batch := x.Int32N(100), x.batch()
			buf := make([]byte, 2*len(batch)+1000)
			r, s := f.SealBatch(buf, copy(buf, batch), []byte(topic), partition, uint64(x.now.UnixMilli()))
			if s != abi.StatusOK {
				t.Fatal(s)
			}
			args := object{"batch": octets(buf[:r.Length]), "roots": opened.Keys, "topic": octets(topic), "partition": partition, "cap": 1 << 20}
			var back octets
			x.peer.must("open_batch", args, &back)
			if !bytes.Equal(back, batch) {
				x.Errorf("the peer opens\n%x\nto\n%x\nnot\n%x", buf[:r.Length], []byte(back), batch)
			}
			args["partition"] = partition + 1
			if refused := x.peer.ask("open_batch", args, nil); refused != "unauthentic" {
				x.Errorf("at another partition: %q", refused)
			}
		}
	}
}

// recipients are nodes with their prekeys, as the peer wants them.
func recipients(nodes []wire.NodeID, kemSeeds []octets, x *exchange) (out []object) {
	for i := range nodes {
		var key struct{ Pub, ID octets }
		x.peer.must("prekey", object{"seed": kemSeeds[i]}, &key)
		out = append(out, object{"node": octets(nodes[i][:]), "prekey_id": key.ID, "kem_pub": key.Pub})
	}
	return out
}

// TestPythonSpeaksToGo: the realm, the issuer and the producer are the peer's; the node that
// asks for a credential, publishes a bundle and reads is ours.
func TestPythonSpeaksToGo(t *testing.T) {
	x := newExchange(t)
	timing := keyring.DefaultTiming()
	for range rounds {
		rootSeed, issuerSeed, producerSeed := x.bytes(32), x.bytes(32), x.bytes(32)
		rootPub, _, realm := x.identity(rootSeed)
		issuerPub, issuerNode, _ := x.identity(issuerSeed)
		producerPub, producerNode, _ := x.identity(producerSeed)
		all := []wire.Pattern{{Prefix: true}}
		issuer := x.credential(wire.Credential{Realm: realm, Node: issuerNode, Subject: issuerPub, Roles: wire.RoleIssuer, Issuer: rootPub}, rootSeed)
		x.now = x.now.Add(time.Millisecond)

		// Our node asks; the peer reads that, and issues.
		state, err := keyring.NewState(x.source)
		x.must(err)
		block, _ := pem.Decode(state.Node().CSR(keyring.Attributes{
			Roles: wire.RoleConsume, Topics: []wire.Pattern{{Name: "x"}, {Prefix: true}}, Groups: []wire.Pattern{{Name: "billing"}}, OfflineAllow: time.Hour,
		}))
		subject := state.Node().PublicKey()
		var csr read
		x.peer.must("read_csr", object{"data": octets(block.Bytes)}, &csr)
		differ(x, "signing request", csr.Fields, object{
			"id_pub": octets(subject[:]), "offline_allow_s": 3600, "roles": uint16(wire.RoleConsume),
			"topics": patternFields([]wire.Pattern{{Name: "x"}, {Prefix: true}}), "groups": patternFields([]wire.Pattern{{Name: "billing"}}),
		})
		own := x.credential(wire.Credential{
			Realm: realm, Node: state.Node().ID(), Subject: subject, Roles: wire.RoleConsume, Topics: all, Groups: []wire.Pattern{{Name: "billing"}}, Issuer: issuerPub,
		}, issuerSeed)
		file := append(append([]byte{}, rootPub[:]...), 2)
		for _, c := range []*wire.Credential{own, issuer} {
			b := c.Append(nil)
			file = append(binary.BigEndian.AppendUint16(file, uint16(len(b))), b...)
		}
		x.must(state.Node().Install(pem.EncodeToMemory(&pem.Block{Type: "KX1 CREDENTIAL", Bytes: file}), x.now))
		sender := x.credential(wire.Credential{Realm: realm, Node: producerNode, Subject: producerPub, Roles: wire.RoleProduce, Topics: all, Issuer: issuerPub}, issuerSeed)
		roster, consumer := keyring.NewRoster(state, timing), keyring.NewConsumer(state, timing, x.source)
		for _, c := range []*wire.Credential{issuer, own, sender} {
			x.must(roster.Apply(c.Key(), c.Append(nil), x.now))
		}

		// Our bundle, read by the peer, and a grant for us and one more.
		rec, err := consumer.NewPrekey(x.now)
		x.must(err)
		b, err := wire.ParsePrekeyBundle(rec.Value)
		x.must(err)
		var bundle read
		x.peer.must("read_bundle", object{"data": octets(rec.Value), "pub": octets(subject[:])}, &bundle)
		differ(x, "bundle", bundle.Fields, bundleFields(b))
		if !bytes.Equal(bundle.Key, rec.Key) {
			x.Errorf("bundle: the peer's key is %x", []byte(bundle.Key))
		}
		prekey := wire.PrekeyIDOf(b.KEMPub[:])
		us := object{"node": octets(b.Node[:]), "prekey_id": octets(prekey[:]), "kem_pub": octets(b.KEMPub[:])}
		_, other, _ := x.identity(x.bytes(32))
		topics := x.topics()
		named := []octets{}
		for _, topic := range topics {
			named = append(named, octets(topic))
		}
		at := uint64(x.now.UnixMilli())
		header := object{
			"realm": octets(realm[:]), "node": octets(producerNode[:]), "cred_serial": octets(sender.Serial[:]), "instance": x.bytes(16),
			"epoch": x.Uint32(), "start": at, "use_by": at + 1 + x.Uint64N(1e6), "flags": 0, "authority_seq": x.Uint64(), "prev": x.bytes(32), "topics": named,
		}
		es := x.bytes(32)
		var grant struct {
			Key   octets
			Parts []octets
		}
		x.peer.must("make_grant", object{
			"header": header, "es": es, "seed": producerSeed,
			"recipients": append(recipients([]wire.NodeID{other}, []octets{x.bytes(32)}, x), us),
		}, &grant)
		for i, part := range grant.Parts {
			g, err := wire.ParseGrant(part)
			x.must(err)
			if !bytes.Equal(g.Append(nil), part) || int(g.Partition) != i {
				x.Errorf("part %d is not what we would write", i)
			}
		}
		own16 := state.Node().GrantPartition()
		kids, err := consumer.ApplyGrant(own16, 0, grant.Key, grant.Parts[own16], roster, x.now)
		x.must(err)
		if len(kids) != len(topics) {
			t.Fatalf("%d kids of %d topics", len(kids), len(topics))
		}

		// What the peer seals under it.
		f := newFilter(x)
		for _, topic := range topics {
			leaf := x.Uint32N(1 << 24)
			var keys struct {
				Kid, Root, Pctx octets
				Leaves          []octets
			}
			partition := x.Int32N(100)
			x.peer.must("derive", object{
				"es": es, "realm": header["realm"], "node": header["node"], "instance": header["instance"], "epoch": header["epoch"],
				"topic": octets(topic), "leaves": []uint32{leaf}, "partition": partition,
			}, &keys)
			root, err := consumer.Root(topic, abi.Kid(keys.Kid), x.now)
			x.must(err)
			key := reference.Node(root.Root, leaf, abi.TreeDepth)
			if !bytes.Equal(root.Root[:], keys.Root) || !bytes.Equal(key[:], keys.Leaves[0]) {
				x.Errorf("topic %s: the peer derives another root or leaf", topic)
			}
			if s := f.InstallRoot(&root); s != abi.StatusOK {
				t.Fatal(s)
			}
			batch := x.batch()
			codecs := []kafka.Codec{kafka.CodecNone, kafka.CodecGzip, kafka.CodecLZ4, kafka.CodecZstd}
			var sealed octets
			x.peer.must("seal_batch", object{
				"batch": octets(batch), "root": keys.Root, "kid": keys.Kid, "leaf": leaf, "salt": x.bytes(8),
				"topic": octets(topic), "partition": partition, "outer": codecs[x.IntN(len(codecs))],
			}, &sealed)
			buf := make([]byte, len(sealed)+2*len(batch)+100_000)
			r, s := f.OpenBatch(buf, copy(buf, sealed), []byte(topic), partition)
			if s != abi.StatusOK || !bytes.Equal(buf[:r.Length], batch) {
				x.Errorf("%v: we open\n%x\nto\n%x\nnot\n%x", s, []byte(sealed), buf[:r.Length], batch)
			}
			if _, s := f.OpenBatch(buf, copy(buf, sealed), []byte(topic), partition+1); s != abi.StatusUnauthentic {
				x.Errorf("at another partition: %v", s)
			}
		}
	}
}
