package adversary_test

import (
	"crypto/hkdf"
	"crypto/hpke"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/module/kernel"
	"github.com/wasm-e2ee/wasm-e2ee/tests/reference"
)

// A key is 32 bytes that were found in a node's memory. Where they stood among a tree's
// nodes with their place beside them, that is known: level 0 and leaf 0 otherwise.
type key struct {
	bytes [32]byte
	start uint32
	level int
}

// dump is everything of 32 bytes that can be reached from values of this module's types:
// whatever a struct holds, in whatever field, is found, also what was added yesterday.
func dump(values ...any) map[key]bool {
	d := dumper{found: map[key]bool{}, seen: map[uintptr]bool{}}
	for _, v := range values {
		d.walk(reflect.ValueOf(v))
	}
	delete(d.found, key{})
	return d.found
}

type dumper struct {
	found map[key]bool
	seen  map[uintptr]bool
}

const module = "github.com/wasm-e2ee/wasm-e2ee/"

func (d *dumper) walk(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() || d.seen[v.Pointer()] || !strings.HasPrefix(v.Type().Elem().PkgPath(), module) {
			return
		}
		d.seen[v.Pointer()] = true
		d.walk(v.Elem())
	case reflect.Struct:
		if p := v.Type().PkgPath(); p != "" && !strings.HasPrefix(p, module) {
			return
		}
		if d.subtree(v) || d.path(v) {
			return
		}
		for i := range v.NumField() {
			d.walk(v.Field(i))
		}
	case reflect.Map:
		for it := v.MapRange(); it.Next(); {
			d.walk(it.Key())
			d.walk(it.Value())
		}
	case reflect.Array, reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			if v.Len() == 32 {
				d.add(v, 0, 0)
			}
			return
		}
		if !plain(v.Type().Elem().Kind()) {
			for i := range v.Len() {
				d.walk(v.Index(i))
			}
		}
	}
}

func plain(k reflect.Kind) bool {
	return k >= reflect.Bool && k <= reflect.Complex128 || k == reflect.String
}

func (d *dumper) add(v reflect.Value, start uint32, level int) {
	k := key{start: start, level: level}
	for i := range k.bytes {
		k.bytes[i] = byte(v.Index(i).Uint())
	}
	if k.bytes != [32]byte{} {
		d.found[k] = true
	}
}

// subtree reads a node that stands with its place, as the producer's stacks keep them.
// Places beyond the end of a stack are read like any other.
func (d *dumper) subtree(v reflect.Value) bool {
	start, level, node := v.FieldByName("start"), v.FieldByName("level"), v.FieldByName("node")
	if !start.IsValid() || !level.IsValid() || !node.IsValid() {
		return false
	}
	d.add(node, uint32(start.Uint()), int(level.Uint()))
	return true
}

// path reads the way from a root to a leaf, as consumers' data planes keep them. What
// derives from the root at its beginning adds nothing.
func (d *dumper) path(v reflect.Value) bool {
	nodes, last := v.FieldByName("path"), v.FieldByName("last")
	if !nodes.IsValid() || !last.IsValid() {
		return false
	}
	before := key{}
	for i := range nodes.Len() {
		k := key{level: i}
		for j := range k.bytes {
			k.bytes[j] = byte(nodes.Index(i).Index(j).Uint())
		}
		if k.bytes == [32]byte{} {
			break
		}
		leaf := uint32(last.Uint())
		k.start = leaf &^ (1<<(abi.TreeDepth-i) - 1)
		if i == 0 || before.below(leaf, i) != k.bytes {
			d.found[k] = true
		}
		before = k
	}
	return true
}

// below is the node at a level on the way from k to a leaf.
func (k *key) below(leaf uint32, level int) [32]byte {
	return reference.Node(k.bytes, leaf<<k.level&(1<<abi.TreeDepth-1), level-k.level)
}

// A thief has every byte the broker ever stored. What a key opens does not change, so it is
// worked out once.
type thief struct {
	t       testing.TB
	broker  *broker
	byKid   map[abi.Kid][]int // of broker.values
	known   map[key]map[int]bool
	secrets map[[32]byte]map[int]bool
	wraps   map[wire.PrekeyID][]wrapped
}

type wrapped struct {
	grant *grant
	wrap  *wire.Wrap
}

func newThief(t testing.TB, b *broker) *thief {
	th := &thief{t: t, broker: b, byKid: map[abi.Kid][]int{}, known: map[key]map[int]bool{},
		secrets: map[[32]byte]map[int]bool{}, wraps: map[wire.PrekeyID][]wrapped{}}
	for i, v := range b.values {
		th.byKid[v.header.Kid] = append(th.byKid[v.header.Kid], i)
	}
	for _, g := range b.epochs {
		for i := range g.wraps {
			w := &g.wraps[i]
			th.wraps[w.Prekey] = append(th.wraps[w.Prekey], wrapped{g, w})
		}
	}
	return th
}

// opens is what a set of keys opens, each tried as everything that it may be.
func (th *thief) opens(keys map[key]bool) map[int]bool {
	out := map[int]bool{}
	for k := range keys {
		tree := th.asNode(k)
		add(out, tree)
		if k.level != 0 {
			continue
		}
		secret := th.asSecret(k.bytes)
		add(out, secret)
		if len(tree) == 0 && len(secret) == 0 {
			k.level = abi.TreeDepth
			add(out, th.asNode(k))
		}
	}
	return out
}

func add(to, from map[int]bool) {
	for i := range from {
		to[i] = true
	}
}

// asNode tries a node of a tree on every value below it. A node whose place is not known is
// a root, or with level 24 the leaf of any value. One value of a kid stands for all: the
// tags of two trees that agree on one leaf agree on all.
func (th *thief) asNode(k key) map[int]bool {
	if out, ok := th.known[k]; ok {
		return out
	}
	out := map[int]bool{}
	loose := k.level == abi.TreeDepth && k.start == 0
	for _, values := range th.byKid {
		for _, i := range values {
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
	}
	th.known[k] = out
	return out
}

func (th *thief) tries(leaf [32]byte, v *value) bool {
	nonce := v.header.Nonce()
	pctx := wire.Pctx([]byte(v.topic), v.partition)
	aad := wire.PackedAAD((*[wire.PackedHeaderSize]byte)(v.bytes), &pctx)
	return kernel.Open(append([]byte{}, v.bytes[wire.PackedHeaderSize:]...), &leaf, &nonce, aad[:])
}

// asSecret tries 32 bytes as topic secret, epoch secret and prekey (PROTOCOL.md §2.3, §2.6).
func (th *thief) asSecret(s [32]byte) map[int]bool {
	if out, ok := th.secrets[s]; ok {
		return out
	}
	out := map[int]bool{}
	for _, g := range th.broker.epochs {
		add(out, th.asEpochSecret(s, g))
		for i := range g.header.Topics {
			add(out, th.asTopicSecret(s, g, &g.header.Topics[i]))
		}
	}
	private, err := hpke.MLKEM768X25519().NewPrivateKey(s[:])
	if err != nil {
		th.t.Fatal(err)
	}
	public := private.PublicKey().Bytes()
	digest := sha256.Sum256(public)
	for _, w := range th.wraps[wire.PrekeyIDOf(public)] {
		header := w.grant.header.Digest()
		info := fmt.Appendf(nil, "KX1 grant v1\x00%s%s%s", header[:], w.wrap.Node[:], digest[:])
		es, err := hpke.Open(private, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), info, w.wrap.HPKE[:])
		if err == nil {
			add(out, th.asEpochSecret([32]byte(es), w.grant))
		}
	}
	th.secrets[s] = out
	return out
}

func (th *thief) asEpochSecret(es [32]byte, g *grant) map[int]bool {
	out := map[int]bool{}
	for i := range g.header.Topics {
		t := &g.header.Topics[i]
		add(out, th.asTopicSecret(th.expand(es, "KX1 topic v1\x00", contextOf(g.header, t.Name)), g, t))
	}
	return out
}

func (th *thief) asTopicSecret(ts [32]byte, g *grant, t *wire.GrantTopic) map[int]bool {
	context := contextOf(g.header, t.Name)
	if wire.Digest(th.expand(ts, "KX1 commit v1\x00", context)) != t.Commit {
		return nil
	}
	return th.asNode(key{bytes: th.expand(ts, "KX1 root v1\x00", context+string(t.Commit[:]))})
}

func contextOf(h *wire.GrantHeader, topic string) string {
	b := append(h.Realm[:], h.Producer[:]...)
	b = append(b, h.Instance[:]...)
	b = binary.BigEndian.AppendUint32(b, h.Epoch)
	b = binary.BigEndian.AppendUint16(b, uint16(len(topic)))
	return string(append(b, topic...))
}

func (th *thief) expand(secret [32]byte, label, context string) [32]byte {
	b, err := hkdf.Expand(sha256.New, secret[:], label+context, 32)
	if err != nil {
		th.t.Fatal(err)
	}
	return [32]byte(b)
}
