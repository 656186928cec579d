package wire

import "encoding/binary"

// A CSR asks an issuer for a credential (PROTOCOL.md §2.12). With an issuer that is
// reached by file, the handshake hash under its signature is 32 zeros.
//
//	 1b: version (1)
//	 1b: suite (1)
//	32b: id_pub, Ed25519
//	 4b: offline_allow_s wanted
//	 2b: roles wanted
//	    topic patterns, group patterns: a count u16, then each
//	64b: signature by id_pub over "KX1 csr v1\0" ‖ handshake_hash 32 ‖ the above
type CSR struct {
	Subject      PublicKey
	OfflineAllow uint32 // seconds
	Roles        Roles
	Topics       []Pattern
	Groups       []Pattern
	Signature    [SignatureSize]byte
}

// AppendBody appends what the signature covers after its label and handshake hash.
func (c *CSR) AppendBody(b []byte) []byte {
	b = append(b, Version, Suite)
	b = append(b, c.Subject[:]...)
	b = binary.BigEndian.AppendUint32(b, c.OfflineAllow)
	b = binary.BigEndian.AppendUint16(b, uint16(c.Roles))
	b = AppendPatterns(b, c.Topics)
	return AppendPatterns(b, c.Groups)
}

// Append appends the request and its signature.
func (c *CSR) Append(b []byte) []byte { return append(c.AppendBody(b), c.Signature[:]...) }

// SignatureInput is what the request's signature covers.
func (c *CSR) SignatureInput(handshake Digest) []byte {
	b := append([]byte("KX1 csr v1\x00"), handshake[:]...)
	return c.AppendBody(b)
}

// ParseCSR reads exactly one request, at most as large as a credential. The signature is
// not verified.
func ParseCSR(b []byte) (*CSR, error) {
	r := reader{b: b, bad: len(b) > MaxCredentialSize}
	if r.u8() != Version || r.u8() != Suite {
		r.bad = true
	}
	c := &CSR{}
	r.fixed(c.Subject[:])
	c.OfflineAllow = r.u32()
	c.Roles = Roles(r.u16())
	c.Topics = r.patterns()
	c.Groups = r.patterns()
	r.fixed(c.Signature[:])
	if c.Roles&^allRoles != 0 {
		r.bad = true
	}
	if err := r.end("signing request"); err != nil {
		return nil, err
	}
	return c, nil
}
