package keyring

import (
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/scrub"
	"github.com/wasm-e2ee/wasm-e2ee/module/ratchet"
)

// secretKey is 32 secret bytes. It is wiped in place with clear.
type secretKey [32]byte

// String keeps a key out of logs.
func (*secretKey) String() string { return "secret" }

// topicContext is ctx(topic) of PROTOCOL.md §2.3: realm_id ‖ producer node_id ‖
// instance_id ‖ epoch u32 ‖ u16 len(topic) ‖ topic.
func topicContext(h *wire.GrantHeader, topic string) string {
	b := make([]byte, 0, 16+16+16+4+2+len(topic))
	b = append(b, h.Realm[:]...)
	b = append(b, h.Producer[:]...)
	b = append(b, h.Instance[:]...)
	b = binary.BigEndian.AppendUint32(b, h.Epoch)
	b = binary.BigEndian.AppendUint16(b, uint16(len(topic)))
	return string(append(b, topic...))
}

// expand is HKDF-Expand-SHA256(secret, label ‖ context, 32) into out.
func expand(out *[32]byte, secret *secretKey, label, context string) (err error) {
	scrub.Do(func() {
		var b []byte
		if b, err = hkdf.Expand(sha256.New, secret[:], label+context, len(out)); err == nil {
			copy(out[:], b)
		}
	})
	if err != nil {
		return fmt.Errorf("key derivation: %w", err)
	}
	return nil
}

// deriveTopicSecret derives ts from es (PROTOCOL.md §2.3).
func deriveTopicSecret(ts, es *secretKey, context string) error {
	return expand((*[32]byte)(ts), es, "KX1 topic v1\x00", context)
}

// deriveCommit derives the public commitment to ts.
func deriveCommit(ts *secretKey, context string) (commit wire.Digest, err error) {
	err = expand((*[32]byte)(&commit), ts, "KX1 commit v1\x00", context)
	return commit, err
}

// deriveRoot derives the tree's root from ts.
func deriveRoot(root *ratchet.Node, ts *secretKey, context string, commit wire.Digest) error {
	return expand((*[32]byte)(root), ts, "KX1 root v1\x00", context+string(commit[:]))
}

// KidOf names a commitment (PROTOCOL.md §2.3).
func KidOf(commit wire.Digest) abi.Kid {
	d := sha256.Sum256(append([]byte("KX1 kid v1\x00"), commit[:]...))
	return abi.Kid(d[:abi.KidSize])
}

// grantInfo binds a wrap to the header, its recipient and the recipient's key (PROTOCOL.md
// §2.6), so that nobody can sign somebody else's wrap as his own.
func grantInfo(header wire.Digest, recipient wire.NodeID, kemPub []byte) []byte {
	pub := sha256.Sum256(kemPub)
	b := append([]byte("KX1 grant v1\x00"), header[:]...)
	b = append(b, recipient[:]...)
	return append(b, pub[:]...)
}
