package keyring

import (
	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/module/ratchet"
)

// Via is how a root was had from a leaked state.
type Via uint8

const (
	ViaTopicSecret Via = iota + 1 // the state held the topic secret
	ViaPrekey                     // the state held the prekey that a stored grant or share is wrapped for
)

// String names the way in a few words.
func (v Via) String() string {
	switch v {
	case ViaTopicSecret:
		return "topic secret"
	case ViaPrekey:
		return "prekey"
	}
	return "unknown"
}

// An UnsafeRoot is a tree's root that somebody got out of a leaked state, SECRET.
type UnsafeRoot struct {
	Kid   abi.Kid
	Topic string
	Root  ratchet.Node
	Via   Via
}

// UnsafeRoots is what a thief of an encoded state can do (PROTOCOL.md §4, V-2): every
// topic secret in it, and every wrap in grants that one of its prekeys opens, whoever it
// was for and whatever its signature. No node calls it; the demo and the tests do, to show
// what a leak opens. A kid that is had in both ways is listed twice.
func UnsafeRoots(state []byte, grants []*wire.Grant) ([]UnsafeRoot, error) {
	s, err := ParseState(state)
	if err != nil {
		return nil, err
	}
	defer s.Wipe()
	var out []UnsafeRoot
	add := func(ts *secretKey, context string, kid abi.Kid, topic string, via Via) error {
		commit, err := deriveCommit(ts, context)
		if err != nil {
			return err
		}
		r := UnsafeRoot{Kid: kid, Topic: topic, Via: via}
		err = deriveRoot(&r.Root, ts, context, commit)
		out = append(out, r)
		return err
	}
	for _, x := range s.sortedSecrets() {
		if err := add(&x.ts, x.context(), x.kid, x.topic, ViaTopicSecret); err != nil {
			return nil, err
		}
	}
	for _, p := range s.prekeys {
		for _, g := range grants {
			for i := range g.Wraps {
				w := &g.Wraps[i]
				var es secretKey
				if w.Prekey != p.id || unwrapSecret(&es, &p.seed, grantInfo(g.Header.Digest(), w.Node, p.pub), w.HPKE[:]) != nil {
					continue
				}
				for _, t := range g.Header.Topics {
					var ts secretKey
					context := topicContext(&g.Header, t.Name)
					if err := deriveTopicSecret(&ts, &es, context); err != nil {
						return nil, err
					}
					if err := add(&ts, context, KidOf(t.Commit), t.Name, ViaPrekey); err != nil {
						return nil, err
					}
				}
			}
		}
	}
	return out, nil
}

// UnsafeShares is UnsafeRoots for the shares that one of the state's prekeys opens, whoever
// they were for and whatever their signatures (PROTOCOL.md §2.10).
func UnsafeShares(state []byte, shares []*wire.KeyShare) ([]UnsafeRoot, error) {
	s, err := ParseState(state)
	if err != nil {
		return nil, err
	}
	defer s.Wipe()
	var out []UnsafeRoot
	for _, p := range s.prekeys {
		for _, k := range shares {
			var ts secretKey
			h := &k.Proof.Header
			if k.Prekey != p.id || unwrapSecret(&ts, &p.seed, shareInfo(h.Digest(), k.Recipient, p.pub, k.Sharer), k.HPKE[:]) != nil {
				continue
			}
			r := UnsafeRoot{Kid: KidOf(k.Commit()), Topic: k.Topic, Via: ViaPrekey}
			if err := deriveRoot(&r.Root, &ts, topicContext(h, k.Topic), k.Commit()); err != nil {
				return nil, err
			}
			out = append(out, r)
		}
	}
	return out, nil
}
