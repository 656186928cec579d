package keyring

import (
	"bytes"
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

func TestKeyFilesReadBack(t *testing.T) {
	w := newWorld(t)
	root, err := ParseRoot(w.root.Marshal())
	if err != nil || root.Realm() != w.root.Realm() || root.seed != w.root.seed {
		t.Errorf("root: %v", err)
	}
	issuer, err := ParseIssuer(append([]byte("\n"), w.issuer.Marshal()...))
	if err != nil || issuer.cert.Realm != w.issuer.cert.Realm || issuer.seed != w.issuer.seed {
		t.Errorf("issuer: %v", err)
	}
	for _, file := range [][]byte{w.root.Marshal(), w.issuer.Marshal()} {
		if !bytes.Contains(file, []byte("PRIVATE KEY")) {
			t.Errorf("a key file does not say PRIVATE: %s", file)
		}
	}
}

func TestOneKindOfFileIsNotAnother(t *testing.T) {
	w := newWorld(t)
	if _, err := ParseIssuer(w.root.Marshal()); err == nil || !strings.Contains(err.Error(), armorRoot) {
		t.Errorf("a root file as issuer: %v", err)
	}
	for name, file := range map[string][]byte{
		"empty":          nil,
		"text":           []byte("hello"),
		"two blocks":     append(w.root.Marshal(), w.root.Marshal()...),
		"text before":    append([]byte("see below\n"), w.root.Marshal()...),
		"header":         bytes.Replace(w.root.Marshal(), []byte("-----\n"), []byte("-----\nA: b\n\n"), 1),
		"cut in half":    w.root.Marshal()[:60],
		"short contents": armor(armorRoot, []byte("short")),
	} {
		if _, err := ParseRoot(file); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// install issues a credential for a fresh node and lets change spoil it first.
func TestCredentialOfSomebodyElseIsRefused(t *testing.T) {
	w, other := newWorld(t), newWorld(t)
	s, err := NewState(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := NewState(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	want := attributes(t, consume, []string{"orders"}, nil)
	issue := func(i *Issuer, s *State, v Validity) []byte {
		t.Helper()
		file, err := i.Issue(rand.Reader, s.Node().CSR(want), nil, v)
		if err != nil {
			t.Fatal(err)
		}
		return file
	}
	if err := s.Node().Install(issue(w.issuer, stranger, w.validity()), w.now); err == nil {
		t.Error("another node's credential was installed")
	}
	late := Validity{NotBefore: w.now.Add(time.Hour), NotAfter: w.now.Add(2 * time.Hour)}
	if err := s.Node().Install(issue(w.issuer, s, late), w.now); !errors.Is(err, abi.StatusNotEntitled) {
		t.Errorf("not valid yet: %v", err)
	}
	if err := s.Node().Install(issue(w.issuer, s, late), w.now.Add(3*time.Hour)); !errors.Is(err, abi.StatusNotEntitled) {
		t.Errorf("expired: %v", err)
	}
	if err := s.Node().Check(w.now); !errors.Is(err, abi.StatusNotEntitled) {
		t.Errorf("a node without credential: %v", err)
	}
	if err := s.Node().Install(issue(w.issuer, s, w.validity()), w.now); err != nil {
		t.Fatal(err)
	}
	if err := s.Node().Install(issue(other.issuer, s, w.validity()), w.now); err == nil {
		t.Error("a credential of another realm was installed over the first")
	}
	if err := s.Node().Install(issue(w.issuer, s, w.validity()), w.now); err != nil {
		t.Errorf("a second credential of the same realm: %v", err)
	}
}

func TestEveryBitOfACredentialFileCounts(t *testing.T) {
	w := newWorld(t)
	s, err := NewState(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	file, err := w.issuer.Issue(rand.Reader, s.Node().CSR(attributes(t, consume, []string{"orders"}, []string{"g"})), nil, w.validity())
	if err != nil {
		t.Fatal(err)
	}
	body, err := unarmor(armorCredential, file)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 8 * len(body) {
		body[i/8] ^= 1 << (i % 8)
		if _, _, err := parseChain(body); err == nil {
			t.Fatalf("bit %d flipped and accepted", i)
		}
		body[i/8] ^= 1 << (i % 8)
	}
	if _, _, err := parseChain(body); err != nil {
		t.Fatal(err)
	}
}

func TestTamperedRequestIsNotSigned(t *testing.T) {
	w := newWorld(t)
	s, err := NewState(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	body, err := unarmor(armorCSR, s.Node().CSR(attributes(t, consume, []string{"orders"}, nil)))
	if err != nil {
		t.Fatal(err)
	}
	for i := range body {
		body[i] ^= 1
		if _, err := w.issuer.Issue(rand.Reader, armor(armorCSR, body), nil, w.validity()); err == nil {
			t.Fatalf("byte %d changed and signed", i)
		}
		body[i] ^= 1
	}
}

func TestIssuerRefusesWhatMakesNoSense(t *testing.T) {
	w := newWorld(t)
	s, err := NewState(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr := s.Node().CSR(attributes(t, consume, []string{"orders"}, nil))
	long := make([]string, 60)
	for i := range long {
		long[i] = strings.Repeat("t", 100)
	}
	for name, tt := range map[string]struct {
		grant Attributes
		v     Validity
	}{
		"outlives the issuer": {attributes(t, consume, []string{"a"}, nil), Validity{NotBefore: w.now, NotAfter: w.now.Add(400 * 24 * time.Hour)}},
		"before the issuer":   {attributes(t, consume, []string{"a"}, nil), Validity{NotBefore: w.now.Add(-time.Hour), NotAfter: w.now.Add(time.Hour)}},
		"ends at its start":   {attributes(t, consume, []string{"a"}, nil), Validity{NotBefore: w.now, NotAfter: w.now}},
		"no roles":            {attributes(t, 0, []string{"a"}, nil), w.validity()},
		"an issuer":           {attributes(t, consume|wire.RoleIssuer, []string{"a"}, nil), w.validity()},
		"no topics":           {attributes(t, consume, nil, nil), w.validity()},
		"over 4 KiB":          {attributes(t, consume, long, nil), w.validity()},
	} {
		if _, err := w.issuer.Issue(rand.Reader, csr, &tt.grant, tt.v); err == nil {
			t.Errorf("%s: signed", name)
		}
	}
	file, err := w.issuer.Issue(rand.Reader, csr, &Attributes{Roles: produce, Topics: patterns(t, "b*")}, w.validity())
	if err != nil {
		t.Fatal(err)
	}
	_, chain, err := ParseCredentialFile(file)
	if err != nil || chain[0].Roles != produce || chain[0].Topics[0].String() != "b*" || chain[0].OfflineAllow != 0 {
		t.Errorf("granted %+v %v", chain, err)
	}
}

func TestIssuerCannotCertifyAnIssuer(t *testing.T) {
	w := newWorld(t)
	c := w.issuer.cert
	c.Issuer = w.issuer.cert.Subject
	c.Signature = sign(&w.issuer.seed, wire.TypeCredential, c.Realm, c.AppendBody(nil))
	if err := verifyIssued(w.root.PublicKey(), &w.issuer.cert, &c); !errors.Is(err, ErrUnauthentic) {
		t.Errorf("a chain of three: %v", err)
	}
}

// TestChainsThatDoNotHoldAreRefused signs each credential rightly but for one thing.
func TestChainsThatDoNotHoldAreRefused(t *testing.T) {
	w := newWorld(t)
	node := w.node(consume, []string{"*"}, nil).state.Node()
	base := *node.Credential()
	direct := base // signed by the root itself
	direct.Issuer = w.root.PublicKey()
	direct.Signature = sign(&w.root.seed, wire.TypeCredential, direct.Realm, direct.AppendBody(nil))
	if err := verifyIssued(w.root.PublicKey(), nil, &direct); err != nil {
		t.Errorf("signed by the root itself: %v", err)
	}
	for name, tt := range map[string]struct {
		change func(c *wire.Credential)
		signer *secretKey
		issuer *wire.Credential
	}{
		"a node as issuer":       {func(c *wire.Credential) { c.Issuer = node.PublicKey() }, &node.seed, node.Credential()},
		"the root's own node":    {func(c *wire.Credential) { c.Issuer = node.PublicKey() }, &node.seed, &direct},
		"another issuer's name":  {func(c *wire.Credential) { c.Issuer = node.PublicKey() }, &w.issuer.seed, &w.issuer.cert},
		"another realm":          {func(c *wire.Credential) { c.Realm[0] ^= 1 }, &w.issuer.seed, &w.issuer.cert},
		"the root's name":        {func(c *wire.Credential) { c.Issuer = w.root.PublicKey() }, &w.issuer.seed, nil},
		"the issuer, no chain":   {func(*wire.Credential) {}, &w.issuer.seed, nil},
		"the root for an issuer": {func(*wire.Credential) {}, &w.root.seed, &w.issuer.cert},
	} {
		c := base
		tt.change(&c)
		c.Signature = sign(tt.signer, wire.TypeCredential, w.root.Realm(), c.AppendBody(nil))
		if err := verifyIssued(w.root.PublicKey(), tt.issuer, &c); !errors.Is(err, ErrUnauthentic) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestInstallKeepsNodeIDAndLineage(t *testing.T) {
	w := newWorld(t)
	enrolled := w.node(consume, []string{"*"}, nil).state.Node()
	fresh, err := NewState(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	file := func(n *Node, change func(c *wire.Credential)) []byte {
		c := *enrolled.Credential()
		c.Subject, c.Node = n.PublicKey(), n.ID()
		change(&c)
		c.Signature = sign(&w.issuer.seed, wire.TypeCredential, c.Realm, c.AppendBody(nil))
		return armor(armorCredential, appendChain(nil, w.root.PublicKey(), []*wire.Credential{&c, &w.issuer.cert}))
	}
	otherID := func(c *wire.Credential) { c.Node[0] ^= 1 }
	if err := fresh.Node().Install(file(fresh.Node(), otherID), w.now); !errors.Is(err, ErrUnauthentic) {
		t.Errorf("a new node under another id: %v", err)
	}
	if err := enrolled.Install(file(enrolled, otherID), w.now); !errors.Is(err, ErrUnauthentic) {
		t.Errorf("an enrolled node under another id: %v", err)
	}
	lineage := func(l uint32) func(*wire.Credential) { return func(c *wire.Credential) { c.Lineage = l } }
	if err := enrolled.Install(file(enrolled, lineage(2)), w.now); err != nil {
		t.Errorf("a later lineage: %v", err)
	}
	if err := enrolled.Install(file(enrolled, lineage(1)), w.now); !errors.Is(err, ErrRollback) {
		t.Errorf("an earlier lineage: %v", err)
	}
}

func TestRolesAndPatternsLimitANode(t *testing.T) {
	w := newWorld(t)
	n := w.node(produce, []string{"orders", "eu.*"}, []string{"billing"}).state.Node()
	for topic, ok := range map[string]bool{"orders": true, "eu.x": true, "orders2": false, "us.x": false} {
		if err := n.MayProduce(topic, w.now); (err == nil) != ok || err != nil && !errors.Is(err, abi.StatusNotEntitled) {
			t.Errorf("produce to %s: %v", topic, err)
		}
	}
	if err := n.MayConsume("orders", w.now); !errors.Is(err, abi.StatusNotEntitled) {
		t.Errorf("consume without the role: %v", err)
	}
	if err := n.MayProduce("orders", w.now.Add(10*24*time.Hour)); !errors.Is(err, abi.StatusNotEntitled) {
		t.Errorf("produce after expiry: %v", err)
	}
	if !n.AllowsGroup("billing") || n.AllowsGroup("billing2") {
		t.Error("groups are not matched as the credential says")
	}
}

func FuzzCredentialFile(f *testing.F) {
	f.Add([]byte(armor(armorCredential, []byte{1})))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, chain, err := ParseCredentialFile(b); err == nil && len(chain) == 0 {
			t.Fatal("an empty chain")
		}
	})
}
