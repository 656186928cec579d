package inspect

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

func sealed() []byte {
	h := wire.PackedHeader{Kid: abi.Kid{0xb4, 0xb6, 7: 1}, Leaf: 5, NumRecords: 3}
	copy(h.Salt[:], "saltsalt")
	return append(h.Append(nil), bytes.Repeat([]byte{0xcc}, 20+wire.TagSize)...)
}

const sealedText = `sealed value, packed format, 61 bytes
  magic          0xe2
  suite          1
  kid            b4b6000000000001
  leaf           5
  records        3
  salt           73616c7473616c74
  ciphertext     20 bytes: codec, timestamps and the record section
  tag            cccccccccccccccccccccccccccccccc
`

func batch(value []byte) []byte {
	record := kafka.Record{Value: value}
	h := kafka.BatchHeader{BaseOffset: 42, Magic: kafka.BatchMagic, BaseTimestamp: 1_700_000_000_000,
		MaxTimestamp: 1_700_000_000_000, ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1, NumRecords: 1}
	b := record.Append(make([]byte, kafka.BatchHeaderSize))
	h.BatchLength = int32(len(b) - kafka.BatchLengthEnd)
	h.Put(b)
	kafka.SetBatchCRC(b)
	return b
}

func describe(t *testing.T, b []byte) string {
	t.Helper()
	var out strings.Builder
	if err := Describe(&out, b); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	return out.String()
}

func TestASealedValueIsExplainedInEachSpelling(t *testing.T) {
	b := sealed()
	for name, form := range map[string][]byte{
		"bytes":         b,
		"hex":           []byte(hex.EncodeToString(b)),
		"hex in lines":  []byte(strings.ToUpper(hex.EncodeToString(b[:20])) + "\n  " + hex.EncodeToString(b[20:]) + "\n"),
		"base64":        []byte(base64.StdEncoding.EncodeToString(b) + "\n"),
		"base64 of URL": []byte(base64.RawURLEncoding.EncodeToString(b)),
	} {
		if got := describe(t, form); got != sealedText {
			t.Errorf("%s:\n%s\nwant:\n%s", name, got, sealedText)
		}
	}
}

func TestABatchSaysWhetherItIsSealed(t *testing.T) {
	b := batch(sealed())
	for _, want := range []string{"base offset    42\n", "timestamps     2023-11-14T22:13:20.000Z to", "crc-32c        ", ": right\n", sealedText} {
		if got := describe(t, b); !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	b[len(b)-9] ^= 1
	if got := describe(t, b); !strings.Contains(got, ": WRONG\n") {
		t.Errorf("a wrong checksum is not shown:\n%s", got)
	}
	if got := describe(t, batch([]byte("order 1"))); !strings.Contains(got, "sealed         NO") {
		t.Errorf("a plain batch is not called one:\n%s", got)
	}
}

// TestFilesAreExplainedWithoutTheirSecrets goes through what a realm and a node have on disk.
func TestFilesAreExplainedWithoutTheirSecrets(t *testing.T) {
	now := time.Now()
	root, err := keyring.NewRealm(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	issuer, err := root.CertifyIssuer(rand.Reader, now, now.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	state, err := keyring.NewState(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr := state.Node().CSR(keyring.Attributes{Roles: wire.RoleConsume, OfflineAllow: 72 * time.Hour,
		Topics: []wire.Pattern{{Name: "orders"}}, Groups: []wire.Pattern{{Prefix: true, Name: "bill"}}})
	credential, err := issuer.Issue(rand.Reader, csr, nil, keyring.Validity{NotBefore: now, NotAfter: now.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	empty := describe(t, state.Marshal())
	if err := state.Node().Install(credential, now); err != nil {
		t.Fatal(err)
	}
	node := "node           " + state.Node().ID().String() + "\n"
	const asked = "topics         orders\n  groups         bill*\n"
	for name, c := range map[string]struct {
		got  string
		want []string
	}{
		"root":       {describe(t, root.Marshal()), []string{"KX1 ROOT PRIVATE KEY: holds a secret, which is not shown\n"}},
		"issuer":     {describe(t, issuer.Marshal()), []string{"KX1 ISSUER PRIVATE KEY: holds a secret, which is not shown\n"}},
		"request":    {describe(t, csr), []string{"signature verified", node, "offline        72h0m0s\n", "roles          consume\n", asked}},
		"credential": {describe(t, credential), []string{"chain verified", node, "offline        72h0m0s\n", asked, "roles          issuer\n"}},
		"new state":  {empty, []string{"credential     none yet\n"}},
		"state":      {describe(t, state.Marshal()), []string{node, asked, "erased         0 topic secrets"}},
	} {
		for _, want := range c.want {
			if !strings.Contains(c.got, want) {
				t.Errorf("%s: no %q in\n%s", name, want, c.got)
			}
		}
	}
	for name, file := range map[string][]byte{"root": root.Marshal(), "issuer": issuer.Marshal()} {
		text := strings.Split(string(file), "\n")
		if got := describe(t, file); strings.Contains(got, text[1]) {
			t.Errorf("%s: its key is printed:\n%s", name, got)
		}
	}
}

func TestControlMessagesAreExplained(t *testing.T) {
	bundle := wire.PrekeyBundle{Generation: 7, Created: 1_700_000_000_000, NotAfter: 1_700_000_180_000}
	got := describe(t, bundle.Append(nil))
	for _, want := range []string{"PrekeyBundle, ", "generation     7\n", "created        2023-11-14T22:13:20.000Z\n", "all topics of the credential"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	var out strings.Builder
	b := bundle.Append(nil)
	if err := Describe(&out, b[:len(b)-1]); err == nil || errors.Is(err, ErrUnknown) {
		t.Errorf("a cut bundle: %v\n%s", err, &out)
	}
}

func TestOtherBytesAreNotOurs(t *testing.T) {
	for _, text := range []string{"", "order 1: 1 coffee", "e2", strings.Repeat("A", 400)} {
		var out strings.Builder
		if err := Describe(&out, []byte(text)); !errors.Is(err, ErrUnknown) {
			t.Errorf("%q: %v\n%s", text, err, &out)
		}
	}
}

// FuzzDescribe wants an explanation or an error of any bytes, and the bytes left alone.
func FuzzDescribe(f *testing.F) {
	bundle := wire.PrekeyBundle{Generation: 7}
	for _, b := range [][]byte{sealed(), batch(sealed()), batch(nil), bundle.Append(nil), []byte(hex.EncodeToString(sealed()))} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		var out strings.Builder
		if err := Describe(&out, b); err == nil && out.Len() == 0 {
			t.Error("neither explained nor refused")
		}
		if !bytes.Equal(b, before) {
			t.Error("the bytes changed")
		}
	})
}
