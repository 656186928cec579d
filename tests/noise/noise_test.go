// Package noise holds the library that carries enrolments, github.com/flynn/noise, against
// vectors of another implementation, for the two protocols of PROTOCOL.md §2.12; natively, and
// in WebAssembly, where the lease channel's end will run.
package noise

import (
	"bytes"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"testing"

	"github.com/flynn/noise"
)

//go:embed testdata/cacophony.json
var published []byte

type vector struct {
	Protocol              string `json:"protocol"`
	Prologue              text   `json:"prologue"`
	PSK                   text   `json:"psk"`
	InitiatorEphemeral    text   `json:"initiator_ephemeral"`
	ResponderEphemeral    text   `json:"responder_ephemeral"`
	ResponderStatic       text   `json:"responder_static"`
	ResponderStaticPublic text   `json:"responder_static_public"`
	HandshakeHash         text   `json:"handshake_hash"`
	Messages              []struct {
		Payload    text `json:"payload"`
		Ciphertext text `json:"ciphertext"`
	} `json:"messages"`
}

// text is bytes in hexadecimal.
type text []byte

func (t *text) UnmarshalText(b []byte) error {
	*t = make([]byte, hex.DecodedLen(len(b)))
	_, err := hex.Decode(*t, b)
	return err
}

var patterns = map[string]noise.HandshakePattern{
	"Noise_NKpsk0_25519_ChaChaPoly_SHA256": noise.HandshakeNK,
	"Noise_NNpsk0_25519_ChaChaPoly_SHA256": noise.HandshakeNN,
}

// TestPublishedVectors has both ends write and read every message of every vector.
func TestPublishedVectors(t *testing.T) {
	var corpus struct {
		Vectors []vector `json:"vectors"`
	}
	if err := json.Unmarshal(published, &corpus); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, v := range corpus.Vectors {
		seen[v.Protocol] = true
		t.Run(v.Protocol, func(t *testing.T) { run(t, &v) })
	}
	for name := range patterns {
		if !seen[name] {
			t.Errorf("no vector of %s", name)
		}
	}
}

// An end is one side of a handshake, and its channel afterwards.
type end struct {
	state         *noise.HandshakeState
	send, receive *noise.CipherState
}

func run(t *testing.T, v *vector) {
	pattern, ok := patterns[v.Protocol]
	if !ok {
		t.Fatal("not one of ours")
	}
	start := func(initiator bool, ephemeral []byte) *end {
		t.Helper()
		c := noise.Config{
			CipherSuite: noise.NewCipherSuite(noise.DH25519, noise.CipherChaChaPoly, noise.HashSHA256),
			Random:      bytes.NewReader(ephemeral), Pattern: pattern, Initiator: initiator, Prologue: v.Prologue, PresharedKey: v.PSK,
		}
		switch {
		case len(v.ResponderStatic) == 0:
		case initiator:
			c.PeerStatic = v.ResponderStaticPublic
		default:
			c.StaticKeypair = noise.DHKey{Private: v.ResponderStatic, Public: v.ResponderStaticPublic}
		}
		hs, err := noise.NewHandshakeState(c)
		if err != nil {
			t.Fatal(err)
		}
		return &end{state: hs}
	}
	from, to := start(true, v.InitiatorEphemeral), start(false, v.ResponderEphemeral)
	for i, m := range v.Messages {
		written, err := from.write(m.Payload, i%2 == 0)
		if err != nil || !bytes.Equal(written, m.Ciphertext) {
			t.Fatalf("message %d is %x, want %x: %v", i, written, m.Ciphertext, err)
		}
		read, err := to.read(m.Ciphertext, i%2 == 0)
		if err != nil || !bytes.Equal(read, m.Payload) {
			t.Fatalf("message %d holds %x, want %x: %v", i, read, m.Payload, err)
		}
		from, to = to, from
	}
	for _, e := range []*end{from, to} {
		if e.send == nil || !bytes.Equal(e.state.ChannelBinding(), v.HandshakeHash) {
			t.Errorf("handshake hash %x, want %x", e.state.ChannelBinding(), v.HandshakeHash)
		}
	}
}

// split keeps the channel that the last handshake message gives.
func (e *end) split(initiator bool, a, b *noise.CipherState) {
	if initiator {
		e.send, e.receive = a, b
	} else {
		e.send, e.receive = b, a
	}
}

func (e *end) write(payload []byte, initiator bool) ([]byte, error) {
	if e.send != nil {
		return e.send.Encrypt(nil, nil, payload)
	}
	out, a, b, err := e.state.WriteMessage(nil, payload)
	if a != nil {
		e.split(initiator, a, b)
	}
	return out, err
}

// read takes a message whose writer is the initiator, or is not.
func (e *end) read(message []byte, fromInitiator bool) ([]byte, error) {
	if e.receive != nil {
		return e.receive.Decrypt(nil, nil, message)
	}
	out, a, b, err := e.state.ReadMessage(nil, message)
	if a != nil {
		e.split(!fromInitiator, a, b)
	}
	return out, err
}
