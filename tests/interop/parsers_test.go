package interop

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/pem"
	"slices"
	"strings"
	"testing"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// odd messages of each kind that both implementations judge.
const odd = 400

// name is a topic, group or pattern: at times empty, too long, or not UTF-8.
func (x *exchange) name() string {
	switch x.IntN(8) {
	case 0:
		return ""
	case 1:
		return strings.Repeat("n", 248+x.IntN(4))
	case 2:
		return string(x.bytes(1 + x.IntN(4)))
	case 3:
		return strings.Repeat("l", x.IntN(5))
	}
	return string('a' + rune(x.IntN(6)))
}

func (x *exchange) patterns() (out []wire.Pattern) {
	for range x.IntN(4) {
		out = append(out, wire.Pattern{Prefix: x.IntN(2) == 0, Name: x.name()})
	}
	return out
}

// near is a, or a little beside it.
func (x *exchange) near(a uint64) uint64 { return a + uint64(x.IntN(5)) - 1 }

// spoil changes nothing, a bit, a byte, or the length of a message's body.
func (x *exchange) spoil(body []byte) []byte {
	body = slices.Clone(body)
	i := x.IntN(len(body))
	if x.IntN(2) == 0 {
		i = min(x.IntN(3), i) // version, type and suite
	}
	switch x.IntN(12) {
	case 0:
		body[i] ^= 1 << x.IntN(8)
	case 1:
		body[x.IntN(len(body))] ^= 1 << x.IntN(8)
	case 2:
		body[x.IntN(len(body))] = byte(x.Uint32())
	case 3:
		return body[:x.IntN(len(body))]
	case 4:
		return append(body, x.bytes(1+x.IntN(3))...)
	}
	return body
}

// judge compares what both make of a message: refuse it, or read the same fields.
func (x *exchange) judge(op string, args object, data []byte, fields object, err error) (accepted bool) {
	x.Helper()
	args["data"] = octets(data)
	var got read
	refused := x.ask(op, args, &got)
	switch {
	case (refused == "") != (err == nil):
		x.Errorf("%s: the peer says %q, we say %v, of\n%x", op, refused, err, data)
	case err == nil:
		differ(x, op, got.Fields, fields)
	}
	return err == nil
}

// signed is a body with its signature by key as type kind.
func (x *exchange) signed(key ed25519.PrivateKey, kind wire.Type, realm wire.RealmID, body []byte) []byte {
	return append(slices.Clone(body), ed25519.Sign(key, wire.SignatureInput(kind, realm, body))...)
}

// verified is nil or that the signature is not pub's.
func verified(pub []byte, kind wire.Type, realm wire.RealmID, body, signature []byte) error {
	if !ed25519.Verify(pub, wire.SignatureInput(kind, realm, body), signature) {
		return keyring.ErrUnauthentic
	}
	return nil
}

// both fails unless some messages were accepted and some were not.
func (x *exchange) both(accepted int) {
	x.Helper()
	x.Logf("%d of %d accepted", accepted, odd)
	if accepted < odd/20 || accepted > odd*19/20 {
		x.Error("the messages are not of both kinds")
	}
}

// TestOddCredentialsAreJudgedAlike signs messages that are right, or nearly.
func TestOddCredentialsAreJudgedAlike(t *testing.T) {
	x := newExchange(t)
	accepted := 0
	for range odd {
		key := ed25519.NewKeyFromSeed(x.bytes(32))
		at := x.Uint64N(1 << 41)
		c := wire.Credential{
			Realm: wire.RealmID(x.bytes(16)), Node: wire.NodeID(x.bytes(16)), Serial: wire.Serial(x.bytes(16)),
			Subject: wire.PublicKey(x.bytes(32)), Lineage: x.Uint32(), NotBefore: at, NotAfter: x.near(at), DataNotBefore: x.Uint64(),
			OfflineAllow: x.Uint32(), Roles: wire.Roles(x.IntN(70)), Topics: x.patterns(), Groups: x.patterns(),
			Issuer: wire.PublicKey(key.Public().(ed25519.PublicKey)),
		}
		if x.IntN(20) == 0 {
			for room := wire.MaxCredentialSize - 1 + x.IntN(3); len(c.Append(nil)) < room; {
				c.Topics = append(c.Topics, wire.Pattern{Prefix: true, Name: strings.Repeat("x", max(0, min(249, room-len(c.Append(nil))-3)))})
			}
		}
		body := x.spoil(c.AppendBody(nil))
		data := x.signed(key, wire.TypeCredential, c.Realm, body)
		got, err := wire.ParseCredential(data)
		fields := object{}
		if err == nil {
			err = verified(got.Issuer[:], wire.TypeCredential, got.Realm, got.AppendBody(nil), got.Signature[:])
			fields = credentialFields(got)
		}
		if x.judge("read_credential", object{}, data, fields, err) {
			accepted++
		}
	}
	x.both(accepted)
}

func TestOddBundlesAreJudgedAlike(t *testing.T) {
	x := newExchange(t)
	accepted := 0
	for range odd {
		key := ed25519.NewKeyFromSeed(x.bytes(32))
		pub := key.Public().(ed25519.PublicKey)
		at := x.Uint64N(1 << 41)
		b := wire.PrekeyBundle{
			Realm: wire.RealmID(x.bytes(16)), Node: wire.NodeID(x.bytes(16)), Credential: wire.Serial(x.bytes(16)), Generation: x.Uint64(),
			Created: at, NotAfter: x.near(at), Interest: x.patterns(), KEMPub: [wire.KEMPublicSize]byte(x.bytes(wire.KEMPublicSize)),
		}
		data := x.signed(key, wire.TypePrekeyBundle, b.Realm, x.spoil(b.AppendBody(nil)))
		got, err := wire.ParsePrekeyBundle(data)
		fields := object{}
		if err == nil {
			err = verified(pub, wire.TypePrekeyBundle, got.Realm, got.AppendBody(nil), got.Signature[:])
			fields = bundleFields(got)
		}
		if x.judge("read_bundle", object{"pub": octets(pub)}, data, fields, err) {
			accepted++
		}
	}
	x.both(accepted)
}

func TestOddGrantsAreJudgedAlike(t *testing.T) {
	x := newExchange(t)
	accepted := 0
	for range odd {
		key := ed25519.NewKeyFromSeed(x.bytes(32))
		pub := key.Public().(ed25519.PublicKey)
		at := x.Uint64N(1 << 41)
		g := wire.Grant{Partition: uint8(x.IntN(17)), Header: wire.GrantHeader{
			Realm: wire.RealmID(x.bytes(16)), Producer: wire.NodeID(x.bytes(16)), Credential: wire.Serial(x.bytes(16)), Instance: wire.InstanceID(x.bytes(16)),
			Epoch: x.Uint32(), Start: at, UseBy: x.near(at), AuthoritySeq: x.Uint64(), RosterDigest: wire.Digest(x.bytes(32)), Prev: wire.Digest(x.bytes(32)),
		}}
		if x.IntN(4) == 0 {
			g.Header.Flags = wire.GrantFlags(x.IntN(4))
		}
		count := x.IntN(4)
		if x.IntN(20) == 0 {
			count = 511 + x.IntN(3)
		}
		for i := range count {
			name := x.name()
			if count > 4 {
				name = string([]byte{'t', byte(i >> 8), byte(i)})
			}
			g.Header.Topics = append(g.Header.Topics, wire.GrantTopic{Name: name, Commit: wire.Digest(x.bytes(32))})
		}
		if x.IntN(8) > 0 {
			slices.SortFunc(g.Header.Topics, func(a, b wire.GrantTopic) int { return strings.Compare(a.Name, b.Name) })
		}
		for range x.IntN(3) {
			w := wire.Wrap{Node: wire.NodeID(x.bytes(16)), Prekey: wire.PrekeyID(x.bytes(8)), HPKE: [wire.WrapSize]byte(x.bytes(wire.WrapSize))}
			if w.Node[3] = w.Node[3]&0xf0 | g.Partition&0x0f; x.IntN(12) == 0 {
				w.Node[3]++
			}
			g.Wraps = append(g.Wraps, w)
		}
		if x.IntN(8) > 0 {
			slices.SortFunc(g.Wraps, func(a, b wire.Wrap) int { return bytes.Compare(a.Node[:], b.Node[:]) })
		}
		// The signature covers the digest of the wraps as they are after spoiling, so that
		// what is odd in them is reached.
		body, rest := g.AppendBody(nil), g.Append(nil)
		wraps := rest[len(body)+wire.SignatureSize:]
		if x.IntN(2) == 0 {
			body = x.spoil(body)
		} else if wraps = x.spoil(wraps); x.IntN(8) > 0 {
			digest := sha256.Sum256(wraps)
			copy(body[len(body)-len(digest):], digest[:])
		}
		data := append(x.signed(key, wire.TypeEpochGrant, g.Header.Realm, body), wraps...)
		got, err := wire.ParseGrant(data)
		fields := object{}
		if err == nil {
			err = verified(pub, wire.TypeEpochGrant, got.Header.Realm, got.AppendBody(nil), got.Signature[:])
			fields = grantFields(got)
		}
		if x.judge("read_part", object{"pub": octets(pub)}, data, fields, err) {
			accepted++
		}
	}
	x.both(accepted)
}

func TestOddSigningRequestsAreJudgedAlike(t *testing.T) {
	x := newExchange(t)
	accepted := 0
	for range odd {
		key := ed25519.NewKeyFromSeed(x.bytes(32))
		c := wire.CSR{
			Subject: wire.PublicKey(key.Public().(ed25519.PublicKey)), OfflineAllow: x.Uint32(), Roles: wire.Roles(x.IntN(70)),
			Topics: x.patterns(), Groups: x.patterns(),
		}
		body := x.spoil(c.AppendBody(nil))
		input := append([]byte("KX1 csr v1\x00"), make([]byte, 32)...)
		data := append(slices.Clone(body), ed25519.Sign(key, append(input, body...))...)
		got, err := keyring.ParseCSR(pem.EncodeToMemory(&pem.Block{Type: "KX1 SIGNING REQUEST", Bytes: data}))
		fields := object{}
		if err == nil {
			fields = object{
				"id_pub": octets(got.Subject[:]), "offline_allow_s": got.OfflineAllow, "roles": uint16(got.Roles),
				"topics": patternFields(got.Topics), "groups": patternFields(got.Groups),
			}
		}
		if x.judge("read_csr", object{}, data, fields, err) {
			accepted++
		}
	}
	x.both(accepted)
}
