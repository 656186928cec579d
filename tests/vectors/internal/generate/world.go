package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/hpke"
	"crypto/sha256"
	"encoding/binary"
	"log"
	"slices"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/tests/vectors"
)

const (
	minute = uint64(60_000)
	day    = 24 * 60 * minute
)

// A key is an Ed25519 key from a seed of one repeated byte.
type key struct{ ed25519.PrivateKey }

func keyOf(b byte) key { return key{ed25519.NewKeyFromSeed(bytes.Repeat([]byte{b}, 32))} }

func (k key) public() wire.PublicKey { return wire.PublicKey(k.Public().(ed25519.PublicKey)) }

func (k key) node() wire.NodeID { return wire.NodeIDOf(k.public()) }

func (k key) sign(t wire.Type, realm wire.RealmID, body []byte) (sig [wire.SignatureSize]byte) {
	copy(sig[:], ed25519.Sign(k.PrivateKey, wire.SignatureInput(t, realm, body)))
	return sig
}

// The cast. Times are relative to now, the moment of the record that is judged.
var (
	root     = keyOf(0x01)
	issuer   = keyOf(0x02)
	reader   = keyOf(0x03) // consumes orders, in group billing
	producer = keyOf(0x04) // produces orders
	peer     = keyOf(0x05) // consumes orders too
	stranger = keyOf(0x06) // has no credential
	others   = keyOf(0x07) // the root of another realm
	realm    = wire.RealmIDOf(root.public())
)

// serial names a credential by one byte.
func serial(b byte) (s wire.Serial) { return wire.Serial(bytes.Repeat([]byte{b}, len(s))) }

// credential is the one of k, signed by the realm's issuer after edit.
func credential(k key, roles wire.Roles, edit func(c *wire.Credential)) *wire.Credential {
	c := &wire.Credential{
		Realm: realm, Node: k.node(), Serial: serial(k.Seed()[0]), Subject: k.public(),
		NotBefore: now - 10*day, NotAfter: now + 8*day, OfflineAllow: 72 * 3600, Roles: roles,
		Topics: []wire.Pattern{{Name: "orders"}}, Issuer: issuer.public(),
	}
	if roles.Has(wire.RoleConsume) {
		c.Groups = []wire.Pattern{{Name: "billing"}}
	}
	if edit != nil {
		edit(c)
	}
	signer := issuer
	if c.Issuer == root.public() {
		signer = root
	}
	c.Signature = signer.sign(wire.TypeCredential, c.Realm, c.AppendBody(nil))
	return c
}

// certificate is the issuer's own credential.
func certificate(edit func(c *wire.Credential)) *wire.Credential {
	return credential(issuer, wire.RoleIssuer, func(c *wire.Credential) {
		c.Issuer, c.Topics, c.NotBefore, c.NotAfter = root.public(), nil, now-30*day, now+300*day
		if edit != nil {
			edit(c)
		}
	})
}

// prekeySeed is the X-Wing seed of a node's one prekey.
func prekeySeed(k key) []byte { return bytes.Repeat([]byte{k.Seed()[0] | 0x80}, 32) }

func kemPublic(seed []byte) []byte {
	k, err := hpke.MLKEM768X25519().NewPrivateKey(seed)
	must(0, err)
	return k.PublicKey().Bytes()
}

// prekeyAt is when everybody's prekey was made.
const prekeyAt = now - 2*minute

// bundle publishes k's prekey under its credential.
func bundle(k key, edit func(b *wire.PrekeyBundle)) *wire.PrekeyBundle {
	b := &wire.PrekeyBundle{
		Realm: realm, Node: k.node(), Credential: serial(k.Seed()[0]), Generation: prekeyAt, Created: prekeyAt, NotAfter: prekeyAt + 3*day,
		KEMPub: [wire.KEMPublicSize]byte(kemPublic(prekeySeed(k))),
	}
	if edit != nil {
		edit(b)
	}
	b.Signature = k.sign(wire.TypePrekeyBundle, b.Realm, b.AppendBody(nil))
	return b
}

// es is the epoch secret of every grant.
var es = bytes.Repeat([]byte{0xE5}, 32)

// derived is a topic secret and its commitment, by PROTOCOL.md §2.3.
func derived(h *wire.GrantHeader, topic string) (ts, commit []byte) {
	context := slices.Concat(h.Realm[:], h.Producer[:], h.Instance[:], binary.BigEndian.AppendUint32(nil, h.Epoch),
		binary.BigEndian.AppendUint16(nil, uint16(len(topic))), []byte(topic))
	ts, err := hkdf.Expand(sha256.New, es, "KX1 topic v1\x00"+string(context), 32)
	must(0, err)
	commit, err = hkdf.Expand(sha256.New, ts, "KX1 commit v1\x00"+string(context), 32)
	must(0, err)
	return ts, commit
}

func kidOf(commit []byte) []byte {
	d := sha256.Sum256(append([]byte("KX1 kid v1\x00"), commit...))
	return d[:8]
}

// A drafting edits a grant before what covers the edited part is made.
type drafting struct {
	header func(h *wire.GrantHeader)
	secret []byte // wrapped instead of es
	part   func(g *wire.Grant)
	signer *key
	nodes  []key // recipients; the reader and the peer without
}

// header is what the producer announces.
func grantHeader(edit func(h *wire.GrantHeader)) wire.GrantHeader {
	h := wire.GrantHeader{
		Realm: realm, Producer: producer.node(), Credential: serial(producer.Seed()[0]), Instance: wire.InstanceID(bytes.Repeat([]byte{0x11}, 16)),
		Start: now - minute, UseBy: now - minute + 210_000,
		Topics: []wire.GrantTopic{{Name: "orders"}},
	}
	if edit != nil {
		edit(&h)
	}
	for i := range h.Topics {
		t := &h.Topics[i]
		if t.Commit == (wire.Digest{}) {
			_, commit := derived(&h, t.Name)
			t.Commit = wire.Digest(commit)
		}
	}
	return h
}

// grant is the part of a grant for the reader's partition.
func grant(d drafting) *wire.Grant {
	g := &wire.Grant{Header: grantHeader(d.header), Partition: partitionOf(reader)}
	if d.nodes == nil {
		d.nodes = []key{reader, peer}
	}
	if d.secret == nil {
		d.secret = es
	}
	for _, k := range d.nodes {
		if partitionOf(k) == g.Partition {
			g.Wraps = append(g.Wraps, wrap(&g.Header, k, d.secret))
		}
	}
	slices.SortFunc(g.Wraps, func(a, b wire.Wrap) int { return bytes.Compare(a.Node[:], b.Node[:]) })
	if d.part != nil {
		d.part(g)
	}
	signer := producer
	if d.signer != nil {
		signer = *d.signer
	}
	g.Signature = signer.sign(wire.TypeEpochGrant, g.Header.Realm, g.AppendBody(nil))
	return g
}

func partitionOf(k key) uint8 { return k.node()[3] % 16 }

// wrap seals a secret to k's prekey under a header.
func wrap(h *wire.GrantHeader, k key, secret []byte) wire.Wrap {
	digest, node, kem := h.Digest(), k.node(), kemPublic(prekeySeed(k))
	sum := sha256.Sum256(kem)
	info := slices.Concat([]byte("KX1 grant v1\x00"), digest[:], node[:], sum[:])
	w := wire.Wrap{Node: node, Prekey: wire.PrekeyIDOf(kem)}
	copy(w.HPKE[:], sealTo(kem, info, secret))
	return w
}

func sealTo(kem, info, secret []byte) []byte {
	pub, err := hpke.MLKEM768X25519().NewPublicKey(kem)
	must(0, err)
	b, err := hpke.Seal(pub, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), info, secret)
	must(0, err)
	return b
}

// A message is what stands in a control topic.
type message interface {
	Key() []byte
	Append([]byte) []byte
}

func rosterRecord(m message, at uint64) vectors.ControlRecord {
	return vectors.ControlRecord{Topic: "roster", Key: m.Key(), Value: m.Append(nil), Now: at}
}

func grantRecord(g *wire.Grant, at uint64) vectors.ControlRecord {
	return vectors.ControlRecord{Topic: "grants", Partition: int32(g.Partition), Key: g.Header.Key(), Value: g.Append(nil), Now: at}
}

// members are the credentials of producer and peer, with the issuer's, as everybody has read
// them.
func members() []vectors.ControlRecord {
	return []vectors.ControlRecord{
		rosterRecord(certificate(nil), now-minute),
		rosterRecord(credential(producer, wire.RoleProduce, nil), now-minute),
		rosterRecord(credential(peer, wire.RoleConsume|wire.RoleShare, nil), now-minute),
	}
}

// controls is a corpus of control records by name.
type controls map[string]vectors.Control

// judge adds what the reader makes of a record after what it read before.
func (c controls) judge(name, refusal, comment string, before []vectors.ControlRecord, record vectors.ControlRecord, want vectors.ControlWant) {
	c.judgeAs(nil, name, refusal, comment, before, record, want)
}

// judgeAs is judge by a reader whose credential was edited.
func (c controls) judgeAs(edit func(c *wire.Credential), name, refusal, comment string, before []vectors.ControlRecord, record vectors.ControlRecord, want vectors.ControlWant) {
	if _, ok := c[name]; ok {
		log.Fatalf("control vector %s is there twice", name)
	}
	own := credential(reader, wire.RoleConsume|wire.RoleShare, edit)
	rootKey := root.public()
	c[name] = vectors.Control{
		Comment: comment, Refusal: refusal,
		Identity: reader.Seed(), Root: rootKey[:], Chain: []vectors.Bytes{own.Append(nil), certificate(nil).Append(nil)},
		PrekeySeed: prekeySeed(reader), PrekeyAt: prekeyAt,
		Before: slices.Clone(before), Record: record, Want: want,
	}
}

// after says of a vector that the group had read so far by then.
func (c controls) after(name string, progress ...vectors.ControlProgress) {
	v := c[name]
	v.Progress = progress
	c[name] = v
}

// refused adds a record that is refused for one reason.
func (c controls) refused(name, comment string, before []vectors.ControlRecord, record vectors.ControlRecord, kind vectors.Kind) {
	c.judge(name, name, comment, before, record, vectors.ControlWant{Kind: kind})
}

// nodes are node ids in their order.
func nodes(keys ...key) []vectors.Bytes {
	var out []vectors.Bytes
	for _, k := range keys {
		id := k.node()
		out = append(out, id[:])
	}
	slices.SortFunc(out, func(a, b vectors.Bytes) int { return bytes.Compare(a, b) })
	return out
}
