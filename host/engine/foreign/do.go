package foreign

import (
	"encoding/binary"
	"hash/crc32"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/host/scrub"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// do runs one operation whose spans were checked. made is what SpanInflate wrote, in bytes.
func (w *worker) do(o *abi.SpanOp, memory []byte) (s abi.SpanStatus, made uint32) {
	data, _ := o.Data.In(memory)
	head, _ := o.Head.In(memory)
	out, _ := o.Out.In(memory)
	switch o.Kind {
	case abi.SpanCheck:
		if crc32.Update(crc32.Checksum(head, castagnoli), castagnoli, data) != o.Sum {
			return abi.SpanRefused, 0
		}
	case abi.SpanSum:
		binary.BigEndian.PutUint32(out, crc32.Update(crc32.Checksum(head, castagnoli), castagnoli, data))
	case abi.SpanSeal:
		scrub.Do(func() { seal(data, o.Key, o.Nonce, head) })
	case abi.SpanOpen:
		// x/crypto overwrites its output where the tag is not right.
		w.sealed = append(w.sealed[:0], data...)
		opened := false
		scrub.Do(func() { opened = open(data, o.Key, o.Nonce, head) })
		if !opened {
			copy(data, w.sealed)
			return abi.SpanRefused, 0
		}
	case abi.SpanInflate:
		return w.inflate.all(o.Codec, data, out)
	}
	return abi.SpanDone, 0
}

// seal encrypts all of buf but its last 16 bytes in place and writes the tag there.
func seal(buf []byte, key *[abi.KeySize]byte, nonce *[abi.SpanNonceSize]byte, aad []byte) {
	aead, err := chacha20poly1305.NewX(key[:])
	if err != nil {
		panic(err) // it looks at the length alone, and that is fixed
	}
	aead.Seal(buf[:0], nonce[:], buf[:len(buf)-abi.SpanTagSize], aad)
}

func open(buf []byte, key *[abi.KeySize]byte, nonce *[abi.SpanNonceSize]byte, aad []byte) bool {
	aead, err := chacha20poly1305.NewX(key[:])
	if err != nil {
		panic(err) // as in seal
	}
	_, err = aead.Open(buf[:0], nonce[:], buf, aad)
	return err == nil
}
