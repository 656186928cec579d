package lease

import (
	"errors"
	"sync"
	"time"

	"github.com/flynn/noise"

	"github.com/wasm-e2ee/wasm-e2ee/abi/channel"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/scrub"
)

// errUnauthentic says that a message does not verify. How is not told.
var errUnauthentic = errors.New("lease channel: authentication failed")

var suite = noise.NewCipherSuite(noise.DH25519, noise.CipherChaChaPoly, noise.HashSHA256)

// A session is one channel after its handshake. Nonces are implicit: after an error the two
// ends may disagree on them, and the session is over.
type session struct {
	calling sync.Mutex // held during a call: one at a time
	receive *noise.CipherState
	send    *noise.CipherState

	// Guarded by the table's mu.
	last time.Time // of the last call, or the handshake
	used bool      // the other end has shown that it is alive: message 1 may be a repeated one
}

// respond answers message 1 of Noise_NNpsk0_25519_ChaChaPoly_SHA256 with an ephemeral key of its
// own, from the operating system's generator. What the library holds is allocated under
// scrub.Do, and so overwritten some time after the session is dropped.
func respond(key *Key, realm wire.RealmID, first []byte) (s *session, second [channel.HelloSize]byte, err error) {
	if len(first) != channel.HelloSize {
		return nil, second, errUnauthentic
	}
	s, err = new(session), errUnauthentic
	scrub.Do(func() {
		hs, e := noise.NewHandshakeState(noise.Config{
			CipherSuite: suite, Pattern: noise.HandshakeNN, Prologue: channel.Prologue(realm),
			PresharedKey: key[:], PresharedKeyPlacement: 0,
		})
		if e != nil {
			return
		}
		if payload, _, _, e := hs.ReadMessage(nil, first); e != nil || len(payload) != 0 {
			return
		}
		out, fromPlane, fromAgent, e := hs.WriteMessage(nil, nil)
		if e != nil || len(out) != len(second) {
			return
		}
		copy(second[:], out)
		s.receive, s.send, err = fromPlane, fromAgent, nil
	})
	return s, second, err
}

// open decrypts the next message of the data plane. The plaintext has no secret.
func (s *session) open(message []byte) ([]byte, error) {
	if len(message) < channel.TagSize || len(message) > channel.MaxMessage {
		return nil, errUnauthentic
	}
	plain := make([]byte, 0, len(message)-channel.TagSize)
	err := errUnauthentic
	scrub.Do(func() {
		var e error
		if plain, e = s.receive.Decrypt(plain, nil, message); e == nil {
			err = nil
		}
	})
	return plain, err
}

// seal encrypts the next message to the data plane.
func (s *session) seal(plain []byte) ([]byte, error) {
	message := make([]byte, 0, len(plain)+channel.TagSize)
	var err error
	scrub.Do(func() { message, err = s.send.Encrypt(message, nil, plain) })
	return message, err
}
