package kernel

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"testing"

	"github.com/c2sp/wycheproof"
)

// octets is bytes that are hexadecimal in JSON.
type octets []byte

func (o *octets) UnmarshalText(text []byte) (err error) {
	*o, err = hex.DecodeString(string(text))
	return err
}

// TestWycheproofOfXChaCha20Poly1305 runs natively and, in tests/wycheproof, in WebAssembly.
// Vectors whose nonce is not of 24 bytes ask of a function what these do not take.
func TestWycheproofOfXChaCha20Poly1305(t *testing.T) {
	raw, err := fs.ReadFile(wycheproof.TestVectors, "xchacha20_poly1305_test.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		TestGroups []struct {
			Tests []struct {
				TcID                       int
				Result                     string
				Key, IV, AAD, Msg, CT, Tag octets
			}
		}
	}
	if err := json.Unmarshal(raw, &file); err != nil {
		t.Fatal(err)
	}
	type seal func([]byte, *[KeySize]byte, *[NonceSize]byte, []byte)
	type open func([]byte, *[KeySize]byte, *[NonceSize]byte, []byte) bool
	ran := 0
	for _, g := range file.TestGroups {
		for _, v := range g.Tests {
			if len(v.IV) != NonceSize {
				continue
			}
			ran++
			key, nonce := [KeySize]byte(v.Key), [NonceSize]byte(v.IV)
			sealed := append(bytes.Clone(v.CT), v.Tag...)
			for name, f := range map[string]struct {
				seal
				open
			}{"exported": {Seal, Open}, "module": {sealInPlace, openInPlace}} {
				buf := bytes.Clone(sealed)
				if got := f.open(buf, &key, &nonce, v.AAD); got != (v.Result == "valid") {
					t.Errorf("%s, vector %d: opened %v, %s", name, v.TcID, got, v.Result)
				} else if got && !bytes.Equal(buf[:len(v.Msg)], v.Msg) {
					t.Errorf("%s, vector %d: opened to %x", name, v.TcID, buf)
				} else if !got && !bytes.Equal(buf, sealed) {
					t.Errorf("%s, vector %d: the refused buffer changed", name, v.TcID)
				}
				buf = append(bytes.Clone(v.Msg), make([]byte, TagSize)...)
				f.seal(buf, &key, &nonce, v.AAD)
				if bytes.Equal(buf, sealed) != (v.Result == "valid") {
					t.Errorf("%s, vector %d (%s): sealed %x", name, v.TcID, v.Result, buf)
				}
			}
		}
	}
	if ran < 300 {
		t.Errorf("only %d vectors ran", ran)
	}
	t.Logf("%d vectors", ran)
}
