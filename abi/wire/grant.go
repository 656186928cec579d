package wire

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
)

// MaxTopics bounds the topics of one grant (PROTOCOL.md §2.15).
const MaxTopics = 512

// GrantFlags are the flags of a grant's header.
type GrantFlags uint16

// GrantArchive says that the topics of the grant are archive topics (PROTOCOL.md §2.11).
const GrantArchive GrantFlags = 1

// A GrantTopic is one topic of a grant and the commitment to its topic secret.
type GrantTopic struct {
	Name   string
	Commit Digest
}

// A GrantHeader announces one epoch of one producer instance. It is the same in all parts.
//
//	19b: PRE
//	16b: producer node_id
//	16b: cred_serial
//	16b: instance
//	 4b: epoch, counts the instance's headers from 0
//	 8b: start, Unix ms
//	 8b: use_by, Unix ms
//	 2b: flags (1 archive)
//	 8b: authority_seq
//	32b: roster_digest: SHA-256 of node_id ‖ prekey_id of all recipients by node_id
//	32b: prev: SHA-256 of the instance's previous header, zeros for the first
//	 2b: n_topics, 1 to 512, then each: 2b length, name, 32b commit; strictly by name
type GrantHeader struct {
	Realm        RealmID
	Producer     NodeID
	Credential   Serial
	Instance     InstanceID
	Epoch        uint32
	Start        uint64
	UseBy        uint64
	Flags        GrantFlags
	AuthoritySeq uint64
	RosterDigest Digest
	Prev         Digest
	Topics       []GrantTopic
}

// Append appends the header.
func (h *GrantHeader) Append(b []byte) []byte {
	b = appendPre(b, TypeEpochGrant, h.Realm)
	b = append(b, h.Producer[:]...)
	b = append(b, h.Credential[:]...)
	b = append(b, h.Instance[:]...)
	b = binary.BigEndian.AppendUint32(b, h.Epoch)
	b = binary.BigEndian.AppendUint64(b, h.Start)
	b = binary.BigEndian.AppendUint64(b, h.UseBy)
	b = binary.BigEndian.AppendUint16(b, uint16(h.Flags))
	b = binary.BigEndian.AppendUint64(b, h.AuthoritySeq)
	b = append(b, h.RosterDigest[:]...)
	b = append(b, h.Prev[:]...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(h.Topics)))
	for _, t := range h.Topics {
		b = appendString(b, t.Name)
		b = append(b, t.Commit[:]...)
	}
	return b
}

// Digest is the SHA-256 of the header.
func (h *GrantHeader) Digest() Digest { return sha256.Sum256(h.Append(nil)) }

// Key is the grant's Kafka key, in every partition: 0x04 ‖ instance ‖ epoch.
func (h *GrantHeader) Key() []byte {
	b := append([]byte{byte(TypeEpochGrant)}, h.Instance[:]...)
	return binary.BigEndian.AppendUint32(b, h.Epoch)
}

// A Wrap is an epoch secret sealed to one recipient's prekey.
//
//	  16b: recipient node_id
//	   8b: prekey_id
//	1168b: HPKE encapsulation and ciphertext of es
type Wrap struct {
	Node   NodeID
	Prekey PrekeyID
	HPKE   [WrapSize]byte
}

const wrapEntrySize = 16 + 8 + WrapSize

// grantPartitions is the number of parts of a grant; the low bits of a node id's first four
// bytes choose among them (PROTOCOL.md §2.2).
const grantPartitions = 16

// A Grant is an EpochGrant as one partition of the grants topic holds it: HEADER, PART
// and the WRAPS of the recipients that belong to the partition.
//
//	HEADER
//	 1b: partition
//	32b: wraps_hash: SHA-256 of WRAPS
//	64b: the producer's signature of HEADER ‖ partition ‖ wraps_hash
//	WRAPS: 2b count, then each, strictly by node_id
type Grant struct {
	Header    GrantHeader
	Partition uint8
	Signature [SignatureSize]byte
	Wraps     []Wrap
}

// AppendBody appends what the signature covers: HEADER, partition and the digest of WRAPS.
func (g *Grant) AppendBody(b []byte) []byte {
	p := g.Proof()
	return p.AppendBody(b)
}

func (g *Grant) appendWraps(b []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(g.Wraps)))
	for i := range g.Wraps {
		w := &g.Wraps[i]
		b = append(b, w.Node[:]...)
		b = append(b, w.Prekey[:]...)
		b = append(b, w.HPKE[:]...)
	}
	return b
}

// Append appends the part with its signature and wraps.
func (g *Grant) Append(b []byte) []byte {
	b = append(g.AppendBody(b), g.Signature[:]...)
	return g.appendWraps(b)
}

// ParseGrant reads exactly one part of at most 512 KiB. It checks the order of topics and
// wraps, that the wraps belong to its partition, the epoch's times and that WRAPS is what
// wraps_hash says, but not the signature.
func ParseGrant(b []byte) (*Grant, error) {
	r := reader{b: b, bad: len(b) > MaxControlSize}
	g := &Grant{}
	proof := r.grantProof()
	g.Header, g.Partition, g.Signature = proof.Header, proof.Partition, proof.Signature
	wraps := r.b
	n := r.count(wrapEntrySize)
	for i := 0; i < n && !r.bad; i++ {
		var w Wrap
		r.fixed(w.Node[:])
		r.fixed(w.Prekey[:])
		r.fixed(w.HPKE[:])
		if i > 0 && bytes.Compare(g.Wraps[i-1].Node[:], w.Node[:]) >= 0 || w.Node[3]%grantPartitions != g.Partition {
			r.bad = true
		}
		g.Wraps = append(g.Wraps, w)
	}
	if !r.bad && sha256.Sum256(wraps) != proof.WrapsHash {
		r.bad = true
	}
	if err := r.end("grant"); err != nil {
		return nil, err
	}
	return g, nil
}

// Wrap returns the part's wrap for node, or nil.
func (g *Grant) Wrap(node NodeID) *Wrap {
	for i := range g.Wraps {
		if g.Wraps[i].Node == node {
			return &g.Wraps[i]
		}
	}
	return nil
}

// A GrantProof is a part of a grant without its wraps: what a producer signed, and what a
// KeyShare carries on.
//
//	HEADER
//	 1b: partition
//	32b: wraps_hash
//	64b: the producer's signature of the above
type GrantProof struct {
	Header    GrantHeader
	Partition uint8
	WrapsHash Digest
	Signature [SignatureSize]byte
}

// AppendBody appends what the signature covers.
func (p *GrantProof) AppendBody(b []byte) []byte {
	b = append(p.Header.Append(b), p.Partition)
	return append(b, p.WrapsHash[:]...)
}

// Append appends the proof.
func (p *GrantProof) Append(b []byte) []byte { return append(p.AppendBody(b), p.Signature[:]...) }

// Proof returns the part without its wraps.
func (g *Grant) Proof() GrantProof {
	return GrantProof{g.Header, g.Partition, sha256.Sum256(g.appendWraps(nil)), g.Signature}
}

// grantProof reads a header, a part and its signature, and checks the order of topics and
// the epoch's times.
func (r *reader) grantProof() GrantProof {
	var p GrantProof
	h := &p.Header
	h.Realm = r.pre(TypeEpochGrant)
	r.fixed(h.Producer[:])
	r.fixed(h.Credential[:])
	r.fixed(h.Instance[:])
	h.Epoch = r.u32()
	h.Start = r.u64()
	h.UseBy = r.u64()
	h.Flags = GrantFlags(r.u16())
	h.AuthoritySeq = r.u64()
	r.fixed(h.RosterDigest[:])
	r.fixed(h.Prev[:])
	n := r.count(2 + 1 + DigestSize)
	if n == 0 || n > MaxTopics || h.Flags&^GrantArchive != 0 || h.UseBy <= h.Start {
		r.bad = true
	}
	for i := 0; i < n && !r.bad; i++ {
		t := GrantTopic{Name: r.text(MaxNameLen)}
		r.fixed(t.Commit[:])
		if t.Name == "" || i > 0 && h.Topics[i-1].Name >= t.Name {
			r.bad = true
		}
		h.Topics = append(h.Topics, t)
	}
	if p.Partition = r.u8(); p.Partition >= grantPartitions {
		r.bad = true
	}
	r.fixed(p.WrapsHash[:])
	r.fixed(p.Signature[:])
	return p
}
