package adversary_test

import (
	"crypto/ed25519"
	"crypto/hpke"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/module/kernel"
)

// A loot is what keys open: values (indices into broker.values), and identities, in whose
// name the thief can sign.
type loot struct {
	values     map[int]bool
	identities map[wire.PublicKey]bool
}

func newLoot() *loot { return &loot{map[int]bool{}, map[wire.PublicKey]bool{}} }

func (l *loot) add(other *loot) {
	add(l.values, other.values)
	for id := range other.identities {
		l.identities[id] = true
	}
}

func add(to, from map[int]bool) {
	for i := range from {
		to[i] = true
	}
}

// A thief has every byte the broker ever stored. What a key opens does not change, so it is
// worked out once.
type thief struct {
	t       testing.TB
	broker  *broker
	byKid   map[abi.Kid][]int // of broker.values
	known   map[key]map[int]bool
	secrets map[[32]byte]*loot
	wraps   map[wire.PrekeyID][]sealed
}

// A sealed is a wrap in a grant, or a KeyShare.
type sealed struct {
	info  func(digestOfKey []byte) []byte
	hpke  []byte
	opens func(secret [32]byte) map[int]bool
}

func newThief(t testing.TB, b *broker) *thief {
	th := &thief{t: t, broker: b, byKid: map[abi.Kid][]int{}, known: map[key]map[int]bool{},
		secrets: map[[32]byte]*loot{}, wraps: map[wire.PrekeyID][]sealed{}}
	for i, v := range b.values {
		th.byKid[v.header.Kid] = append(th.byKid[v.header.Kid], i)
	}
	for _, g := range b.epochs {
		digest := g.header.Digest()
		for i := range g.wraps {
			w := &g.wraps[i]
			th.wraps[w.Prekey] = append(th.wraps[w.Prekey], sealed{
				info:  func(pub []byte) []byte { return fmt.Appendf(nil, "KX1 grant v1\x00%s%s%s", digest[:], w.Node[:], pub) },
				hpke:  w.HPKE[:],
				opens: func(es [32]byte) map[int]bool { return th.asEpochSecret(es, g.header) },
			})
		}
	}
	for _, k := range b.shares {
		digest := k.Proof.Header.Digest()
		th.wraps[k.Prekey] = append(th.wraps[k.Prekey], sealed{
			info: func(pub []byte) []byte {
				return fmt.Appendf(nil, "KX1 share v1\x00%s%s%s%s", digest[:], k.Recipient[:], pub, k.Sharer[:])
			},
			hpke: k.HPKE[:],
			opens: func(ts [32]byte) map[int]bool {
				return th.asTopicSecret(ts, &k.Proof.Header, &wire.GrantTopic{Name: k.Topic, Commit: k.Commit()})
			},
		})
	}
	return th
}

// opens is what a set of keys opens, each tried as everything that it may be.
func (th *thief) opens(keys map[key]bool) *loot {
	out := newLoot()
	for k := range keys {
		tree := th.asNode(k)
		add(out.values, tree)
		if k.level != 0 {
			continue
		}
		secret := th.asSecret(k.bytes)
		out.add(secret)
		if len(tree) == 0 && len(secret.values) == 0 && len(secret.identities) == 0 {
			k.level = abi.TreeDepth
			add(out.values, th.asNode(k))
		}
	}
	return out
}

// asNode tries a node of a tree on every value below it. A node whose place is not known is
// a root, or with level 24 the leaf of any value. One value of a kid stands for all: the
// tags of two trees that agree on one leaf agree on all.
func (th *thief) asNode(k key) map[int]bool {
	if out, ok := th.known[k]; ok {
		return out
	}
	out := map[int]bool{}
	for kid := range th.byKid {
		add(out, th.asNodeOf(k, kid))
	}
	th.known[k] = out
	return out
}

// asNodeOf tries a node on the values of one kid.
func (th *thief) asNodeOf(k key, kid abi.Kid) map[int]bool {
	out := map[int]bool{}
	loose := k.level == abi.TreeDepth && k.start == 0
	for _, i := range th.byKid[kid] {
		leaf := th.broker.values[i].header.Leaf
		if !loose && (leaf < k.start || leaf >= k.start+1<<(abi.TreeDepth-k.level)) {
			continue
		}
		candidate := k.bytes
		if !loose {
			candidate = k.below(leaf, abi.TreeDepth)
		}
		if th.tries(candidate, th.broker.values[i]) {
			out[i] = true
		} else if !loose {
			break
		}
	}
	return out
}

func (th *thief) tries(leaf [32]byte, v *value) bool {
	nonce := v.header.Nonce()
	pctx := wire.Pctx([]byte(v.topic), v.partition)
	aad := wire.PackedAAD((*[wire.PackedHeaderSize]byte)(v.bytes), &pctx)
	return kernel.Open(append([]byte{}, v.bytes[wire.PackedHeaderSize:]...), &leaf, &nonce, aad[:])
}

// asSecret tries 32 bytes as topic secret, epoch secret, prekey and identity (PROTOCOL.md
// §2.1, §2.3, §2.6).
func (th *thief) asSecret(s [32]byte) *loot {
	if out, ok := th.secrets[s]; ok {
		return out
	}
	out := newLoot()
	for _, g := range th.broker.epochs {
		add(out.values, th.asEpochSecret(s, g.header))
		for i := range g.header.Topics {
			add(out.values, th.asTopicSecret(s, g.header, &g.header.Topics[i]))
		}
	}
	private, err := hpke.MLKEM768X25519().NewPrivateKey(s[:])
	if err != nil {
		th.t.Fatal(err)
	}
	public := private.PublicKey().Bytes()
	digest := sha256.Sum256(public)
	for _, w := range th.wraps[wire.PrekeyIDOf(public)] {
		if secret, err := hpke.Open(private, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), w.info(digest[:]), w.hpke); err == nil {
			add(out.values, w.opens([32]byte(secret)))
		}
	}
	id := wire.PublicKey(ed25519.NewKeyFromSeed(s[:])[32:])
	if _, known := th.broker.identities[id]; known {
		out.identities[id] = true
	}
	th.secrets[s] = out
	return out
}

func (th *thief) asEpochSecret(es [32]byte, h *wire.GrantHeader) map[int]bool {
	out := map[int]bool{}
	for i := range h.Topics {
		t := &h.Topics[i]
		add(out, th.asTopicSecret(expand(es, "KX1 topic v1\x00", contextOf(h, t.Name)), h, t))
	}
	return out
}

func (th *thief) asTopicSecret(ts [32]byte, h *wire.GrantHeader, t *wire.GrantTopic) map[int]bool {
	if !commitsTo(ts, h, t) {
		return nil
	}
	return th.asNode(key{bytes: rootOf(ts, h, t)})
}

func commitsTo(ts [32]byte, h *wire.GrantHeader, t *wire.GrantTopic) bool {
	return wire.Digest(expand(ts, "KX1 commit v1\x00", contextOf(h, t.Name))) == t.Commit
}

func rootOf(ts [32]byte, h *wire.GrantHeader, t *wire.GrantTopic) [32]byte {
	return expand(ts, "KX1 root v1\x00", contextOf(h, t.Name)+string(t.Commit[:]))
}

// isSecretOf reports whether es is a grant's epoch secret.
func isSecretOf(es [32]byte, g *grant) bool {
	t := &g.header.Topics[0]
	return commitsTo(expand(es, "KX1 topic v1\x00", contextOf(g.header, t.Name)), g.header, t)
}

func contextOf(h *wire.GrantHeader, topic string) string {
	b := append(h.Realm[:], h.Producer[:]...)
	b = append(b, h.Instance[:]...)
	b = binary.BigEndian.AppendUint32(b, h.Epoch)
	b = binary.BigEndian.AppendUint16(b, uint16(len(topic)))
	return string(append(b, topic...))
}
