package wire

import "encoding/binary"

// A PrekeyBundle publishes one node's present prekey. Bundles of a node are ordered by
// (lineage of cred_serial, generation).
//
//	  19b: PRE
//	  16b: node_id
//	  16b: cred_serial
//	   8b: generation
//	   8b: created, Unix ms
//	   8b: not_after, Unix ms
//	      interest patterns: a count u16 (0 = all topics of the credential), then each
//	1216b: kem_pub, X-Wing
//	  64b: signature by the node
type PrekeyBundle struct {
	Realm      RealmID
	Node       NodeID
	Credential Serial
	Generation uint64
	Created    uint64
	NotAfter   uint64
	Interest   []Pattern
	KEMPub     [KEMPublicSize]byte
	Signature  [SignatureSize]byte
}

// AppendBody appends what the signature covers.
func (p *PrekeyBundle) AppendBody(b []byte) []byte {
	b = appendPre(b, TypePrekeyBundle, p.Realm)
	b = append(b, p.Node[:]...)
	b = append(b, p.Credential[:]...)
	b = binary.BigEndian.AppendUint64(b, p.Generation)
	b = binary.BigEndian.AppendUint64(b, p.Created)
	b = binary.BigEndian.AppendUint64(b, p.NotAfter)
	b = AppendPatterns(b, p.Interest)
	return append(b, p.KEMPub[:]...)
}

// Append appends the bundle and its signature.
func (p *PrekeyBundle) Append(b []byte) []byte { return append(p.AppendBody(b), p.Signature[:]...) }

// Key is the bundle's Kafka key: 0x03 ‖ node_id.
func (p *PrekeyBundle) Key() []byte { return append([]byte{byte(TypePrekeyBundle)}, p.Node[:]...) }

// ParsePrekeyBundle reads exactly one bundle. A not_after before created is refused. The
// signature is not verified.
func ParsePrekeyBundle(b []byte) (*PrekeyBundle, error) {
	r := reader{b: b, bad: len(b) > MaxControlSize}
	p := &PrekeyBundle{Realm: r.pre(TypePrekeyBundle)}
	r.fixed(p.Node[:])
	r.fixed(p.Credential[:])
	p.Generation = r.u64()
	p.Created = r.u64()
	p.NotAfter = r.u64()
	p.Interest = r.patterns()
	r.fixed(p.KEMPub[:])
	r.fixed(p.Signature[:])
	if p.NotAfter < p.Created {
		r.bad = true
	}
	if err := r.end("prekey bundle"); err != nil {
		return nil, err
	}
	return p, nil
}
