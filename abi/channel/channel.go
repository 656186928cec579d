// Package channel holds the bytes of the lease channel (PROTOCOL.md §2.12), over which a data
// plane without storage gets its keys from `wasm-e2ee agent`: where the two meet over HTTP, and
// the plaintexts of the Noise messages they exchange. Integers are big-endian; the blocks of
// package abi, which are the body of some answers, keep their own order.
//
// It imports the standard library, abi and abi/wire only, does no I/O, reads no clock, and draws
// no randomness. Parsers accept one encoding per meaning and leave their input alone.
package channel

import (
	"errors"
	"fmt"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

// Where a data plane posts, over HTTP/1.1 on loopback or on a Unix socket.
const (
	// HandshakePath takes Noise message 1 and answers ID ‖ Noise message 2.
	HandshakePath = "/kx1/v1/handshake"
	// CallPath takes ID ‖ one transport message and answers one transport message.
	CallPath = "/kx1/v1/channel"
)

// Sizes in bytes.
const (
	KeySize      = 32                   // the pairing key, which is the psk
	HelloSize    = 32 + 16              // a handshake message: an ephemeral key, and the tag of an empty payload
	IDSize       = 16                   // what names a channel; random
	TagSize      = 16                   // of a transport message
	MaxMessage   = 1<<16 - 1            // a transport message
	MaxPlaintext = MaxMessage - TagSize // what is in it
	MaxCall      = IDSize + MaxMessage  // what CallPath takes
)

// Times.
const (
	// RootLife is how long a root may be kept after it was given or last renewed.
	RootLife = 60 * time.Second
	// IdleLimit is how long a channel lasts without a call.
	IdleLimit = 5 * time.Minute
	// AnswerTime is the longest that an agent waits for a key before it answers that it is not
	// there yet.
	AnswerTime = 400 * time.Millisecond
)

// An ID names a channel between a handshake and its end. It is public.
type ID [IDSize]byte

// ErrMalformed says that bytes are no encoding of what was asked for, or that something
// follows it.
var ErrMalformed = errors.New("malformed")

// Prologue is the prologue of the handshake: "KX1 lease v1\0" ‖ realm_id.
func Prologue(realm wire.RealmID) []byte {
	return append([]byte("KX1 lease v1\x00"), realm[:]...)
}

// A reader walks a plaintext. The first failure sticks, and everything read after it is zero.
type reader struct {
	b   []byte
	bad bool
}

// take returns the next n bytes, aliasing the input.
func (r *reader) take(n int) []byte {
	if r.bad || n > len(r.b) {
		r.bad = true
		return nil
	}
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}

// uint reads an integer of n bytes.
func (r *reader) uint(n int) (v uint64) {
	for _, c := range r.take(n) {
		v = v<<8 | uint64(c)
	}
	return v
}

// end reports the result of a parse that must have consumed everything.
func (r *reader) end(what string) error {
	if r.bad || len(r.b) != 0 {
		return fmt.Errorf("lease channel: %s: %w", what, ErrMalformed)
	}
	return nil
}
