package channel

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"slices"
)

// KeyTextSize is the size in bytes of a pairing key as a file and the environment hold it: one
// line of hexadecimal digits in lower case.
const KeyTextSize = 2*KeySize + 1

// ErrKey says that a text is no pairing key; never which byte of it is wrong.
var ErrKey = fmt.Errorf("not a pairing key: that is %d hexadecimal digits", 2*KeySize)

// AppendKey appends a pairing key as text, which is the caller's to wipe.
func AppendKey(b []byte, key *[KeySize]byte) []byte {
	return append(hex.AppendEncode(slices.Grow(b, KeyTextSize), key[:]), '\n')
}

// ParseKey reads a pairing key; the line's end may be missing. A key of zeros is refused. After
// an error the key is zeros.
func ParseKey(key *[KeySize]byte, text []byte) error {
	line := bytes.TrimSuffix(text, []byte("\n"))
	if len(line) != 2*KeySize {
		return ErrKey
	}
	if _, err := hex.Decode(key[:], line); err != nil || *key == [KeySize]byte{} {
		clear(key[:])
		return ErrKey
	}
	return nil
}
