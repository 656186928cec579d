package envoy

import "slices"

// maxSpares bounds how many buffers a worker keeps beside those in use.
const maxSpares = 8

// spares are buffers that were used and will be again: a new one for each request of a MiB would
// be written over by the runtime first, and found by its collector afterwards. They count as
// memory that a stream holds only while one does.
type spares struct {
	kept [][]byte // the one given back last is the last
	size int      // bytes of all of them
	most int      // bytes that are kept; one buffer is half of them at most
}

// take returns an empty buffer for at least n bytes: the smallest one that there is, unless that
// is far too large, or a new one. What it held before is still in it.
func (p *spares) take(n int) []byte {
	best := -1
	for i, b := range p.kept {
		if cap(b) >= n && cap(b) <= max(keptMemory, 16*n) && (best < 0 || cap(b) < cap(p.kept[best])) {
			best = i
		}
	}
	if best < 0 {
		return make([]byte, 0, n)
	}
	b := p.kept[best]
	p.drop(best)
	return b
}

// give keeps a buffer that nobody uses any more. The smallest one makes room where there are
// many, and those given back first where they are large.
func (p *spares) give(b []byte) {
	if cap(b) == 0 || cap(b) > p.most/2 {
		return
	}
	p.kept, p.size = append(p.kept, b[:0]), p.size+cap(b)
	if len(p.kept) > maxSpares {
		smallest := 0
		for i, b := range p.kept {
			if cap(b) < cap(p.kept[smallest]) {
				smallest = i
			}
		}
		p.drop(smallest)
	}
	for p.size > p.most {
		p.drop(0)
	}
}

func (p *spares) drop(i int) {
	p.size -= cap(p.kept[i])
	p.kept = slices.Delete(p.kept, i, i+1)
}
