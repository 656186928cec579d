// Package aead measures ChaCha20-Poly1305 inside a module, without records around it, in two
// WebAssembly runtimes: wazero, which the Go host uses, and V8, which Envoy uses, here in Node.
// Beside them x/crypto runs natively on the same bytes.
package aead

import (
	"context"
	"crypto/cipher"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/wasm-e2ee/wasm-e2ee/tests/bench/report"
	"github.com/wasm-e2ee/wasm-e2ee/tests/bench/run"
)

// Least shares of native speed that are asked for.
const (
	leastV8     = 0.40
	leastWazero = 0.25
)

// bytesPerCall is how much one timed call works on, so that entering the module costs nothing
// beside it.
const bytesPerCall = 1 << 20

// Rows measures sealing and opening messages of 16 KiB and 1 MiB on one core.
func Rows(ctx context.Context, o run.Options) ([]report.Row, error) {
	path := filepath.Join(o.Dir, "aead.wasm")
	if err := buildGuest(path); err != nil {
		return nil, err
	}
	guest, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	inWazero, err := startWazero(ctx, guest)
	if err != nil {
		return nil, err
	}
	defer inWazero.close(ctx)
	inNode, err := startNode(path)
	if err != nil {
		return nil, err
	}
	defer inNode.close()
	native, err := newNative()
	if err != nil {
		return nil, err
	}
	var rows []report.Row
	for _, size := range []int{16 << 10, 1 << 20} {
		messages := uint32(bytesPerCall / size)
		for _, op := range []string{"seal", "open"} {
			name := fmt.Sprintf("%s %d KiB", op, size>>10)
			if !o.Wants(name) {
				continue
			}
			o.Log("%s", name)
			sides, err := run.InTurn(ctx, o, bytesPerCall,
				run.Work{Name: "wazero", Do: func() error { return inWazero.call(ctx, op, uint32(size), messages) }},
				run.Work{Name: "V8", Do: func() error { return inNode.call(op, uint32(size), messages) }},
				run.Work{Name: "native", Do: func() error { return native.call(op, size, messages) }})
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			v8 := report.Compare(name+", V8", "MB/s", report.AtLeast(leastV8), sides[1], sides[2])
			v8.Note = "the module's kernel package on wazero and in Node " + inNode.version + "; native is x/crypto, its key set up once"
			rows = append(rows, v8, report.Compare(name+", wazero", "MB/s", report.AtLeast(leastWazero), sides[0], sides[2]))
		}
	}
	return rows, nil
}

// native seals and opens in place with x/crypto's assembly.
type native struct {
	aead   cipher.AEAD
	buf    []byte
	nonce  [chacha20poly1305.NonceSize]byte
	sealed map[int][]byte
}

func newNative() (*native, error) {
	aead, err := chacha20poly1305.New(make([]byte, chacha20poly1305.KeySize))
	return &native{aead: aead, buf: make([]byte, bytesPerCall+chacha20poly1305.Overhead), sealed: map[int][]byte{}}, err
}

func (n *native) call(op string, size int, messages uint32) error {
	if op == "open" && n.sealed[size] == nil {
		n.sealed[size] = n.aead.Seal(nil, n.nonce[:], make([]byte, size), nil)
	}
	for range messages {
		if op == "seal" {
			n.aead.Seal(n.buf[:0], n.nonce[:], n.buf[:size], nil)
			continue
		}
		buf := n.buf[:copy(n.buf, n.sealed[size])] // it is opened in place, as in the guest
		if _, err := n.aead.Open(buf[:0], n.nonce[:], buf, nil); err != nil {
			return err
		}
	}
	return nil
}
