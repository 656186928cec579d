package ledger

import (
	"fmt"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/module/ratchet"
)

// A use is what one batch was sealed with.
type use struct {
	key   ratchet.Node
	nonce [24]byte
}

// A ledger is every key that anybody sealed with. A key may seal once, whatever the nonce;
// that no pair repeats even where keys do is the claim (PROTOCOL.md §3, C9).
type ledger struct {
	roots   map[abi.Kid]*ratchet.Root // of every epoch that was granted
	uses    map[use]string            // by whom
	keys    map[ratchet.Node]string
	batches int
	again   []string // keys that sealed a second batch
	repeats []string // pairs that did
}

func newLedger() *ledger {
	return &ledger{roots: map[abi.Kid]*ratchet.Root{}, uses: map[use]string{}, keys: map[ratchet.Node]string{}}
}

// root makes an epoch known.
func (l *ledger) root(kid abi.Kid, root *ratchet.Node) {
	if l.roots[kid] == nil {
		l.roots[kid] = &ratchet.Root{}
		l.roots[kid].Reset(root)
	}
}

// sealed enters one sealed value. It fails where nobody was granted the epoch: then it was
// sealed too early.
func (l *ledger) sealed(h wire.PackedHeader, by string) error {
	root := l.roots[h.Kid]
	if root == nil {
		return fmt.Errorf("%s sealed under kid %x, which no acknowledged grant names", by, h.Kid)
	}
	u := use{nonce: h.Nonce()}
	if !root.Seek(h.Leaf, &u.key) {
		return fmt.Errorf("%s sealed under leaf %d of kid %x, and there is none", by, h.Leaf, h.Kid)
	}
	l.batches++
	if first, ok := l.keys[u.key]; ok {
		l.again = append(l.again, fmt.Sprintf("kid %x, leaf %d: %s and %s", h.Kid, h.Leaf, first, by))
	}
	if first, ok := l.uses[u]; ok {
		l.repeats = append(l.repeats, fmt.Sprintf("kid %x, leaf %d, salt %x: %s and %s", h.Kid, h.Leaf, h.Salt, first, by))
	}
	l.keys[u.key], l.uses[u] = by, by
	return nil
}
