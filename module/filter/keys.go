package filter

import (
	"crypto/subtle"
	"slices"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/module/ratchet"
)

// A lease is a subtree that only this filter holds.
type lease struct {
	kid   abi.Kid
	useBy uint64 // Unix ms
	stack ratchet.Stack
}

// A root opens the batches of one topic and epoch. SECRET.
type root struct {
	node  ratchet.Node
	topic string
}

// pathCache is the number of paths kept, a power of two. Roots are many and paths are
// large, so roots share them: the one that needs a path's place takes it.
const pathCache = 256

// A path is the ratchet's way to the last leaf of kid.
type path struct {
	kid  abi.Kid
	live bool
	to   ratchet.Root
}

func (f *Filter) pathOf(kid abi.Kid) *path { return &f.paths[kid[0]&(pathCache-1)] }

// InstallLease takes a lease, to be used after those of its topic that are held already.
// It answers abi.StatusFull where MaxLeases are held and abi.StatusBadArgument where the
// subtree is impossible or overlaps one held under the same kid: two batches would be
// sealed under one leaf.
func (f *Filter) InstallLease(l *abi.Lease) abi.Status {
	if !f.ready {
		return abi.StatusNotConfigured
	}
	for _, held := range f.leases[l.Topic] {
		if held.kid == l.Kid && held.stack.Overlaps(l.Start, l.Level) {
			return abi.StatusBadArgument
		}
	}
	if f.numLease == MaxLeases {
		return abi.StatusFull
	}
	held := &lease{kid: l.Kid, useBy: l.UseBy}
	if !held.stack.Reset(l.Start, l.Level, (*ratchet.Node)(&l.Node)) {
		return abi.StatusBadArgument
	}
	f.leases[l.Topic] = append(f.leases[l.Topic], held)
	f.numLease++
	return abi.StatusOK
}

// InstallRoot takes a root. A kid that is held already with the same root and topic changes
// nothing; with another it is abi.StatusBadArgument, since the first one wins
// (PROTOCOL.md §2.8). It answers abi.StatusFull where MaxRoots are held.
func (f *Filter) InstallRoot(r *abi.Root) abi.Status {
	if !f.ready {
		return abi.StatusNotConfigured
	}
	if held, ok := f.roots[r.Kid]; ok {
		if held.topic != r.Topic || subtle.ConstantTimeCompare(held.node[:], r.Root[:]) != 1 {
			return abi.StatusBadArgument
		}
		return abi.StatusOK
	}
	if len(f.roots) == MaxRoots {
		return abi.StatusFull
	}
	f.roots[r.Kid] = &root{node: r.Root, topic: r.Topic}
	return abi.StatusOK
}

// Erase overwrites every lease, root and cached path of these kids; of all kids where none
// is given.
func (f *Filter) Erase(kids []abi.Kid) abi.Status {
	if !f.ready {
		return abi.StatusNotConfigured
	}
	for topic := range f.leases {
		f.dropLeases(topic, func(l *lease) bool { return len(kids) == 0 || slices.Contains(kids, l.kid) })
	}
	if len(kids) == 0 {
		for kid := range f.roots {
			f.dropRoot(kid)
		}
	}
	for _, kid := range kids {
		f.dropRoot(kid)
	}
	return abi.StatusOK
}

// take pops the next leaf of topic into f.leaf, and returns the lease that it is of. Leases
// that are past their useBy or used up are erased on the way. It returns false where none is
// left.
func (f *Filter) take(topic []byte, now uint64) (l *lease, leaf uint32, ok bool) {
	for {
		held := f.leases[string(topic)]
		if len(held) == 0 {
			return nil, 0, false
		}
		l = held[0]
		if now <= l.useBy {
			if leaf, ok = l.stack.Take(&f.leaf); ok {
				return l, leaf, true
			}
		}
		f.dropLeases(string(topic), func(other *lease) bool { return other == l })
	}
}

// seek writes the key of a leaf under kid into f.leaf.
func (f *Filter) seek(kid abi.Kid, r *root, leaf uint32) bool {
	p := f.pathOf(kid)
	if !p.live || p.kid != kid {
		p.kid, p.live = kid, true
		p.to.Reset(&r.node)
	}
	return p.to.Seek(leaf, &f.leaf)
}

func (f *Filter) dropLeases(topic string, drop func(*lease) bool) {
	kept := slices.DeleteFunc(f.leases[topic], func(l *lease) bool {
		if !drop(l) {
			return false
		}
		l.stack.Wipe()
		f.numLease--
		f.counters[abi.CounterErased]++
		return true
	})
	if len(kept) == 0 {
		delete(f.leases, topic)
		return
	}
	f.leases[topic] = kept
}

func (f *Filter) dropRoot(kid abi.Kid) {
	if r, ok := f.roots[kid]; ok {
		clear(r.node[:])
		delete(f.roots, kid)
		f.counters[abi.CounterErased]++
	}
	if p := f.pathOf(kid); p.live && p.kid == kid {
		p.to.Wipe()
		p.live = false
	}
}
