package ratchet

// A Stack is the part of a tree that has not been handed out yet, as the subtrees to the
// right of what has. It never holds an ancestor of a leaf that it gave away, so whoever
// reads it later cannot go back. The zero value is empty.
type Stack struct {
	subtrees [Depth + 1]subtree // the next to hand out is the last
	n        int
}

type subtree struct {
	start uint32
	level uint8
	node  Node
}

// Reset erases what the stack holds and gives it one subtree: the leaves from start on
// below node, which is at level 0 (a root) to Depth (a leaf). It returns false, and the
// stack is empty, where start is not the first leaf of a subtree of that level.
func (s *Stack) Reset(start uint32, level uint8, node *Node) bool {
	s.Wipe()
	if level > Depth || start >= Leaves || start&(1<<(Depth-level)-1) != 0 {
		return false
	}
	s.subtrees[0] = subtree{start, level, *node}
	s.n = 1
	return true
}

// Remaining returns the number of leaves not handed out yet.
func (s *Stack) Remaining() uint32 {
	var sum uint32
	for i := range s.n {
		sum += 1 << (Depth - s.subtrees[i].level)
	}
	return sum
}

// Overlaps reports whether any remaining leaf is among the 2^(Depth-level) from start on.
func (s *Stack) Overlaps(start uint32, level uint8) bool {
	end := start + 1<<(Depth-min(level, Depth))
	for i := range s.n {
		t := &s.subtrees[i]
		if t.start < end && start < t.start+1<<(Depth-t.level) {
			return true
		}
	}
	return false
}

// Take hands out the next leaf: its index, and its key in leaf. The stack keeps nothing
// that leads to it. It returns false where no leaf remains.
func (s *Stack) Take(leaf *Node) (i uint32, ok bool) {
	i, _, ok = s.Cut(Depth, leaf)
	return i, ok
}

// Return takes back the leaf that the last Take handed out, as the next one. Nothing may have
// been sealed under it.
func (s *Stack) Return(i uint32, leaf *Node) {
	s.subtrees[s.n] = subtree{i, Depth, *leaf}
	s.n++
}

// Cut hands out the next subtree, of at most 2^(Depth-level) leaves: fewer only where the
// next remaining subtree is smaller than that. The stack keeps nothing that leads to it. It
// returns the subtree's first leaf, its level, and its top in node, or false where nothing
// remains or level exceeds Depth.
func (s *Stack) Cut(level uint8, node *Node) (start uint32, cut uint8, ok bool) {
	if s.n == 0 || level > Depth {
		return 0, 0, false
	}
	top := &s.subtrees[s.n-1]
	*node = top.node
	start, cut = top.start, top.level
	for cut < level {
		cut++
		// The popped subtree's place takes its right half; each further level stacks the
		// next right half, which comes sooner, above it.
		here := &s.subtrees[s.n-1]
		here.start = start + 1<<(Depth-cut)
		here.level = cut
		expand(node, node, &here.node)
		s.n++
	}
	s.n--
	s.subtrees[s.n] = subtree{}
	return start, cut, true
}

// Wipe erases all that the stack holds.
func (s *Stack) Wipe() { *s = Stack{} }
