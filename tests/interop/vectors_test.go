package interop

import (
	"bytes"
	"testing"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/tests/vectors"
)

// kinds are the peer's words for why it does not open a batch.
var kinds = map[string]abi.Status{
	"":            abi.StatusOK,
	"unknown kid": abi.StatusNeedRoot,
	"malformed":   abi.StatusMalformed,
	"crc":         abi.StatusCorrupt,
	"magic":       abi.StatusUnsupportedMagic,
	"codec":       abi.StatusUnsupportedCodec,
	"size":        abi.StatusTooLarge,
	"plaintext":   abi.StatusPlaintext,
	"unauthentic": abi.StatusUnauthentic,
}

// TestPublishedVectorsHoldInPython gives every vector that opens a batch to the second
// implementation. It has no policy, so that vectors of topics that are not encrypted say
// nothing to it.
func TestPublishedVectorsHoldInPython(t *testing.T) {
	all, err := vectors.All()
	if err != nil {
		t.Fatal(err)
	}
	p := startPeer(t)
	ran := 0
	for _, v := range all {
		config := v.Config()
		if v.Op != vectors.OpOpen || len(v.PlainTopics) != 0 || v.Topic == "_e2ee.grants" {
			continue
		}
		ran++
		roots := []object{}
		for _, r := range v.Roots {
			roots = append(roots, object{"kid": octets(r.Kid), "root": octets(r.Root), "topic": octets(r.Topic)})
		}
		var opened octets
		refused := p.ask("open_batch", object{
			"batch": octets(v.Batch), "roots": roots, "topic": octets(v.Topic), "partition": v.Partition, "cap": config.MaxDecompressed,
		}, &opened)
		want := []byte(v.Want.Batch)
		if v.Want.Untouched {
			want = v.Batch
		}
		switch status, known := kinds[refused]; {
		case !known || status != v.Want.Status:
			t.Errorf("%s: %q, want %v", v.Name, refused, v.Want.Status)
		case status == abi.StatusOK && !bytes.Equal(opened, want):
			t.Errorf("%s: opened to %x", v.Name, []byte(opened))
		}
	}
	if ran < 80 {
		t.Errorf("only %d vectors ran", ran)
	}
	t.Logf("%d vectors", ran)
}
