package broker

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"slices"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// What an agent's log says of control records.
const (
	refused    = "control record refused"
	rollback   = "older than what was seen before"
	signature  = "signature: authentication failed"
	misformed  = "malformed"
	unentitled = "had no valid credential to produce"
)

func controlActions() []*action {
	return []*action{
		{name: "replay a grant", outside: nothing + ": the header is known",
			store: func(w *world, _ place) bool { return w.again(w.grant()) }},
		{name: "strip the signature of a grant", detected: signature, store: func(w *world, _ place) bool {
			return w.regrant(func(g *wire.Grant) { clear(g.Signature[:]) })
		}},
		{name: "cut the signature off a grant", detected: misformed, store: func(w *world, _ place) bool {
			r := w.grant()
			if r == nil {
				return false
			}
			g, err := wire.ParseGrant(r.value)
			body := len(g.AppendBody(nil))
			r.value = slices.Delete(r.value, body, body+wire.SignatureSize)
			return err == nil && w.again(r)
		}},
		{name: "flip a bit of a grant", detected: refused, store: func(w *world, _ place) bool {
			r := w.grant()
			if r != nil {
				r.value[20+w.rng.IntN(len(r.value)-20)] ^= 1 << w.rng.IntN(8)
			}
			return w.again(r)
		}},
		{name: "a grant re-signed by a member without PRODUCE", detected: unentitled, store: func(w *world, _ place) bool {
			return w.regrant(func(g *wire.Grant) {
				g.Header.Producer, g.Header.Credential = w.mallory.cred.Node, w.mallory.cred.Serial
				w.mallory.sign(wire.TypeEpochGrant, g.AppendBody(nil), &g.Signature)
			})
		}},
		{name: "a grant re-signed in the producer's name", detected: signature, store: func(w *world, _ place) bool {
			return w.regrant(func(g *wire.Grant) { w.mallory.sign(wire.TypeEpochGrant, g.AppendBody(nil), &g.Signature) })
		}},
		{name: "a grant part in another's partition", detected: "a grant in another's place", store: func(w *world, _ place) bool {
			r := w.seen.latest(&w.seen.grants, func(r controlRecord) bool { return r.partition != w.consumerPartition() })
			if r == nil {
				return false
			}
			r.partition = w.consumerPartition()
			return w.again(r)
		}},
		{name: "an oversized grant", detected: misformed, store: func(w *world, _ place) bool {
			r := w.grant()
			if r != nil {
				r.value = append(r.value, make([]byte, 600<<10)...)
			}
			return w.again(r)
		}},
		{name: "hide a grant part", key: kafka.KeyFetch, client: agentClient, detected: is(abi.StatusPending),
			answer: onControl(keyring.GrantsTopic, func(e *editor, at place, r *kafka.Record) bool {
				g, err := wire.ParseGrant(r.Value)
				r.Value = nil // a tombstone says nothing, and moves the reader on
				return err == nil && len(g.Wraps) > 0
			})},
		{name: "replay a bundle", detected: rollback, store: func(w *world, _ place) bool { return w.again(w.oldBundle()) }},
		{name: "roll the roster back", key: kafka.KeyFetch, client: agentClient, detected: rollback,
			answer: onControl(keyring.RosterTopic, func(e *editor, at place, r *kafka.Record) bool {
				if wire.Type(r.Key[0]) != wire.TypePrekeyBundle {
					return false
				}
				old := e.seen.first(&e.seen.bundles, func(o controlRecord) bool {
					return bytes.Equal(o.key, r.Key) && !bytes.Equal(o.value, r.Value)
				})
				if old != nil {
					r.Value = old.value
				}
				return old != nil
			})},
		{name: "show different rosters", key: kafka.KeyFetch, client: agentClient,
			outside: "one reader's roster is not another's: C4' bounds it; a node that is left out of grants for longer than the skew raises omitted (§2.14)",
			answer: onControl(keyring.RosterTopic, func(e *editor, at place, r *kafka.Record) bool {
				shown := wire.Type(r.Key[0]) == wire.TypePrekeyBundle
				r.Value = nil
				return shown
			})},
		{name: "strip the signature of a bundle with another key", detected: signature, store: func(w *world, _ place) bool {
			return w.rebundle(func(b *wire.PrekeyBundle) { clear(b.Signature[:]) })
		}},
		{name: "a bundle signed by another member", detected: signature, store: func(w *world, _ place) bool {
			return w.rebundle(func(b *wire.PrekeyBundle) {
				w.mallory.sign(wire.TypePrekeyBundle, b.AppendBody(nil), &b.Signature)
			})
		}},
		{name: "a bundle under another member's credential", detected: "names a credential of another", store: func(w *world, _ place) bool {
			return w.rebundle(func(b *wire.PrekeyBundle) {
				b.Credential = w.mallory.cred.Serial
				w.mallory.sign(wire.TypePrekeyBundle, b.AppendBody(nil), &b.Signature)
			})
		}},
		{name: "a credential that a member signed", detected: signature, store: func(w *world, _ place) bool {
			forged := *w.mallory.cred
			forged.Serial[0]++
			forged.Roles |= wire.RoleProduce
			forged.Topics = []wire.Pattern{{Prefix: true}}
			w.mallory.sign(wire.TypeCredential, forged.AppendBody(nil), &forged.Signature)
			return w.roster(forged.Key(), forged.Append(nil))
		}},
		{name: "a wider credential under a known serial", detected: "another credential with serial", store: func(w *world, _ place) bool {
			forged := *w.mallory.cred
			forged.Topics = []wire.Pattern{{Prefix: true}}
			return w.roster(forged.Key(), forged.Append(nil))
		}},
		{name: "a tombstone for a credential", outside: nothing + ": tombstones remove only what has expired", store: func(w *world, _ place) bool {
			return w.roster(w.consumerCred.Key(), nil)
		}},
	}
}

// onControl makes an edit of the first record of a control topic that f accepts.
func onControl(topic string, f func(e *editor, at place, r *kafka.Record) bool) func(*editor, exchange, []byte) (reply, bool) {
	return onBatches(func(e *editor, at place, batches [][]byte) ([][]byte, bool) {
		if at.topic != topic {
			return nil, false
		}
		for i, b := range batches {
			records := recordsOf(b)
			for j := range records {
				edited := records[j]
				if len(edited.Key) > 0 && edited.Value != nil && f(e, at, &edited) {
					records[j] = edited
					batches[i] = rebuilt(b, records)
					return batches, true
				}
			}
		}
		return nil, false
	}, nil)
}

// A member is a node of the realm whose key the broker has: entitled to consume a topic of
// its own, and nothing else.
type member struct {
	key  ed25519.PrivateKey
	cred *wire.Credential
}

func (m *member) sign(t wire.Type, body []byte, sig *[wire.SignatureSize]byte) {
	copy(sig[:], ed25519.Sign(m.key, wire.SignatureInput(t, m.cred.Realm, body)))
}

// grant returns the latest grant that the consumer has a wrap in.
func (w *world) grant() *controlRecord {
	return w.seen.latest(&w.seen.grants, func(r controlRecord) bool {
		g, err := wire.ParseGrant(r.value)
		return err == nil && g.Wrap(w.consumerCred.Node) != nil
	})
}

// again appends a control record as it is.
func (w *world) again(r *controlRecord) bool {
	if r == nil {
		return false
	}
	topic := keyring.RosterTopic
	if t := wire.Type(r.key[0]); t == wire.TypeEpochGrant || t == wire.TypeKeyShare {
		topic = keyring.GrantsTopic
	}
	return w.write(topic, r.partition, r.key, r.value)
}

func (w *world) roster(key, value []byte) bool { return w.write(keyring.RosterTopic, 0, key, value) }

// regrant appends a changed grant.
func (w *world) regrant(f func(g *wire.Grant)) bool {
	r := w.grant()
	if r == nil {
		return false
	}
	g, err := wire.ParseGrant(r.value)
	if err != nil {
		return false
	}
	f(g)
	r.key, r.value = g.Header.Key(), g.Append(nil)
	return w.again(r)
}

// oldBundle is the consumer's first bundle, once there is a later one.
func (w *world) oldBundle() *controlRecord {
	own := func(r controlRecord) bool { return bytes.Equal(r.key[1:], w.consumerCred.Node[:]) }
	first, last := w.seen.first(&w.seen.bundles, own), w.seen.latest(&w.seen.bundles, own)
	if first == nil || bytes.Equal(first.value, last.value) {
		return nil
	}
	return first
}

// rebundle appends a bundle in the consumer's name, of a later generation and with a key that
// the broker has.
func (w *world) rebundle(f func(b *wire.PrekeyBundle)) bool {
	r := w.seen.latest(&w.seen.bundles, func(r controlRecord) bool { return bytes.Equal(r.key[1:], w.consumerCred.Node[:]) })
	if r == nil {
		return false
	}
	b, err := wire.ParsePrekeyBundle(r.value)
	if err != nil {
		return false
	}
	b.Generation++
	b.KEMPub = w.malloryKEM
	f(b)
	r.value = b.Append(nil)
	return w.again(r)
}

// consumerPartition is where the consumer's grants are.
func (w *world) consumerPartition() int32 { return keyring.GrantPartition(w.consumerCred.Node) }

// anonymous strips the producer's numbers off a stored batch, so that no broker takes it
// for a retry.
func anonymous(batch []byte) []byte {
	batch = slices.Clone(batch)
	binary.BigEndian.PutUint64(batch, 0)
	return header(batch, func(h *kafka.BatchHeader) {
		h.ProducerID, h.ProducerEpoch, h.BaseSequence, h.PartitionLeaderEpoch = -1, -1, -1, -1
	})
}
