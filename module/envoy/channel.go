package envoy

import (
	"errors"
	"fmt"
	"io"

	"github.com/flynn/noise"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/channel"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

// After a call that failed the next one waits, in ms: twice as long each time.
const (
	firstRetry = 100
	lastRetry  = 3200
)

// A Channel is the module's end of the lease channel (PROTOCOL.md §2.12). The caller makes the
// HTTP calls that it asks for, one at a time.
//
// Noise_NNpsk0_25519_ChaChaPoly_SHA256, initiator. Nonces are implicit, so that after any error
// the channel is dropped, and a fresh one made for the next call.
type Channel struct {
	keys   *Keys
	random io.Reader
	realm  wire.RealmID
	psk    [channel.KeySize]byte

	hello   *noise.HandshakeState // while message 2 is awaited
	id      channel.ID
	out, in *noise.CipherState // nil while there is no channel
	usedAt  uint64             // Unix ms
	busy    bool               // a call is under way
	retryAt uint64
	retry   uint64
	stats   ChannelStats
}

// ChannelStats counts calls since the start.
type ChannelStats struct {
	Handshakes uint64 // that succeeded
	Calls      uint64 // that succeeded, handshakes apart
	Failures   uint64 // calls and handshakes that did not
}

// A Call is one HTTP/1.1 POST that the agent is to receive.
type Call struct {
	Path string
	Body []byte
}

var suite = noise.NewCipherSuite(noise.DH25519, noise.CipherChaChaPoly, noise.HashSHA256)

// NewChannel returns the channel of one virtual machine to its agent. An all-zero pairing key
// is refused: somebody forgot to set it.
func NewChannel(realm wire.RealmID, pairing *[channel.KeySize]byte, random io.Reader, keys *Keys) (*Channel, error) {
	if *pairing == [channel.KeySize]byte{} {
		return nil, errors.New("the pairing key is empty (hint: make one with wasm-e2ee agent pair)")
	}
	keys.cutOff = true // until it has answered
	return &Channel{keys: keys, random: random, realm: realm, psk: *pairing}, nil
}

// Stats returns the counters as they are now.
func (c *Channel) Stats() ChannelStats { return c.stats }

// Next erases the keys whose time is over, and returns the call to make now; ok is false where
// there is none. Answered must follow before the next one.
func (c *Channel) Next(now uint64) (call Call, ok bool) {
	c.keys.expire(now)
	if c.busy || now < c.retryAt && c.retryAt-now <= lastRetry {
		return Call{}, false
	}
	requests := c.keys.requests(now)
	if len(requests) == 0 {
		return Call{}, false
	}
	if c.out != nil && now-c.usedAt >= uint64(channel.IdleLimit.Milliseconds()) {
		c.drop() // the agent has dropped it too
	}
	var err error
	if c.out == nil {
		call, err = c.greet() // the requests follow once the channel stands
	} else {
		call, err = c.ask(requests)
	}
	if err != nil {
		c.fail(now)
		return Call{}, false
	}
	c.busy = true
	return call, true
}

// greet writes message 1: psk, e.
func (c *Channel) greet() (Call, error) {
	psk := c.psk
	hs, err := noise.NewHandshakeState(noise.Config{
		CipherSuite: suite, Random: c.random, Pattern: noise.HandshakeNN, Initiator: true,
		Prologue: channel.Prologue(c.realm), PresharedKey: psk[:], PresharedKeyPlacement: 0,
	})
	if err != nil {
		return Call{}, err
	}
	message, _, _, err := hs.WriteMessage(nil, nil)
	if err != nil {
		return Call{}, err
	}
	if len(message) != channel.HelloSize {
		return Call{}, fmt.Errorf("message 1 of %d bytes", len(message)) // the psk was not mixed in
	}
	c.hello = hs
	return Call{channel.HandshakePath, message}, nil
}

// ask seals requests as one transport message.
func (c *Channel) ask(requests []channel.Request) (Call, error) {
	plain := channel.AppendRequests(nil, requests)
	body, err := c.out.Encrypt(append([]byte(nil), c.id[:]...), nil, plain)
	return Call{channel.CallPath, body}, err
}

// Answered takes the outcome of the call that Next returned last: the HTTP status, 0 where
// there was no answer, and the body.
func (c *Channel) Answered(status int, body []byte, now uint64) {
	if !c.busy {
		return
	}
	c.busy = false
	var err error
	switch {
	case status != 200:
		err = errors.New("refused")
	case c.hello != nil:
		if err = c.greeted(body); err == nil {
			c.stats.Handshakes++
		}
	default:
		if err = c.told(body, now); err == nil {
			c.stats.Calls++
		}
	}
	if err != nil {
		if status != 410 { // after which a fresh channel follows at once
			c.keys.cutOff, c.keys.answer = true, status
		}
		c.keys.cfg.report(Event{Kind: EventChannel, HTTP: status})
		c.fail(now)
		return
	}
	if c.keys.cutOff {
		c.keys.cutOff = false
		c.keys.cfg.report(Event{Kind: EventChannelUp})
	}
	c.usedAt, c.retry, c.retryAt = now, 0, 0
}

// greeted reads message 2: e, ee.
func (c *Channel) greeted(body []byte) error {
	hs := c.hello
	c.hello = nil
	if len(body) != channel.IDSize+channel.HelloSize {
		return channel.ErrMalformed
	}
	payload, out, in, err := hs.ReadMessage(nil, body[channel.IDSize:])
	if err != nil {
		return abi.StatusUnauthentic
	}
	if len(payload) != 0 || out == nil || in == nil {
		return channel.ErrMalformed
	}
	c.id, c.out, c.in = channel.ID(body), out, in
	return nil
}

// told opens one transport message and gives the answers in it to the keys.
func (c *Channel) told(body []byte, now uint64) error {
	if len(body) > channel.MaxMessage {
		return channel.ErrMalformed
	}
	plain, err := c.in.Decrypt(make([]byte, 0, len(body)), nil, body)
	if err != nil {
		return abi.StatusUnauthentic
	}
	defer clear(plain)
	answers, err := channel.ParseAnswers(plain, len(c.keys.asked))
	if err != nil {
		return err
	}
	return c.keys.answered(answers, now)
}

// fail drops the channel after any error, and has the next call wait.
func (c *Channel) fail(now uint64) {
	c.drop()
	c.stats.Failures++
	c.retry = min(max(2*c.retry, firstRetry), lastRetry)
	c.retryAt = now + c.retry
}

func (c *Channel) drop() { c.hello, c.id, c.out, c.in = nil, channel.ID{}, nil, nil }
