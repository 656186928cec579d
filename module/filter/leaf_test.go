package filter

import (
	"encoding/hex"
	"testing"

	"golang.org/x/crypto/chacha20"
)

// leaf0Of walks to leaf 0 with an independent ChaCha20 and returns its key in hex.
func leaf0Of(t *testing.T, node [32]byte) string {
	t.Helper()
	for range 24 {
		c, err := chacha20.NewUnauthenticatedCipher(node[:], []byte("KX1-tree-v1\x00"))
		if err != nil {
			t.Fatal(err)
		}
		clear(node[:])
		c.XORKeyStream(node[:], node[:])
	}
	return hex.EncodeToString(node[:])
}
