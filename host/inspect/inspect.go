// Package inspect explains bytes of KX1 and of sealed batches to a person, field by field,
// without any key: what it prints may be seen by whoever sees the bytes. Secrets inside
// private files are named, never printed.
package inspect

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// ErrUnknown says that the bytes are none of ours.
var ErrUnknown = errors.New("not recognised: no KX1 message or file, sealed value, or record batch v2\nhint: an enrolment's messages are ciphertext; the keys of their records tell what they are")

// Describe writes what b is to w. b may be the bytes themselves, or their hexadecimal or
// base64 text. The error is ErrUnknown, or says which message is malformed and how.
func Describe(w io.Writer, b []byte) error {
	p := &printer{w: w}
	for _, form := range forms(b) {
		if known, err := p.describe(form); known {
			return errors.Join(err, p.err)
		}
	}
	return ErrUnknown
}

// forms lists what b may stand for, its own bytes first.
func forms(b []byte) [][]byte {
	out := [][]byte{b}
	text := strings.Join(strings.Fields(string(b)), "")
	if raw, err := hex.DecodeString(text); err == nil && len(raw) > 0 {
		out = append(out, raw)
	}
	for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
		if raw, err := enc.DecodeString(text); err == nil && len(raw) > 0 {
			out = append(out, raw)
		}
	}
	return out
}

// describe reports whether b is known, and prints it.
func (p *printer) describe(b []byte) (bool, error) {
	if block, _ := pem.Decode(b); block != nil {
		return p.file(block.Type, b)
	}
	if bytes.HasPrefix(b, []byte(keyring.StateMagic)) {
		return true, p.state(b)
	}
	if bytes.HasPrefix(b, []byte(keyring.BookMagic)) {
		return true, p.book(b)
	}
	if bytes.HasPrefix(bytes.TrimSpace(b), []byte(keyring.TicketPrefix)) {
		return true, p.ticket(b)
	}
	if len(b) > 0 && (b[0] == wire.PackedMagic || b[0] == wire.RecordMagic) {
		if err := p.value(b); err == nil {
			return true, nil
		}
	}
	if t, err := wire.TypeOf(b); err == nil {
		return true, p.control(t, b)
	}
	if p.kafkaKey(b) {
		return true, nil
	}
	if h, err := kafka.ParseBatchHeader(b); err == nil {
		return true, p.batch(h, b)
	}
	return false, nil
}

// value prints the header of a sealed value (PROTOCOL.md §2.4, §2.5).
func (p *printer) value(b []byte) error {
	if h, err := wire.ParsePackedHeader(b); err == nil {
		p.title("sealed value, packed format, %d bytes", len(b))
		p.field("magic", "0x%02x", wire.PackedMagic)
		p.field("suite", "%d", wire.Suite)
		p.field("kid", "%x", h.Kid)
		p.field("leaf", "%d", h.Leaf)
		p.field("records", "%d", h.NumRecords)
		p.field("salt", "%x", h.Salt)
		p.field("ciphertext", "%d bytes: codec, timestamps and the record section", len(b)-wire.PackedHeaderSize-wire.TagSize)
		p.field("tag", "%x", b[len(b)-wire.TagSize:])
		return nil
	}
	h, err := wire.ParseRecordHeader(b)
	if err != nil {
		return err
	}
	p.title("sealed value, record format, %d bytes", len(b))
	p.field("magic", "0x%02x", wire.RecordMagic)
	p.field("kid", "%x", h.Kid)
	p.field("leaf", "%d", h.Leaf)
	p.field("ordinal", "%d", h.Ord)
	p.field("salt", "%x", h.Salt)
	p.field("ciphertext", "%d bytes", len(b)-wire.RecordHeaderSize-wire.TagSize)
	p.field("tag", "%x", b[len(b)-wire.TagSize:])
	return nil
}

// batch prints a record batch v2 and, where it is sealed, the value inside it.
func (p *printer) batch(h kafka.BatchHeader, b []byte) error {
	size, err := kafka.BatchSize(b)
	if err != nil {
		return fmt.Errorf("record batch: %w", err)
	}
	p.title("record batch v2, %d bytes", size)
	p.field("base offset", "%d", h.BaseOffset)
	p.field("records", "%d, last offset delta %d", h.NumRecords, h.LastOffsetDelta)
	p.field("attributes", "0x%04x: codec %s%s%s%s", uint16(h.Attributes), h.Codec(), flag(h.IsTransactional(), ", transactional"),
		flag(h.IsControl(), ", control"), flag(h.LogAppendTime(), ", log append time"))
	p.field("timestamps", "%s to %s", ms(uint64(h.BaseTimestamp)), ms(uint64(h.MaxTimestamp)))
	p.field("producer", "id %d, epoch %d, sequence %d", h.ProducerID, h.ProducerEpoch, h.BaseSequence)
	p.field("crc-32c", "%08x: %s", h.CRC, right(kafka.BatchCRC(b[:size]) == h.CRC))
	if size < len(b) {
		p.field("followed by", "%d more bytes", len(b)-size)
	}
	if h.Codec() != kafka.CodecNone {
		p.field("sealed", "cannot tell without decompressing")
		return nil
	}
	var first kafka.Record
	if _, err := kafka.NextRecord(b[kafka.BatchHeaderSize:size], &first); err != nil {
		return fmt.Errorf("first record: %w", err)
	}
	if p.value(first.Value) != nil {
		p.field("sealed", "NO: the first record's value has no sealed header")
	}
	return nil
}

// A printer writes fields in columns and keeps the first error.
type printer struct {
	w   io.Writer
	err error
}

func (p *printer) title(format string, args ...any) { p.printf(format+"\n", args...) }

func (p *printer) field(name, format string, args ...any) {
	p.printf("  %-14s "+format+"\n", append([]any{name}, args...)...)
}

func (p *printer) printf(format string, args ...any) {
	if _, err := fmt.Fprintf(p.w, format, args...); err != nil && p.err == nil {
		p.err = err
	}
}

func ms(t uint64) string {
	return time.UnixMilli(int64(t)).UTC().Format("2006-01-02T15:04:05.000Z")
}

func flag(set bool, text string) string {
	if set {
		return text
	}
	return ""
}

func right(ok bool) string {
	if ok {
		return "right"
	}
	return "WRONG"
}

func list(patterns []wire.Pattern, none string) string {
	if len(patterns) == 0 {
		return none
	}
	names := make([]string, len(patterns))
	for i, p := range patterns {
		names[i] = p.String()
	}
	return strings.Join(names, ", ")
}
