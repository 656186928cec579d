// Package leasechannel is a data plane's end of the lease channel (PROTOCOL.md §2.12), written
// from that text for tests of the agent's end: one call at a time, and no more than one message
// of each.
package leasechannel

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/flynn/noise"

	"github.com/wasm-e2ee/wasm-e2ee/abi/channel"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

// A Refusal is the code of an answer that is not 200, and its body.
type Refusal struct {
	Code int
	Body []byte
}

func (r *Refusal) Error() string { return fmt.Sprintf("answered %d, %q", r.Code, r.Body) }

// A Client is one data plane.
type Client struct {
	HTTP *http.Client
	url  string
}

// NewClient reaches the agent that listens on addr, of TCP or of a Unix socket.
func NewClient(addr net.Addr) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, addr.Network(), addr.String())
	}
	return &Client{url: "http://agent", HTTP: &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}}
}

// Post posts body and returns the answer's; an error is a *Refusal where the code is not 200.
func (c *Client) Post(path string, body []byte) ([]byte, error) {
	resp, err := c.HTTP.Post(c.url+path, "application/octet-stream", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = &Refusal{resp.StatusCode, answer}
	}
	return answer, err
}

// A Channel is an open channel.
type Channel struct {
	ID      channel.ID
	c       *Client
	send    *noise.CipherState
	receive *noise.CipherState
}

// Hello is message 1 of a handshake, and what reads message 2.
func Hello(key [channel.KeySize]byte, realm wire.RealmID) (*noise.HandshakeState, []byte, error) {
	hs, err := noise.NewHandshakeState(noise.Config{
		CipherSuite: noise.NewCipherSuite(noise.DH25519, noise.CipherChaChaPoly, noise.HashSHA256),
		Pattern:     noise.HandshakeNN, Initiator: true,
		Prologue:     append([]byte("KX1 lease v1\x00"), realm[:]...),
		PresharedKey: key[:], PresharedKeyPlacement: 0,
	})
	if err != nil {
		return nil, nil, err
	}
	first, _, _, err := hs.WriteMessage(nil, nil)
	return hs, first, err
}

// Open makes a channel.
func (c *Client) Open(key [channel.KeySize]byte, realm wire.RealmID) (*Channel, error) {
	hs, first, err := Hello(key, realm)
	if err != nil {
		return nil, err
	}
	answer, err := c.Post("/kx1/v1/handshake", first)
	if err != nil {
		return nil, err
	}
	if len(answer) != 16+48 {
		return nil, fmt.Errorf("an answer of %d bytes to a handshake", len(answer))
	}
	ch := &Channel{ID: channel.ID(answer[:16]), c: c}
	if _, ch.send, ch.receive, err = hs.ReadMessage(nil, answer[16:]); err != nil {
		return nil, err
	}
	return ch, nil
}

// Keys are the two keys of the channel: what the data plane sends under, and what it receives
// under.
func (ch *Channel) Keys() [2][32]byte {
	return [2][32]byte{ch.send.UnsafeKey(), ch.receive.UnsafeKey()}
}

// Seal is the body of the next call, with a plaintext.
func (ch *Channel) Seal(plain []byte) ([]byte, error) {
	return ch.send.Encrypt(append([]byte(nil), ch.ID[:]...), nil, plain)
}

// Call asks for what requests say.
func (ch *Channel) Call(requests ...channel.Request) ([]channel.Answer, error) {
	body, err := ch.Seal(channel.AppendRequests(nil, requests))
	if err != nil {
		return nil, err
	}
	message, err := ch.c.Post("/kx1/v1/channel", body)
	if err != nil {
		return nil, err
	}
	plain, err := ch.receive.Decrypt(nil, nil, message)
	if err != nil {
		return nil, err
	}
	return channel.ParseAnswers(plain, len(requests))
}
