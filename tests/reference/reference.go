// Package reference is a second implementation of the key tree and the packed format
// (PROTOCOL.md §2.3, §2.4), straight from the text, on x/crypto's ChaCha20 and
// XChaCha20-Poly1305. Vectors are made with it and modules are held against it. It shares
// no code with package module, is as slow as it is plain, and seals nothing in production.
package reference

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/pierrec/lz4/v4"
	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"golang.org/x/crypto/chacha20"
	"golang.org/x/crypto/chacha20poly1305"
)

// Node returns the node of a tree at a level, 0 (root) to 24 (leaf), on the way to leaf i.
func Node(root [abi.KeySize]byte, i uint32, level int) [abi.KeySize]byte {
	node := root
	for l := range level {
		c, err := chacha20.NewUnauthenticatedCipher(node[:], []byte("KX1-tree-v1\x00"))
		if err != nil {
			panic(err) // both sizes are fixed
		}
		var block [64]byte
		c.XORKeyStream(block[:], block[:])
		bit := i >> (abi.TreeDepth - 1 - l) & 1
		node = [abi.KeySize]byte(block[32*bit:])
	}
	return node
}

// A Seal says how one batch is sealed.
type Seal struct {
	Root      [abi.KeySize]byte
	Kid       abi.Kid
	Leaf      uint32
	Salt      [wire.SaltSize]byte
	Topic     string
	Partition int32
}

// Value returns the sealed value of a client's batch.
func (s *Seal) Value(client []byte) ([]byte, error) {
	h, err := kafka.ParseBatchHeader(client)
	if err != nil {
		return nil, err
	}
	plain := []byte{byte(h.Codec())}
	plain = binary.BigEndian.AppendUint64(plain, uint64(h.BaseTimestamp))
	plain = binary.BigEndian.AppendUint64(plain, uint64(h.MaxTimestamp))
	plain = append(plain, client[kafka.BatchHeaderSize:]...)

	value := []byte{0xE2, 0x10}
	value = append(value, s.Kid[:]...)
	value = append(value, byte(s.Leaf>>16), byte(s.Leaf>>8), byte(s.Leaf))
	value = binary.BigEndian.AppendUint32(value, uint32(h.NumRecords))
	value = append(value, s.Salt[:]...)
	key := Node(s.Root, s.Leaf, abi.TreeDepth)
	aead, err := chacha20poly1305.NewX(key[:])
	if err != nil {
		return nil, err
	}
	return aead.Seal(value, nonce(s.Salt), plain, aad(value, s.Topic, s.Partition)), nil
}

// Records returns the records of the packed batch around a sealed value.
func Records(client, value []byte) ([]kafka.Record, error) {
	h, err := kafka.ParseBatchHeader(client)
	if err != nil {
		return nil, err
	}
	records := []kafka.Record{{TimestampDelta: h.MaxTimestamp - h.BaseTimestamp, Value: value}}
	for i := int32(1); i < h.NumRecords; i++ {
		records = append(records, kafka.Record{OffsetDelta: i, Value: []byte{}})
	}
	return records, nil
}

// Batch returns the whole packed batch of a client's batch, its outer section not
// compressed.
func (s *Seal) Batch(client []byte) ([]byte, error) {
	h, err := kafka.ParseBatchHeader(client)
	if err != nil {
		return nil, err
	}
	value, err := s.Value(client)
	if err != nil {
		return nil, err
	}
	records, err := Records(client, value)
	if err != nil {
		return nil, err
	}
	h.Attributes &^= kafka.AttrCodec
	return Join(h, Section(records...)), nil
}

// Section returns the uncompressed record section of records.
func Section(records ...kafka.Record) []byte {
	var b []byte
	for i := range records {
		b = records[i].Append(b)
	}
	return b
}

// Join returns the batch of a header and a record section, with its length and CRC set.
func Join(h kafka.BatchHeader, section []byte) []byte {
	h.Magic = kafka.BatchMagic
	h.BatchLength = int32(kafka.BatchHeaderSize - kafka.BatchLengthEnd + len(section))
	b := make([]byte, kafka.BatchHeaderSize, kafka.BatchHeaderSize+len(section))
	h.Put(b)
	b = append(b, section...)
	kafka.SetBatchCRC(b)
	return b
}

// Open reads a packed batch as sealing makes it, with an outer section that is not
// compressed or an LZ4 frame, and returns the client's batch. The kid of s, its leaf and
// its salt are ignored: what the value says is written there.
func (s *Seal) Open(sealed []byte) ([]byte, error) {
	h, err := kafka.ParseBatchHeader(sealed)
	if err != nil {
		return nil, err
	}
	if kafka.BatchCRC(sealed) != h.CRC || int(h.BatchLength) != len(sealed)-kafka.BatchLengthEnd {
		return nil, errors.New("length or CRC of the outer batch is wrong")
	}
	section := sealed[kafka.BatchHeaderSize:]
	switch h.Codec() {
	case kafka.CodecNone:
	case kafka.CodecLZ4:
		if section, err = io.ReadAll(lz4.NewReader(bytes.NewReader(section))); err != nil {
			return nil, fmt.Errorf("outer section: %w", err)
		}
	default:
		return nil, fmt.Errorf("outer section is compressed with %v", h.Codec())
	}
	value, err := onlyValue(&h, section)
	if err != nil {
		return nil, err
	}
	if len(value) < 58 || value[0] != 0xE2 || value[1] != 0x10 {
		return nil, errors.New("record 0 holds no packed value")
	}
	if n := binary.BigEndian.Uint32(value[13:]); n != uint32(h.NumRecords) {
		return nil, fmt.Errorf("sealed for %d records, not %d", n, h.NumRecords)
	}
	s.Kid = abi.Kid(value[2:])
	s.Leaf = uint32(value[10])<<16 | uint32(value[11])<<8 | uint32(value[12])
	s.Salt = [wire.SaltSize]byte(value[17:])
	key := Node(s.Root, s.Leaf, abi.TreeDepth)
	aead, err := chacha20poly1305.NewX(key[:])
	if err != nil {
		return nil, err
	}
	plain, err := aead.Open(nil, nonce(s.Salt), value[25:], aad(value[:25], s.Topic, s.Partition))
	if err != nil {
		return nil, err
	}
	h.Attributes = h.Attributes&^kafka.AttrCodec | int16(plain[0])
	h.BaseTimestamp = int64(binary.BigEndian.Uint64(plain[1:]))
	h.MaxTimestamp = int64(binary.BigEndian.Uint64(plain[9:]))
	return Join(h, plain[17:]), nil
}

// onlyValue returns the value of record 0, which stubs must follow.
func onlyValue(h *kafka.BatchHeader, section []byte) ([]byte, error) {
	var value []byte
	for i := range h.NumRecords {
		var r kafka.Record
		var err error
		if section, err = kafka.NextRecord(section, &r); err != nil {
			return nil, fmt.Errorf("outer record %d: %w", i, err)
		}
		want := kafka.Record{OffsetDelta: i, Value: []byte{}}
		if i == 0 {
			value = r.Value
			want.Value = r.Value
			want.TimestampDelta = h.MaxTimestamp - h.BaseTimestamp
		}
		if r.Value == nil || !bytes.Equal(r.Append(nil), want.Append(nil)) {
			return nil, fmt.Errorf("outer record %d is not as sealing makes it", i)
		}
	}
	if len(section) != 0 || h.LastOffsetDelta != h.NumRecords-1 {
		return nil, errors.New("outer batch holds other records than its header says")
	}
	return value, nil
}

func nonce(salt [wire.SaltSize]byte) []byte {
	n := make([]byte, 24)
	copy(n, salt[:])
	copy(n[20:], "\xff\xff\xff\xff")
	return n
}

func aad(header []byte, topic string, partition int32) []byte {
	pctx := wire.Pctx([]byte(topic), partition)
	b := append([]byte("KX1 pkt v1\x00"), header...)
	return append(b, pctx[:]...)
}
