package broker

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

// table is every action and how it is seen, as README.md has it.
func table() string {
	var b strings.Builder
	for _, part := range []struct {
		title   string
		actions []*action
	}{
		{"Connections", transportActions()}, {"Records", dataActions()}, {"Credentials, bundles and grants", controlActions()},
		{"AuthorityState", authorityActions()}, {"Control topics as a whole", logActions()}, {"Enrolment and renewal", enrolmentActions()},
		{"KeyShare", shareActions()}, {"EpochRequest", requestActions()},
	} {
		fmt.Fprintf(&b, "\n### %s\n\n| The broker | How it is seen |\n|---|---|\n", part.title)
		for _, a := range part.actions {
			fmt.Fprintf(&b, "| %s | %s |\n", a.name, a.seen())
		}
	}
	return b.String()
}

func TestTheReadmeListsEveryAction(t *testing.T) {
	text, err := os.ReadFile("README.md")
	must(t, err)
	if want := table(); !strings.Contains(string(text), want) {
		t.Errorf("README.md does not end in this:\n%s", want)
	}
}

// Whoever says that no member got what is not its due must be able to see that one did.
func TestTheObserversSeeKeysInWrongHands(t *testing.T) {
	entitled, stranger := wire.NodeID{1}, wire.NodeID{2}
	for what, test := range map[string]struct {
		wrong bool
		do    func(o *observations)
	}{
		"a share with a member":                    {false, func(o *observations) { o.published(shareWith(entitled)) }},
		"a share with a stranger":                  {true, func(o *observations) { o.published(shareWith(stranger)) }},
		"a share to a prekey that nobody has":      {true, func(o *observations) { clear(o.prekeys); o.published(shareWith(entitled)) }},
		"a share with a member that is revoked":    {true, func(o *observations) { o.gone[entitled] = revoked{3, 0}; o.published(shareWith(entitled)) }},
		"a grant to a member":                      {false, func(o *observations) { o.published(grantTo(entitled, 9, 9)) }},
		"a grant to a stranger":                    {true, func(o *observations) { o.published(grantTo(stranger, 9, 9)) }},
		"a grant of before somebody was revoked":   {false, func(o *observations) { o.gone[entitled] = revoked{3, 9}; o.published(grantTo(entitled, 2, 8)) }},
		"a grant to somebody revoked by its state": {true, func(o *observations) { o.gone[entitled] = revoked{3, 9}; o.published(grantTo(entitled, 3, 8)) }},
		"a grant long after somebody was revoked":  {true, func(o *observations) { o.gone[entitled] = revoked{3, 9}; o.published(grantTo(entitled, 2, 9)) }},
		"something that is no share":               {true, func(o *observations) { o.published(controlRecord{0, []byte{byte(wire.TypeKeyShare)}, []byte("?")}) }},
	} {
		o := newObservations(func(_ string, node wire.NodeID) bool { return node == entitled })
		o.prekeys[wire.PrekeyID{1}], o.prekeys[wire.PrekeyID{2}] = entitled, stranger
		test.do(o)
		if got := len(o.faults) > 0; got != test.wrong {
			t.Errorf("%s: seen %v: %v", what, got, o.faults)
		}
	}
}

// shareWith and grantTo are to prekeys that begin with the node's first byte.
func shareWith(node wire.NodeID) controlRecord {
	topic := wire.GrantTopic{Name: "orders-x", Commit: wire.Digest{1}}
	k := &wire.KeyShare{Proof: wire.GrantProof{Header: wire.GrantHeader{UseBy: 1, Topics: []wire.GrantTopic{topic}}},
		Recipient: node, Prekey: wire.PrekeyID{node[0]}, Topic: topic.Name}
	return controlRecord{0, wire.KeyShareKey([wire.KidSize]byte{}, node), k.Append(nil)}
}

func grantTo(node wire.NodeID, seq, start uint64) controlRecord {
	g := &wire.Grant{Header: wire.GrantHeader{Start: start, UseBy: start + 1, AuthoritySeq: seq, Topics: []wire.GrantTopic{{Name: "orders-x"}}},
		Wraps: []wire.Wrap{{Node: node, Prekey: wire.PrekeyID{node[0]}}}}
	return controlRecord{0, g.Header.Key(), g.Append(nil)}
}
