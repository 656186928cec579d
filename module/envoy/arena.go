package envoy

import "unsafe"

// An arena is memory for what is made of one frame's batches, in spare buffers.
type arena struct {
	spares *spares
	chunk  int      // bytes of each at least
	chunks [][]byte // each as long as what was kept of it
}

// room returns n bytes. Until keep was called the next call may return the same.
func (a *arena) room(n int) []byte {
	if last := len(a.chunks) - 1; last >= 0 {
		if c := a.chunks[last]; cap(c)-len(c) >= n {
			return c[len(c) : len(c)+n]
		}
	}
	c := a.spares.take(max(n, a.chunk))
	a.chunks = append(a.chunks, c)
	return c[:n]
}

// keep keeps b, if it is at the front of what room returned last.
func (a *arena) keep(b []byte) {
	c := &a.chunks[len(a.chunks)-1]
	if unsafe.SliceData(b) == unsafe.SliceData((*c)[len(*c):cap(*c)]) {
		*c = (*c)[:len(*c)+len(b)]
	}
}

// size is how many bytes it holds.
func (a *arena) size() (n int) {
	for _, c := range a.chunks {
		n += cap(c)
	}
	return n
}

// hand gives another arena what this one holds.
func (a *arena) hand(to *arena) {
	to.chunks = append(to.chunks, a.chunks...)
	a.chunks = nil
}

// trim gives back the last chunk, where nothing of it was kept.
func (a *arena) trim() {
	if last := len(a.chunks) - 1; last >= 0 && len(a.chunks[last]) == 0 {
		a.spares.give(a.chunks[last])
		a.chunks = a.chunks[:last]
	}
}

// release gives everything back.
func (a *arena) release() {
	for _, c := range a.chunks {
		a.spares.give(c)
	}
	clear(a.chunks)
	a.chunks = a.chunks[:0]
}
