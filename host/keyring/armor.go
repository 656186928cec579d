package keyring

import (
	"bytes"
	"encoding/pem"
	"fmt"
)

// Kinds of the text files that people carry between machines. PRIVATE ones hold a key.
const (
	armorCSR        = "KX1 SIGNING REQUEST"
	armorCredential = "KX1 CREDENTIAL"
	armorRoot       = "KX1 ROOT PRIVATE KEY"
	armorIssuer     = "KX1 ISSUER PRIVATE KEY"
)

// armor encodes a file as PEM (RFC 7468) of the given kind.
func armor(kind string, body []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: body})
}

// unarmor reads exactly one block of the given kind, with nothing but white space around.
func unarmor(kind string, file []byte) ([]byte, error) {
	file = bytes.TrimSpace(file)
	block, rest := pem.Decode(file)
	switch {
	case block == nil || !bytes.HasPrefix(file, []byte("-----BEGIN ")):
		return nil, fmt.Errorf("not a %s file: it starts with -----BEGIN %s-----", kind, kind)
	case block.Type != kind:
		return nil, fmt.Errorf("this is a %s file, want a %s file", block.Type, kind)
	case len(block.Headers) != 0 || len(rest) != 0:
		return nil, fmt.Errorf("%s file: something follows or precedes its block", kind)
	}
	return block.Bytes, nil
}
