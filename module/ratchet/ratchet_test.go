package ratchet

import (
	"bytes"
	"encoding/hex"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"

	"golang.org/x/crypto/chacha20"
	"pgregory.net/rapid"
)

func node(t testing.TB, s string) (n Node) {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(n) {
		t.Fatalf("not a node: %s", s)
	}
	copy(n[:], b)
	return n
}

// slowLeaf walks from root to leaf i with an independent ChaCha20, and reports each node on
// the way, root and leaf included.
func slowLeaf(root Node, i uint32, visit func(level int, n Node)) Node {
	n := root
	visit(0, n)
	for level := range Depth {
		c, err := chacha20.NewUnauthenticatedCipher(n[:], []byte("KX1-tree-v1\x00"))
		if err != nil {
			panic(err)
		}
		var block [64]byte
		c.XORKeyStream(block[:], block[:])
		bit := i >> (Depth - 1 - level) & 1
		n = Node(block[32*bit : 32*bit+32])
		visit(level+1, n)
	}
	return n
}

func drawNode(t *rapid.T) (n Node) {
	r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
	for i := range n {
		n[i] = byte(r.Uint32())
	}
	return n
}

// drawLeaf favours the ends of the tree and of its halves.
func drawLeaf(t *rapid.T) uint32 {
	return rapid.OneOf(
		rapid.Uint32Range(0, Leaves-1),
		rapid.Uint32Range(0, 40),
		rapid.Uint32Range(Leaves-40, Leaves-1),
		rapid.Uint32Range(Leaves/2-20, Leaves/2+20),
	).Draw(t, "leaf")
}

func TestVectorsOfTheTree(t *testing.T) {
	root := node(t, "4f8e9ae6b440827a0fe2be7ab2fcfe53710c1ba7032b098b31bb7212380c1bd1")
	var r Root
	r.Reset(&root)
	for _, tt := range []struct {
		leaf uint32
		want string
	}{
		{0, "a3c88327947f83fc41f63b6455c84041c7adc96a2cd056cfce8ef445043df592"},
		{1, "de691d4c5e33a435da45ab9b9888ddb38abb783cfaae2df1f0ccb92690965ecc"},
		{2, "3b5d25bff2dd7a32a8e4cf57540abcd08f904b9ac7a54fc06de40d5370a0770e"},
		{0x800000, "df958fe7ef8016fd9ddb3fddf10fa6cfbb42e546c8c0a4e8e6b1e213cae3b943"},
		{0xffffff, "63a713b455c18f633c8d7fce7a6ce93137010c0bd7c97995b202ed88df993604"},
	} {
		var got Node
		if !r.Seek(tt.leaf, &got) || got != node(t, tt.want) {
			t.Errorf("leaf %#x = %x, want %s", tt.leaf, got, tt.want)
		}
	}
}

func TestSeekFindsWhatAnIndependentWalkFinds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		root := drawNode(t)
		var r Root
		r.Reset(&root)
		i := drawLeaf(t)
		for range 8 {
			var got Node
			if !r.Seek(i, &got) || got != slowLeaf(root, i, func(int, Node) {}) {
				t.Fatalf("leaf %d differs", i)
			}
			if rapid.Bool().Draw(t, "near") {
				i = (i + rapid.Uint32Range(0, 3).Draw(t, "step")) % Leaves
			} else {
				i = drawLeaf(t)
			}
		}
	})
}

// TestStackHandsOutWhatSeekFinds cuts subtrees and takes leaves at random and compares each
// with the consumer's side, in order and without gap or overlap.
func TestStackHandsOutWhatSeekFinds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		root := drawNode(t)
		var r Root
		r.Reset(&root)
		var s Stack
		level := uint8(rapid.IntRange(0, Depth).Draw(t, "level"))
		start := drawLeaf(t) >> (Depth - level) << (Depth - level)
		var top Node
		slowLeaf(root, start, func(l int, n Node) {
			if l == int(level) {
				top = n
			}
		})
		if !s.Reset(start, level, &top) {
			t.Fatal("Reset refused an aligned subtree")
		}
		end := start + 1<<(Depth-level)
		next := start
		for range 30 {
			if s.Remaining() != end-next {
				t.Fatalf("%d leaves remain, want %d", s.Remaining(), end-next)
			}
			cutLevel := uint8(rapid.IntRange(0, Depth).Draw(t, "cut"))
			var n Node
			first, got, ok := s.Cut(cutLevel, &n)
			if !ok {
				if next != end {
					t.Fatalf("empty before leaf %d", end)
				}
				return
			}
			if first != next || got < cutLevel {
				t.Fatalf("cut %d at level %d, want %d at %d or below", first, got, next, cutLevel)
			}
			var part Stack
			if !part.Reset(first, got, &n) {
				t.Fatalf("the cut is no subtree: %d at level %d", first, got)
			}
			for range min(3, part.Remaining()) {
				var leaf, want Node
				i, _ := part.Take(&leaf)
				if !r.Seek(i, &want) || leaf != want {
					t.Fatalf("leaf %d of the cut differs", i)
				}
			}
			next = first + 1<<(Depth-got)
		}
	})
}

// TestNothingLeadsBackToAUsedLeaf searches the stack's memory for every ancestor-or-self of
// every leaf that was handed out.
func TestNothingLeadsBackToAUsedLeaf(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		root := drawNode(t)
		var s Stack
		s.Reset(0, 0, &root)
		var leaf Node
		var used []Node
		for range rapid.IntRange(1, 10).Draw(t, "takes") {
			// Cutting moves far ahead; all of the cut counts as used.
			if rapid.Bool().Draw(t, "jump") {
				first, level, ok := s.Cut(uint8(rapid.IntRange(1, Depth).Draw(t, "cut")), &leaf)
				if !ok {
					break
				}
				slowLeaf(root, first, func(l int, n Node) { used = append(used, n) })
				slowLeaf(root, first+1<<(Depth-level)-1, func(l int, n Node) { used = append(used, n) })
				continue
			}
			i, ok := s.Take(&leaf)
			if !ok {
				break
			}
			slowLeaf(root, i, func(l int, n Node) { used = append(used, n) })
		}
		memory := unsafe.Slice((*byte)(unsafe.Pointer(&s)), unsafe.Sizeof(s))
		for _, n := range used {
			if bytes.Contains(memory, n[:]) {
				t.Fatalf("the stack still holds %x", n)
			}
		}
	})
}

func TestTheLastLeafEmptiesTheStack(t *testing.T) {
	var s Stack
	var leaf Node
	if !s.Reset(Leaves-4, Depth-2, &Node{1}) {
		t.Fatal("Reset refused the last four leaves")
	}
	var got []uint32
	for i, ok := s.Take(&leaf); ok; i, ok = s.Take(&leaf) {
		got = append(got, i)
	}
	if !slices.Equal(got, []uint32{Leaves - 4, Leaves - 3, Leaves - 2, Leaves - 1}) || s != (Stack{}) {
		t.Errorf("took %v, left %d subtrees", got, s.n)
	}
}

func TestImpossibleSubtreesAreRefused(t *testing.T) {
	var s Stack
	for _, tt := range []struct {
		start uint32
		level uint8
	}{{1, 0}, {Leaves, Depth}, {1, Depth - 1}, {0, Depth + 1}, {1 << 31, 0}} {
		if s.Reset(tt.start, tt.level, &Node{1}) || s != (Stack{}) {
			t.Errorf("start %d at level %d was accepted", tt.start, tt.level)
		}
	}
	var r Root
	var leaf Node
	if r.Seek(0, &leaf) {
		t.Error("an empty root found a leaf")
	}
	r.Reset(&Node{1})
	if r.Seek(Leaves, &leaf) {
		t.Error("a leaf beyond the tree was found")
	}
	r.Wipe()
	if r != (Root{}) {
		t.Error("Wipe left something")
	}
}

func TestNothingIsAllocated(t *testing.T) {
	var s Stack
	var r Root
	var leaf Node
	s.Reset(0, 0, &Node{1})
	r.Reset(&Node{1})
	if n := testing.AllocsPerRun(100, func() {
		i, _ := s.Take(&leaf)
		r.Seek(i, &leaf)
	}); n != 0 {
		t.Errorf("%v allocations for a leaf at each end", n)
	}
}

func BenchmarkTake(b *testing.B) {
	var s Stack
	var leaf Node
	for b.Loop() {
		if _, ok := s.Take(&leaf); !ok {
			s.Reset(0, 0, &Node{1})
		}
	}
}

func BenchmarkSeekNext(b *testing.B) {
	var r Root
	var leaf Node
	r.Reset(&Node{1})
	for i := uint32(0); b.Loop(); i++ {
		r.Seek(i%Leaves, &leaf)
	}
}
