package ratchet

// A Root finds leaves of one tree, in any order. It keeps the path to the last leaf, so
// that the next one near it costs about log2 of their distance instead of Depth blocks.
type Root struct {
	path [Depth]Node // the root, then the nodes on the way to the last leaf, without it
	last uint32
	held int // nodes of path that are valid; 0: empty
}

// Reset erases what the root holds and gives it another tree.
func (r *Root) Reset(root *Node) {
	r.Wipe()
	r.path[0] = *root
	r.held = 1
}

// Seek writes the key of leaf i into leaf. It returns false where there is no such leaf or
// the root is empty.
func (r *Root) Seek(i uint32, leaf *Node) bool {
	if r.held == 0 || i >= Leaves {
		return false
	}
	level := 0 // of the deepest node on the path that leads to i too
	for level+1 < r.held && r.last>>(Depth-1-level) == i>>(Depth-1-level) {
		level++
	}
	var other Node
	*leaf = r.path[level]
	for level < Depth {
		if i>>(Depth-1-level)&1 == 0 {
			expand(leaf, leaf, &other)
		} else {
			expand(leaf, &other, leaf)
		}
		if level++; level < Depth {
			r.path[level] = *leaf
		}
	}
	clear(other[:])
	r.last, r.held = i, Depth
	return true
}

// Wipe erases all that the root holds.
func (r *Root) Wipe() { *r = Root{} }
