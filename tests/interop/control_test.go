package interop

import (
	"bytes"
	"slices"
	"testing"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/tests/vectors"
)

// controlKinds are the peer's words for why it does not take a control record. It knows formats,
// signatures and keys; of times, roles and order it knows nothing.
var controlKinds = map[string]vectors.Kind{
	"":                   vectors.Taken,
	"malformed":          vectors.Malformed,
	"signature":          vectors.Unauthentic,
	"unauthentic":        vectors.Unauthentic,
	"other realm":        vectors.OtherRealm,
	"unknown credential": vectors.UnknownCredential,
	"no prekey":          vectors.Erased,
}

// unlike are the vectors of which a node says another thing than its formats and keys do: it
// waits for a certificate, or passes over in silence.
var unlike = map[string]vectors.Kind{
	"credential-signer-no-issuer": vectors.UnknownCredential,
	"state-signer-no-issuer":      vectors.UnknownCredential,
	"request-realm":               vectors.OtherRealm,
}

// judged are the kinds that formats, signatures and keys decide.
var judged = []vectors.Kind{vectors.Malformed, vectors.Unauthentic, vectors.OtherRealm, vectors.UnknownCredential}

// TestPublishedControlRecordsHoldInPython gives every control vector to the second
// implementation, which must refuse what is wrong in itself, and take the rest.
func TestPublishedControlRecordsHoldInPython(t *testing.T) {
	all, err := vectors.Controls()
	if err != nil {
		t.Fatal(err)
	}
	p := startPeer(t)
	refusals, opened := 0, 0
	for _, v := range all {
		credentials := []octets{octets(v.Chain[len(v.Chain)-1]), octets(v.Chain[0])}
		for _, r := range v.Before {
			if r.Key[0] == byte(wire.TypeCredential) {
				credentials = append(credentials, octets(r.Value))
			}
		}
		own, err := wire.ParseCredential(v.Chain[0])
		if err != nil {
			t.Fatal(err)
		}
		var kids []octets
		refused := p.ask("read_control", object{
			"root": octets(v.Root), "before": credentials, "node": octets(own.Node[:]), "seeds": []octets{octets(v.PrekeySeed)},
			"record": object{"topic": v.Record.Topic, "partition": v.Record.Partition, "key": octets(v.Record.Key), "value": octets(v.Record.Value)},
		}, &kids)
		want, other := unlike[v.Name]
		if !other {
			if want = v.Want.Kind; !slices.Contains(judged, want) && want != vectors.Erased {
				want = vectors.Taken
			}
		}
		got, known := controlKinds[refused]
		if !known || got != want {
			t.Errorf("%s: %q, want %q", v.Name, refused, want)
		}
		if want != vectors.Taken {
			refusals++
			continue
		}
		// What the record brings the node, the peer opens too.
		switch v.Name {
		case "grant-taken", "grant-again", "grant-before-revoked", "share-taken", "share-again":
			if opened++; len(kids) != 1 || !bytes.Equal(kids[0], v.Want.Kids[0]) {
				t.Errorf("%s: the peer opens kids %x, want %x", v.Name, kids, v.Want.Kids)
			}
		}
	}
	if refusals < 90 || opened < 5 {
		t.Errorf("only %d refusals, and %d that open", refusals, opened)
	}
	t.Logf("%d vectors, %d refusals", len(all), refusals)
}
