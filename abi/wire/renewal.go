package wire

// A Renewal asks the issuer for the next credential of a node's lineage, for a new identity
// key and with the attributes of the present one (PROTOCOL.md §2.12).
//
//	19b: PRE
//	16b: node_id
//	16b: cred_serial: of the credential that is renewed
//	32b: id_pub: the new identity key, Ed25519
//	64b: signature by the old key
//	64b: signature by the new key
type Renewal struct {
	Realm      RealmID
	Node       NodeID
	Credential Serial
	Subject    PublicKey
	OldKey     [SignatureSize]byte
	NewKey     [SignatureSize]byte
}

// AppendBody appends what both signatures cover.
func (n *Renewal) AppendBody(b []byte) []byte {
	b = appendPre(b, TypeRenewal, n.Realm)
	b = append(b, n.Node[:]...)
	b = append(b, n.Credential[:]...)
	return append(b, n.Subject[:]...)
}

// Append appends the request and its signatures.
func (n *Renewal) Append(b []byte) []byte {
	b = append(n.AppendBody(b), n.OldKey[:]...)
	return append(b, n.NewKey[:]...)
}

// Key is the request's Kafka key: 0x09 ‖ node_id.
func (n *Renewal) Key() []byte { return append([]byte{byte(TypeRenewal)}, n.Node[:]...) }

// ParseRenewal reads exactly one request. The signatures are not verified.
func ParseRenewal(b []byte) (*Renewal, error) {
	r := reader{b: b}
	n := &Renewal{Realm: r.pre(TypeRenewal)}
	r.fixed(n.Node[:])
	r.fixed(n.Credential[:])
	r.fixed(n.Subject[:])
	r.fixed(n.OldKey[:])
	r.fixed(n.NewKey[:])
	if err := r.end("renewal"); err != nil {
		return nil, err
	}
	return n, nil
}
