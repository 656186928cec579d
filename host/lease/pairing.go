package lease

import (
	"fmt"
	"io"

	"github.com/wasm-e2ee/wasm-e2ee/abi/channel"
	"github.com/wasm-e2ee/wasm-e2ee/host/private"
)

// A Key is a pairing key: whoever has it gets keys from the agent (PROTOCOL.md §2.12). SECRET.
type Key [channel.KeySize]byte

// String does not print the key.
func (*Key) String() string { return "pairing key" }

// Wipe overwrites the key.
func (k *Key) Wipe() { clear(k[:]) }

// NewKey draws a key from random.
func NewKey(random io.Reader) (*Key, error) {
	k := new(Key)
	if _, err := io.ReadFull(random, k[:]); err != nil {
		return nil, fmt.Errorf("pairing key: %w", err)
	}
	return k, nil
}

// MarshalKey is the key as a file holds it, which is the caller's to wipe.
func MarshalKey(k *Key) []byte { return channel.AppendKey(nil, (*[channel.KeySize]byte)(k)) }

// ReadKey reads a key from the file at path, which its owner alone may read.
func ReadKey(path string) (*Key, error) {
	text, err := private.Read(path, channel.KeyTextSize)
	if err != nil {
		return nil, fmt.Errorf("pairing key: %w\nhint: `wasm-e2ee agent pair --out FILE` makes one", err)
	}
	defer clear(text)
	k := new(Key)
	if err := channel.ParseKey((*[channel.KeySize]byte)(k), text); err != nil {
		return nil, fmt.Errorf("%s is %w\nhint: `wasm-e2ee agent pair --out FILE` makes one", path, err)
	}
	return k, nil
}
