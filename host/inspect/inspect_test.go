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
		"state": {describe(t, state.Marshal()), []string{node, asked, "authority      no AuthorityState seen\n", "first bundle   none yet\n",
			"grants read    none yet\n", "erased         0 topic secrets in the life of this state, 0 remembered\n", "marks          of 0 nodes"}},
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

// TestEveryControlMessageIsExplained has one of each type with what an operator looks for.
func TestEveryControlMessageIsExplained(t *testing.T) {
	const at = 1_700_000_000_000
	header := wire.GrantHeader{Epoch: 7, Start: at, UseBy: at + 1000, AuthoritySeq: 3, Topics: []wire.GrantTopic{{Name: "orders", Commit: wire.Digest{9}}}}
	grant := wire.Grant{Header: header, Partition: 5}
	kid := hex.EncodeToString(func() []byte { k := keyring.KidOf(wire.Digest{9}); return k[:] }())
	explained := map[wire.Type]bool{}
	for _, c := range []struct {
		kind wire.Type
		m    interface{ Append([]byte) []byte }
		want []string
	}{
		{wire.TypeCredential, &wire.Credential{NotBefore: at, NotAfter: at + 1000, Roles: wire.RoleConsume, Topics: []wire.Pattern{{Name: "orders"}}, Lineage: 2},
			[]string{"lineage 2\n", "roles          consume\n", "topics         orders\n"}},
		{wire.TypeAuthorityState, &wire.AuthorityState{Seq: 4, Issued: at, NextUpdate: at + 3600_000, Revoked: []wire.Revocation{{Serial: wire.Serial{0xaa}, At: at}}},
			[]string{"seq            4\n", "next update    2023-11-14T23:13:20.000Z\n", "revoked        aa000000000000000000000000000000, at 2023-11-14T22:13:20.000Z\n"}},
		{wire.TypePrekeyBundle, &wire.PrekeyBundle{Generation: 7, Created: at, NotAfter: at + 1000},
			[]string{"generation     7\n", "created        2023-11-14T22:13:20.000Z\n", "all topics of the credential"}},
		{wire.TypeEpochGrant, &grant, []string{"part           5 of 16\n", "epoch          7\n", "authority seq  3\n", "orders, commit 09", "kid " + kid}},
		{wire.TypeKeyShare, &wire.KeyShare{Proof: grant.Proof(), Sharer: wire.NodeID{1}, Recipient: wire.NodeID{2}, Topic: "orders"},
			[]string{"sharer         0100", "recipient      0200", "orders, kid " + kid + "\n", "epoch          7\n"}},
		{wire.TypeEpochRequest, &wire.EpochRequest{Group: "billing", Created: at, Kids: [][wire.KidSize]byte{{1}, {2}}},
			[]string{"group          billing\n", "kid            0100000000000000\n  kid            0200000000000000\n"}},
		{wire.TypeRenewal, &wire.Renewal{Credential: wire.Serial{0xcc}, Subject: wire.PublicKey{0xdd}}, []string{"credential     cc00", "subject        dd00"}},
	} {
		b := c.m.Append(nil)
		got := describe(t, b)
		for _, want := range append(c.want, c.kind.String()+", ", " bytes\n", "signature      present") {
			if !strings.Contains(got, want) {
				t.Errorf("%s: no %q in\n%s", c.kind, want, got)
			}
		}
		var out strings.Builder
		if err := Describe(&out, b[:len(b)-1]); err == nil || errors.Is(err, ErrUnknown) {
			t.Errorf("a cut %s: %v\n%s", c.kind, err, &out)
		}
		explained[c.kind] = true
	}
	for kind := wire.Type(0); kind < 255; kind++ {
		if _, err := wire.TypeOf(append([]byte{wire.Version, byte(kind), wire.Suite}, make([]byte, 100)...)); err == nil && !explained[kind] {
			t.Errorf("%s is not explained", kind)
		}
	}
	key := wire.EnrolmentKey{Ticket: wire.TicketID{0xab}, Attempt: wire.Attempt{0xcd}, Step: 3}
	for _, want := range []string{"Enrolment", "ticket         ab00", "attempt        cd00", "message        3 of 4: the node's request\n"} {
		if got := describe(t, key.Append(nil)); !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}

func TestATicketIsExplainedWithoutItsKey(t *testing.T) {
	ticket := wire.Ticket{ID: wire.TicketID{0xab}, Roles: wire.RoleConsume, NotAfter: 1_700_000_000_000, Topics: []wire.Pattern{{Name: "orders"}}}
	copy(ticket.PSK[:], bytes.Repeat([]byte{0x5e}, 32))
	line := append(keyring.MarshalTicket(&ticket), '\n')
	got := describe(t, line)
	for _, want := range []string{"not shown\n", "ticket         ab00", "not after      2023-11-14T22:13:20.000Z\n", "topics         orders\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if strings.Contains(got, "5e5e") {
		t.Errorf("its key is printed:\n%s", got)
	}
	var out strings.Builder
	if err := Describe(&out, line[:len(line)-9]); err == nil || errors.Is(err, ErrUnknown) {
		t.Errorf("a cut ticket: %v", err)
	}
}

func TestAnIssuersBookIsExplainedWithoutItsKeys(t *testing.T) {
	now := time.Now()
	root, err := keyring.NewRealm(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	issuer, err := root.CertifyIssuer(rand.Reader, now.Add(-time.Minute), now.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	book, err := keyring.NewBook(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ticket, err := book.NewTicket(rand.Reader, issuer, keyring.Attributes{Roles: wire.RoleProduce, Topics: []wire.Pattern{{Name: "orders"}}}, now.Add(time.Hour), time.Hour, now)
	if err != nil {
		t.Fatal(err)
	}
	got := describe(t, book.Marshal())
	for _, want := range []string{"not shown\n", ticket.ID.String() + ": produce on orders, groups none; waits until "} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if strings.Contains(got, hex.EncodeToString(ticket.PSK[:4])) {
		t.Errorf("a key is printed:\n%s", got)
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
