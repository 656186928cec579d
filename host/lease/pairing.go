package lease

import (
	"bytes"
	"encoding/hex"
	"errors"
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

// keyText is the size of a key as a file holds it.
const keyText = 2*channel.KeySize + 1

// MarshalKey is the key as a file holds it, which is the caller's to wipe: one line of
// hexadecimal digits in lower case.
func MarshalKey(k *Key) []byte {
	return append(hex.AppendEncode(make([]byte, 0, keyText), k[:]), '\n')
}

var errKey = errors.New("not a pairing key")

// ReadKey reads a key from the file at path, which its owner alone may read.
func ReadKey(path string) (*Key, error) {
	text, err := private.Read(path, keyText)
	if err != nil {
		return nil, fmt.Errorf("pairing key: %w\nhint: `wasm-e2ee agent pair --out FILE` makes one", err)
	}
	defer clear(text)
	k := new(Key)
	if line := bytes.TrimSuffix(text, []byte("\n")); len(line) != 2*len(k) {
		err = errKey
	} else if _, bad := hex.Decode(k[:], line); bad != nil || *k == (Key{}) {
		err = errKey // without the byte that is wrong
	}
	if err != nil {
		k.Wipe()
		return nil, fmt.Errorf("%s is %w: that is %d hexadecimal digits\nhint: `wasm-e2ee agent pair --out FILE` makes one", path, err, 2*len(k))
	}
	return k, nil
}
