package interop

import (
	"bytes"
	"crypto/ed25519"
	"slices"
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

func stateFields(a *wire.AuthorityState) object {
	revoked := []any{}
	for _, r := range a.Revoked {
		revoked = append(revoked, object{"serial": octets(r.Serial[:]), "revoked_at": r.At})
	}
	return object{
		"realm": octets(a.Realm[:]), "seq": a.Seq, "issued": a.Issued, "next_update": a.NextUpdate, "prev_digest": octets(a.Prev[:]),
		"revoked": revoked, "issuer_pub": octets(a.Issuer[:]),
	}
}

func renewalFields(q *wire.Renewal) object {
	return object{"realm": octets(q.Realm[:]), "node": octets(q.Node[:]), "cred_serial": octets(q.Credential[:]), "id_pub": octets(q.Subject[:])}
}

func digestOf(a *wire.AuthorityState) octets {
	d := a.Digest()
	return d[:]
}

// revocations are some of credentials that nobody has.
func (x *exchange) revocations(n int) (out []wire.Revocation) {
	for range n {
		out = append(out, wire.Revocation{Serial: wire.Serial(x.bytes(16)), At: x.Uint64N(uint64(x.now.UnixMilli()))})
	}
	slices.SortFunc(out, func(a, b wire.Revocation) int { return bytes.Compare(a.Serial[:], b.Serial[:]) })
	return out
}

// TestStatesAreExchanged: the realm's root and its issuer sign by turns, one of ours and one of
// the peer's, each on top of the other's.
func TestStatesAreExchanged(t *testing.T) {
	x := newExchange(t)
	rootSeed := x.bytes(32)
	_, _, realm := x.identity(rootSeed)
	root, err := keyring.NewRealm(bytes.NewReader(rootSeed))
	x.must(err)
	issuerSeed := x.bytes(32)
	issuer, err := root.CertifyIssuer(bytes.NewReader(append(slices.Clone(issuerSeed), x.bytes(16)...)), x.now.Add(-time.Hour), x.now.Add(time.Hour))
	x.must(err)
	cert := issuer.Certificate()

	state, err := keyring.NewState(x.source)
	x.must(err)
	file, err := issuer.Issue(x.source, state.Node().CSR(keyring.Attributes{Roles: wire.RoleConsume, Topics: []wire.Pattern{{Prefix: true}}}), nil,
		keyring.Validity{NotBefore: x.now.Add(-time.Minute), NotAfter: x.now.Add(time.Minute)})
	x.must(err)
	x.must(state.Node().Install(file, x.now))
	roster := keyring.NewRoster(state, keyring.DefaultTiming())

	var prev *wire.AuthorityState
	for range rounds {
		// Ours, by the issuer.
		ours, err := issuer.NextState(prev, x.revocations(x.IntN(20)), x.now, time.Hour)
		x.must(err)
		x.must(roster.Apply(ours.Key(), ours.Append(nil), x.now))
		var got read
		x.peer.must("read_state", object{"data": octets(ours.Append(nil))}, &got)
		fields := stateFields(ours)
		fields["digest"] = digestOf(ours)
		differ(t, "state", got.Fields, fields)
		if !bytes.Equal(got.Key, ours.Key()) {
			t.Errorf("state: the peer's key is %x", []byte(got.Key))
		}

		// The peer's, by the root or the issuer.
		next := wire.AuthorityState{
			Realm: realm, Seq: ours.Seq + 1, Issued: ours.Issued, NextUpdate: ours.Issued + x.Uint64N(1e7), Prev: ours.Digest(),
			Revoked: append(slices.Clone(ours.Revoked), x.revocations(1)...), Issuer: root.PublicKey(),
		}
		slices.SortFunc(next.Revoked, func(a, b wire.Revocation) int { return bytes.Compare(a.Serial[:], b.Serial[:]) })
		signer := rootSeed
		if x.IntN(2) == 0 {
			next.Issuer, signer = cert.Subject, issuerSeed
		}
		var made octets
		x.peer.must("make_state", object{"s": stateFields(&next), "seed": signer}, &made)
		prev, err = wire.ParseAuthorityState(made)
		x.must(err)
		if next.Signature = prev.Signature; !bytes.Equal(next.Append(nil), made) {
			t.Errorf("state: the peer writes\n%x\nwe write\n%x", []byte(made), next.Append(nil))
		}
		x.must(roster.Apply(prev.Key(), made, x.now))
		if roster.Authority().Seq != next.Seq {
			t.Errorf("state %d holds, not the peer's %d", roster.Authority().Seq, next.Seq)
		}
	}
}

// TestRenewalsAreExchanged: the peer renews with our issuer, and reads what our node asks.
func TestRenewalsAreExchanged(t *testing.T) {
	x := newExchange(t)
	root, err := keyring.NewRealm(x.source)
	x.must(err)
	issuer, err := root.CertifyIssuer(x.source, x.now.Add(-time.Hour), x.now.Add(365*24*time.Hour))
	x.must(err)
	book, err := keyring.NewBook(x.source)
	x.must(err)
	roster := issuer.Roster(keyring.DefaultTiming())
	attrs := keyring.Attributes{Roles: wire.RoleConsume, Topics: []wire.Pattern{{Prefix: true}}, OfflineAllow: time.Hour}
	valid := keyring.Validity{NotBefore: x.now.Add(-time.Minute), NotAfter: x.now.Add(9 * 24 * time.Hour)}

	// Our node: the peer reads its request.
	state, err := keyring.NewState(x.source)
	x.must(err)
	file, err := issuer.Issue(x.source, state.Node().CSR(attrs), nil, valid)
	x.must(err)
	x.must(state.Node().Install(file, x.now))
	rec, err := state.Renew(x.source)
	x.must(err)
	q, err := wire.ParseRenewal(rec.Value)
	x.must(err)
	old := state.Node().PublicKey()
	var got read
	x.peer.must("read_renewal", object{"data": octets(rec.Value), "old_pub": octets(old[:])}, &got)
	differ(t, "renewal", got.Fields, renewalFields(q))
	if !bytes.Equal(got.Key, rec.Key) {
		t.Errorf("renewal: the peer's key is %x", []byte(got.Key))
	}

	// The peer's node, lineage after lineage.
	seed := x.bytes(32)
	pub, node, _ := x.identity(seed)
	first, err := issuer.Issue(x.source, x.csr(wire.CSR{Subject: pub, Roles: attrs.Roles, Topics: attrs.Topics}, seed), nil, valid)
	x.must(err)
	_, chain, err := keyring.ParseCredentialFile(first)
	x.must(err)
	current := chain[0]
	x.must(roster.Apply(current.Key(), current.Append(nil), x.now))
	for lineage := range uint32(rounds) {
		nextSeed := x.bytes(32)
		next, _, _ := x.identity(nextSeed)
		request := wire.Renewal{Realm: root.Realm(), Node: node, Credential: current.Serial, Subject: next}
		var made octets
		x.peer.must("make_renewal", object{"m": renewalFields(&request), "old_seed": seed, "new_seed": nextSeed}, &made)
		out, err := book.Renew(x.source, issuer, roster, request.Key(), made, x.now)
		x.must(err)
		for _, rec := range out {
			x.must(roster.Apply(rec.Key, rec.Value, x.now))
			got = read{}
			x.peer.must("read_credential", object{"data": octets(rec.Value)}, &got)
		}
		current, err = wire.ParseCredential(out[len(out)-1].Value)
		x.must(err)
		differ(t, "credential", got.Fields, credentialFields(current))
		if current.Subject != next || current.Node != node || current.Lineage != lineage+1 {
			t.Errorf("lineage %d: the issuer gives %+v", lineage, current)
		}
		seed = nextSeed
	}
}

func TestOddStatesAreJudgedAlike(t *testing.T) {
	x := newExchange(t)
	accepted := 0
	for range odd {
		key := ed25519.NewKeyFromSeed(x.bytes(32))
		at := x.Uint64N(1 << 41)
		a := wire.AuthorityState{
			Realm: wire.RealmID(x.bytes(16)), Seq: x.Uint64N(1 + at), Issued: at, NextUpdate: x.near(at), Prev: wire.Digest(x.bytes(32)),
			Revoked: x.revocations(x.IntN(4)), Issuer: wire.PublicKey(key.Public().(ed25519.PublicKey)),
		}
		switch x.IntN(12) {
		case 0:
			a.Seq = x.near(at)
		case 1:
			a.Seq = 0
		case 2:
			slices.Reverse(a.Revoked)
		case 3:
			if len(a.Revoked) > 0 {
				a.Revoked = append(a.Revoked, a.Revoked[len(a.Revoked)-1])
			}
		}
		data := x.signed(key, wire.TypeAuthorityState, a.Realm, x.spoil(a.AppendBody(nil)))
		if x.judgeState(data) {
			accepted++
		}
	}
	x.both(accepted)
}

func (x *exchange) judgeState(data []byte) bool {
	x.Helper()
	got, err := wire.ParseAuthorityState(data)
	fields := object{}
	if err == nil {
		err = verified(got.Issuer[:], wire.TypeAuthorityState, got.Realm, got.AppendBody(nil), got.Signature[:])
		fields = stateFields(got)
		fields["digest"] = digestOf(got)
	}
	return x.judge("read_state", object{}, data, fields, err)
}

// TestStatesOfTheLargestSizeAreJudgedAlike is the bound of PROTOCOL.md §2.6.
func TestStatesOfTheLargestSizeAreJudgedAlike(t *testing.T) {
	x := newExchange(t)
	key := ed25519.NewKeyFromSeed(x.bytes(32))
	a := wire.AuthorityState{Seq: 1, Issued: 1, NextUpdate: 1, Revoked: x.revocations(wire.MaxRevoked + 1), Issuer: wire.PublicKey(key.Public().(ed25519.PublicKey))}
	for _, accept := range []bool{false, true} {
		if got := x.judgeState(x.signed(key, wire.TypeAuthorityState, a.Realm, a.AppendBody(nil))); got != accept {
			t.Errorf("%d revocations: %v", len(a.Revoked), got)
		}
		a.Revoked = a.Revoked[1:]
	}
}

func TestOddRenewalsAreJudgedAlike(t *testing.T) {
	x := newExchange(t)
	accepted := 0
	for range odd {
		keys := [3]ed25519.PrivateKey{}
		for i := range keys {
			keys[i] = ed25519.NewKeyFromSeed(x.bytes(32))
		}
		pub := keys[0].Public().(ed25519.PublicKey)
		q := wire.Renewal{
			Realm: wire.RealmID(x.bytes(16)), Node: wire.NodeID(x.bytes(16)), Credential: wire.Serial(x.bytes(16)),
			Subject: wire.PublicKey(keys[1].Public().(ed25519.PublicKey)),
		}
		if x.IntN(6) == 0 {
			i, j := x.IntN(2), x.IntN(3)
			keys[i] = keys[j]
		}
		body := x.spoil(q.AppendBody(nil))
		input := wire.SignatureInput(wire.TypeRenewal, q.Realm, body)
		data := slices.Concat(body, ed25519.Sign(keys[0], input), ed25519.Sign(keys[1], input))
		if x.IntN(8) == 0 {
			data = x.spoil(data)
		}
		got, err := wire.ParseRenewal(data)
		fields := object{}
		if err == nil {
			body := got.AppendBody(nil)
			if err = verified(pub, wire.TypeRenewal, got.Realm, body, got.OldKey[:]); err == nil {
				err = verified(got.Subject[:], wire.TypeRenewal, got.Realm, body, got.NewKey[:])
			}
			fields = renewalFields(got)
		}
		if x.judge("read_renewal", object{"old_pub": octets(pub)}, data, fields, err) {
			accepted++
		}
	}
	x.both(accepted)
}
