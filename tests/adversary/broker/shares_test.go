package broker

import (
	"bytes"
	"crypto/hpke"
	crand "crypto/rand"
	"crypto/sha256"
	"slices"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/agent"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// keptBack is done once, before a newcomer lacks anything.
const keptBack = "keep a KeyShare back"

// reshare appends a share that the newcomer lacks, changed.
func reshare(f func(w *world, s *share) bool) func(w *world, _ place) bool {
	return func(w *world, _ place) bool {
		s := w.lacked(w.late)
		if s == nil || !f(w, s) {
			return false
		}
		s.key, s.value = wire.KeyShareKey(keyring.KidOf(s.Commit()), s.Recipient), s.Append(nil)
		s.partition = keyring.GrantPartition(s.Recipient)
		return w.again(&s.controlRecord)
	}
}

func shareActions() []*action {
	return []*action{
		{name: keptBack, outside: "availability (§3): the batch is pending, then history or not for us (§2.8.5), and is not delivered",
			script: func(tr *traffic, _ place) bool {
				return tr.w.lacked(tr.w.late) != nil && tr.w.edit.count(keptBack) > 0
			}},
		{name: "a KeyShare under another kid", detected: "a share in another's place", store: func(w *world, _ place) bool {
			s := w.lacked(w.late)
			if s == nil {
				return false
			}
			s.key[1] ^= 1
			return w.again(&s.controlRecord)
		}},
		{name: "a KeyShare in another's partition", detected: "a share in another's place", store: func(w *world, _ place) bool {
			s := w.lacked(w.late)
			if s == nil {
				return false
			}
			s.partition = w.consumerPartition()
			if s.partition == keyring.GrantPartition(s.Recipient) { // then under another's name
				copy(s.key[1+wire.KidSize:], w.mallory.cred.Node[:])
			}
			return w.again(&s.controlRecord)
		}},
		{name: "a KeyShare for another recipient", detected: signature, store: reshare(func(w *world, s *share) bool {
			other := w.leaver
			s.Recipient = other.cred.Node
			return !other.holds(s.kid)
		})},
		{name: "a KeyShare of another topic", detected: signature, store: reshare(func(w *world, s *share) bool {
			for _, t := range s.Proof.Header.Topics {
				if t.Name != s.Topic && !w.late.holds(keyring.KidOf(t.Commit)) {
					s.Topic = t.Name
					return true
				}
			}
			return false
		})},
		{name: "splice the secret of another KeyShare", detected: signature, store: reshare(func(w *world, s *share) bool {
			for _, o := range w.shares() {
				if o.kid != s.kid {
					s.HPKE = o.HPKE
					return true
				}
			}
			return false
		})},
		{name: "splice the proof of another grant into a KeyShare", detected: refused, store: func(w *world, at place) bool {
			return reshare(func(w *world, s *share) bool {
				s.Proof.WrapsHash[0] ^= 1
				w.judas.share(s)
				return true
			})(w, at)
		}},
		{name: "strip the signature of a KeyShare", detected: signature, store: reshare(func(_ *world, s *share) bool {
			clear(s.Signature[:])
			return true
		})},
		{name: "flip a bit of a KeyShare", detected: refused, store: func(w *world, _ place) bool {
			s := w.lacked(w.late)
			if s == nil {
				return false
			}
			s.value[len(s.value)-1-w.rng.IntN(wire.SignatureSize+wire.WrapSize)] ^= 1 << w.rng.IntN(8)
			return w.again(&s.controlRecord)
		}},
		{name: "a KeyShare by a member without SHARE", detected: "does not allow it to share topic", store: reshare(func(w *world, s *share) bool {
			w.mallory.share(s)
			return true
		})},
		{name: "a KeyShare of another secret by a dishonest peer", alarm: agent.AlarmConflict, store: reshare(func(w *world, s *share) bool {
			pub := w.prekey(s.Prekey)
			if pub == nil {
				return false
			}
			digest := s.Proof.Header.Digest()
			hashed := sha256.Sum256(pub)
			info := slices.Concat([]byte("KX1 share v1\x00"), digest[:], s.Recipient[:], hashed[:], w.judas.cred.Node[:])
			key, err := hpke.MLKEM768X25519().NewPublicKey(pub)
			must(w.t, err)
			secret := make([]byte, 32)
			_, _ = crand.Read(secret)
			wrap, err := hpke.Seal(key, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), info, secret)
			must(w.t, err)
			copy(s.HPKE[:], wrap)
			w.judas.share(s)
			return true
		})},
		{name: "deliver a KeyShare late", outside: nothing + ": it is the one that was made", script: func(tr *traffic, _ place) bool {
			w := tr.w
			s := w.lacked(w.late)
			return s != nil && w.again(&s.controlRecord) && eventually(10*time.Second, func() bool { return w.late.holds(s.kid) })
		}},
		{name: "replay a KeyShare", outside: nothing + ": the kid is held, or was erased and stays so (C13)", store: func(w *world, _ place) bool {
			for _, s := range w.shares() {
				if s.Recipient == w.late.cred.Node && w.late.holds(s.kid) {
					return w.again(&s.controlRecord)
				}
			}
			s := w.lacked(w.late)
			return s != nil && w.again(&s.controlRecord)
		}},
	}
}

// share signs a share as this member's own.
func (m *member) share(s *share) {
	s.Sharer, s.Credential = m.cred.Node, m.cred.Serial
	m.sign(wire.TypeKeyShare, s.AppendBody(nil), &s.Signature)
}

// prekey finds a public key that was published.
func (w *world) prekey(id wire.PrekeyID) []byte {
	w.seen.mu.Lock()
	defer w.seen.mu.Unlock()
	for _, r := range w.seen.bundles {
		if b, err := wire.ParsePrekeyBundle(r.value); err == nil && wire.PrekeyIDOf(b.KEMPub[:]) == id {
			return b.KEMPub[:]
		}
	}
	return nil
}

// request returns the newcomer's request for keys.
func (w *world) request() *wire.EpochRequest {
	for _, r := range slices.Backward(w.seen.of(wire.TypeEpochRequest)) {
		if q, err := wire.ParseEpochRequest(r.value); err == nil && q.Node == w.late.cred.Node {
			return q
		}
	}
	return nil
}

// rerequest appends the newcomer's request, changed.
func rerequest(f func(w *world, q *wire.EpochRequest)) func(w *world, _ place) bool {
	return func(w *world, _ place) bool {
		q := w.request()
		if q == nil {
			return false
		}
		f(w, q)
		return w.roster(q.Key(), q.Append(nil))
	}
}

func requestActions() []*action {
	return []*action{
		{name: "replay an EpochRequest", outside: "a node is given a kid once a minute, however often it asks (§2.15)",
			store: rerequest(func(*world, *wire.EpochRequest) {})},
		{name: "flood with EpochRequests", outside: "60 of a node are looked at in a minute, and a kid is given once (§2.15)", script: flood},
		{name: "strip the signature of an EpochRequest", detected: signature,
			store: rerequest(func(_ *world, q *wire.EpochRequest) { clear(q.Signature[:]) })},
		{name: "an EpochRequest for another group", outside: nothing + ": peers are asked by the name of their group, and its members see the signature",
			store: rerequest(func(_ *world, q *wire.EpochRequest) { q.Group = "re" + q.Group })},
		{name: "an EpochRequest in another's name", detected: signature, store: rerequest(func(w *world, q *wire.EpochRequest) {
			w.mallory.sign(wire.TypeEpochRequest, q.AppendBody(nil), &q.Signature)
		})},
		{name: "an EpochRequest under another's credential", detected: "names a credential of another", store: rerequest(func(w *world, q *wire.EpochRequest) {
			q.Credential = w.mallory.cred.Serial
			w.mallory.sign(wire.TypeEpochRequest, q.AppendBody(nil), &q.Signature)
		})},
		{name: "an EpochRequest for a group that a member is not of", detected: "to which its credential does not entitle it", store: rerequest(func(w *world, q *wire.EpochRequest) {
			q.Node, q.Credential, q.Created = w.mallory.cred.Node, w.mallory.cred.Serial, uint64(time.Now().UnixMilli())
			w.mallory.sign(wire.TypeEpochRequest, q.AppendBody(nil), &q.Signature)
		})},
		{name: "an EpochRequest under another's key", detected: "under another key", store: func(w *world, _ place) bool {
			q := w.request()
			if q == nil {
				return false
			}
			key := q.Key()
			copy(key[1:], w.mallory.cred.Node[:])
			return w.roster(key, q.Append(nil))
		}},
	}
}

// flood asks 80 times for the same. Peers answer for each kid at most once a minute, and each
// process counts anew.
func flood(tr *traffic, _ place) bool {
	w := tr.w
	q := w.request()
	if q == nil {
		return false
	}
	count := func() (n int) {
		for _, s := range w.shares() {
			if s.Recipient == w.late.cred.Node {
				n++
			}
		}
		return n
	}
	before := count()
	for range 80 {
		if !w.roster(q.Key(), q.Append(nil)) {
			return false
		}
	}
	// What follows in the roster is read after it.
	if next := w.seen.latest(&w.seen.bundles, func(r controlRecord) bool { return bytes.Equal(r.key[1:], w.consumerCred.Node[:]) }); next == nil || !w.again(next) {
		return false
	}
	time.Sleep(200 * time.Millisecond)
	if n := count() - before; n > len(q.Kids) {
		w.t.Errorf("a flood of requests for %d kids brought %d shares", len(q.Kids), n)
	}
	return true
}
