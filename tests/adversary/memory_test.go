package adversary_test

import (
	"crypto/rand"
	"encoding/binary"
	"testing"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/tests/reference"
)

// An index finds keys in plain memory, wherever they stand. Trying each 32 bytes of a memory
// as a key would take for ever, so it is turned round: all that opens anything which the
// broker ever stored is looked for. That is every epoch secret, topic secret, root, prekey and
// identity, and every node of a tree on the way to a leaf that sealed something.
type index struct {
	known  map[uint64][]*entry // by the first 8 bytes
	filter [1 << 18]uint64     // a bit for each first 3 bytes
}

// An entry is a secret and what it opens.
type entry struct {
	bytes [32]byte
	opens *loot
	what  string
}

func (th *thief) index() *index {
	x := &index{known: map[uint64][]*entry{}}
	for id, seed := range th.broker.identities {
		x.add(seed, &loot{identities: map[wire.PublicKey]bool{id: true}}, "identity")
	}
	for _, b := range th.broker.bundles {
		x.add(b.seed, th.asSecret(b.seed), "prekey")
	}
	for _, g := range th.broker.epochs {
		if g.secret == [32]byte{} {
			th.t.Fatal("an epoch secret was drawn unseen")
		}
		x.add(g.secret, th.asSecret(g.secret), "epoch secret")
		for i := range g.header.Topics {
			t := &g.header.Topics[i]
			ts := expand(g.secret, "KX1 topic v1\x00", contextOf(g.header, t.Name))
			opens := &loot{values: th.asTopicSecret(ts, g.header, t)}
			x.add(ts, opens, "topic secret")
			th.tree(x, g.kids[t.Name], rootOf(ts, g.header, t))
		}
	}
	return x
}

// tree adds the nodes on the ways to the used leaves.
func (th *thief) tree(x *index, kid abi.Kid, root [32]byte) {
	done := map[key]bool{}
	for _, i := range th.byKid[kid] {
		leaf := th.broker.values[i].header.Leaf
		for level := 0; level <= abi.TreeDepth; level++ {
			k := key{start: leaf &^ (1<<(abi.TreeDepth-level) - 1), level: level}
			if done[k] {
				continue
			}
			done[k] = true
			k.bytes = reference.Node(root, leaf, level)
			opens := th.asNodeOf(k, kid)
			if level == abi.TreeDepth {
				opens = map[int]bool{i: true}
			}
			x.add(k.bytes, &loot{values: opens}, "tree node")
		}
	}
}

func (x *index) add(b [32]byte, opens *loot, what string) {
	first := binary.LittleEndian.Uint64(b[:])
	x.known[first] = append(x.known[first], &entry{b, opens, what})
	x.filter[first&0xffffff>>6] |= 1 << (first & 63)
}

// find adds to out what the keys in a memory open, and counts them by what they are.
func (x *index) find(memory []byte, out *loot, found map[string]int) {
	for i := 0; i+32 <= len(memory); i++ {
		first := binary.LittleEndian.Uint64(memory[i:])
		if x.filter[first&0xffffff>>6]&(1<<(first&63)) == 0 {
			continue
		}
		for _, e := range x.known[first] {
			if [32]byte(memory[i:]) == e.bytes {
				out.add(e.opens)
				found[e.what]++
			}
		}
	}
}

// TestKeysAreFoundInMemory is the control of the search: at every place, and not where a bit
// is wrong.
func TestKeysAreFoundInMemory(t *testing.T) {
	x := &index{known: map[uint64][]*entry{}}
	memory := make([]byte, 4096)
	rand.Read(memory)
	var secret [32]byte
	rand.Read(secret[:])
	x.add(secret, &loot{values: map[int]bool{7: true}}, "secret")
	for at := range len(memory) - len(secret) + 1 {
		was := [32]byte(memory[at:])
		copy(memory[at:], secret[:])
		out := newLoot()
		if x.find(memory, out, map[string]int{}); !out.values[7] {
			t.Fatalf("the secret at %d is not found", at)
		}
		memory[at+at%32] ^= 1
		out = newLoot()
		if x.find(memory, out, map[string]int{}); out.values[7] {
			t.Fatalf("half a secret at %d is found", at)
		}
		copy(memory[at:], was[:])
	}
}
