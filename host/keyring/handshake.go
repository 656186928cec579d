package keyring

import (
	"bytes"
	"crypto/ecdh"
	"fmt"

	"github.com/flynn/noise"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/scrub"
)

// The handshake of an enrolment (PROTOCOL.md §2.12) as functions of the ticket, the end's own
// keys and the messages: nothing of a handshake is kept between two messages but the 32 bytes
// of an ephemeral key. The library's state cannot be used again after an error, and made anew
// for each message it need not be: what does not authenticate spoils nothing, an equal message
// 1 gets an equal message 2, and an issuer that was restarted goes on where it was.
//
// The library wipes nothing. They are called under scrub.Do.

// helloSize is the size of both handshake messages: an ephemeral key and the tag of an empty
// payload.
const helloSize = 32 + 16

// A channel is what both ends hold after the handshake. Each direction carries one message.
type channel struct {
	hash       wire.Digest // of the handshake, which the request's signature covers
	fromNode   *noise.CipherState
	fromIssuer *noise.CipherState
}

var enrolmentSuite = noise.NewCipherSuite(noise.DH25519, noise.CipherChaChaPoly, noise.HashSHA256)

// handshake begins Noise_NKpsk0_25519_ChaChaPoly_SHA256 for one end with an ephemeral key of
// its own.
func handshake(t *wire.Ticket, ephemeral *secretKey, change func(*noise.Config)) (*noise.HandshakeState, error) {
	if err := checkTicket(t); err != nil {
		return nil, err
	}
	realm := wire.RealmIDOf(t.Root)
	prologue := append([]byte("KX1 enrol v1\x00"), realm[:]...)
	c := noise.Config{
		CipherSuite:           enrolmentSuite,
		Random:                bytes.NewReader(ephemeral[:]),
		Pattern:               noise.HandshakeNK,
		Prologue:              append(prologue, t.ID[:]...),
		PresharedKey:          t.PSK[:],
		PresharedKeyPlacement: 0,
	}
	change(&c)
	hs, err := noise.NewHandshakeState(c)
	if err != nil {
		return nil, fmt.Errorf("enrolment: %w", err)
	}
	return hs, nil
}

// hello writes message 1: e, es under the psk.
func hello(t *wire.Ticket, ephemeral *secretKey) (*noise.HandshakeState, [helloSize]byte, error) {
	var message [helloSize]byte
	hs, err := handshake(t, ephemeral, func(c *noise.Config) { c.Initiator, c.PeerStatic = true, t.Static[:] })
	if err != nil {
		return nil, message, err
	}
	out, _, _, err := hs.WriteMessage(nil, nil)
	if err != nil || len(out) != helloSize {
		return nil, message, fmt.Errorf("enrolment: message 1 of %d bytes: %w", len(out), ErrUnauthentic)
	}
	return hs, [helloSize]byte(out), nil
}

// answer reads message 1 and writes message 2: e, ee.
func answer(t *wire.Ticket, static, ephemeral *secretKey, first []byte) (second [helloSize]byte, c channel, err error) {
	if len(first) != helloSize {
		return second, c, fmt.Errorf("enrolment: message 1 of %d bytes: %w", len(first), wire.ErrMalformed)
	}
	private := *static
	defer clear(private[:])
	hs, err := handshake(t, ephemeral, func(c *noise.Config) {
		c.StaticKeypair = noise.DHKey{Private: private[:], Public: t.Static[:]}
	})
	if err != nil {
		return second, c, err
	}
	if payload, _, _, err := hs.ReadMessage(nil, first); err != nil || len(payload) != 0 {
		return second, c, fmt.Errorf("enrolment: message 1: %w", ErrUnauthentic)
	}
	out, fromNode, fromIssuer, err := hs.WriteMessage(nil, nil)
	if err != nil || len(out) != helloSize {
		return second, c, fmt.Errorf("enrolment: message 2: %w", ErrUnauthentic)
	}
	return [helloSize]byte(out), channel{wire.Digest(hs.ChannelBinding()), fromNode, fromIssuer}, nil
}

// finish reads message 2 of the handshake that the ephemeral key began.
func finish(t *wire.Ticket, ephemeral *secretKey, second []byte) (channel, error) {
	if len(second) != helloSize {
		return channel{}, fmt.Errorf("enrolment: message 2 of %d bytes: %w", len(second), wire.ErrMalformed)
	}
	hs, _, err := hello(t, ephemeral)
	if err != nil {
		return channel{}, err
	}
	payload, fromNode, fromIssuer, err := hs.ReadMessage(nil, second)
	if err != nil || len(payload) != 0 {
		return channel{}, fmt.Errorf("enrolment: message 2: %w", ErrUnauthentic)
	}
	return channel{wire.Digest(hs.ChannelBinding()), fromNode, fromIssuer}, nil
}

// open decrypts the only message of its direction.
func open(cs *noise.CipherState, message []byte) ([]byte, error) {
	if len(message) > wire.MaxNoiseMessage {
		return nil, fmt.Errorf("enrolment: message of %d bytes: %w", len(message), wire.ErrMalformed)
	}
	plain, err := cs.Decrypt(nil, nil, message)
	if err != nil {
		return nil, fmt.Errorf("enrolment: %w", ErrUnauthentic)
	}
	return plain, nil
}

// staticPublic is the X25519 public key of a private one.
func staticPublic(private *secretKey) ([32]byte, error) {
	var public [32]byte
	var err error
	scrub.Do(func() {
		var key *ecdh.PrivateKey
		if key, err = ecdh.X25519().NewPrivateKey(private[:]); err == nil {
			copy(public[:], key.PublicKey().Bytes())
		}
	})
	if err != nil {
		return public, fmt.Errorf("enrolment key: %w", err)
	}
	return public, nil
}
