package filter

import (
	"bytes"
	"testing"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
)

// TestACorruptBatchIsAsItWasAndBurnsNoLeaf flips a byte of batches of one block and of many,
// which are laid out before their CRC is looked at.
func TestACorruptBatchIsAsItWasAndBurnsNoLeaf(t *testing.T) {
	f := newFilter(t)
	for _, records := range []int{1, 40, 3000} {
		client := clientBatch(t, 0, records, 100)
		for _, at := range []int{17, 22, len(client) - 2} {
			b := append(bytes.Clone(client), make([]byte, 40000)...)
			b[at] ^= 1
			before := bytes.Clone(b[:len(client)])
			r, s := f.SealBatch(b, len(client), []byte(testTopic), 0, testNow)
			if s != abi.StatusCorrupt || int(r.Length) != len(client) || !bytes.Equal(b[:len(client)], before) {
				t.Errorf("%d records, byte %d: %v, %+v", records, at, s, r)
			}
		}
	}
	client := clientBatch(t, 0, 3, 3)
	for want := range uint32(3) {
		if _, r, s := open(f, seal(t, f, client, 0), testTopic, 0); s != abi.StatusOK || r.Leaf != want {
			t.Errorf("leaf %d, want %d: %v", r.Leaf, want, s)
		}
	}
}

// TestWhatIsRefusedForTwoReasonsIsCorrupt holds that nothing is said of a batch whose CRC is
// wrong but that.
func TestWhatIsRefusedForTwoReasonsIsCorrupt(t *testing.T) {
	f := newFilter(t)
	client := clientBatch(t, 0, 3, 30)
	for at := 21; at < len(client); at++ {
		for _, op := range []func([]byte, int, []byte, int32) (abi.Result, abi.Status){
			f.OpenBatch,
			func(b []byte, n int, topic []byte, p int32) (abi.Result, abi.Status) {
				return f.SealBatch(b, n, topic, p, testNow)
			},
		} {
			b := append(bytes.Clone(client), make([]byte, 300)...)
			b[at] ^= 0xFF
			if _, s := op(b, len(client), []byte(testTopic), 0); s != abi.StatusCorrupt {
				t.Errorf("byte %d: %v", at, s)
			}
		}
	}
}
