package wire

// A KeyShare hands one topic secret from a member of a consumer group to another. It carries
// the producer's signed header on, so that the recipient checks the commitment itself
// (PROTOCOL.md §2.10).
//
//	  19b: PRE
//	      HEADER ‖ partition 1b ‖ wraps_hash 32b ‖ the producer's signature 64b
//	  16b: sharer node_id
//	  16b: sharer cred_serial
//	  16b: recipient node_id
//	   8b: prekey_id of the recipient
//	      topic: 2b length, name; one of HEADER's
//	1168b: HPKE encapsulation and ciphertext of ts
//	  64b: signature by the sharer
type KeyShare struct {
	Realm      RealmID
	Proof      GrantProof
	Sharer     NodeID
	Credential Serial // of the sharer
	Recipient  NodeID
	Prekey     PrekeyID
	Topic      string
	HPKE       [WrapSize]byte
	Signature  [SignatureSize]byte
}

// AppendBody appends what the sharer's signature covers.
func (k *KeyShare) AppendBody(b []byte) []byte {
	b = appendPre(b, TypeKeyShare, k.Realm)
	b = k.Proof.Append(b)
	b = append(b, k.Sharer[:]...)
	b = append(b, k.Credential[:]...)
	b = append(b, k.Recipient[:]...)
	b = append(b, k.Prekey[:]...)
	b = appendString(b, k.Topic)
	return append(b, k.HPKE[:]...)
}

// Append appends the share and its signature.
func (k *KeyShare) Append(b []byte) []byte { return append(k.AppendBody(b), k.Signature[:]...) }

// Commit returns the producer's commitment to the secret that is shared.
func (k *KeyShare) Commit() Digest {
	for i := range k.Proof.Header.Topics {
		if t := &k.Proof.Header.Topics[i]; t.Name == k.Topic {
			return t.Commit
		}
	}
	return Digest{}
}

// KeyShareKey is a share's Kafka key: 0x05 ‖ kid ‖ recipient node_id.
func KeyShareKey(kid [KidSize]byte, recipient NodeID) []byte {
	b := append([]byte{byte(TypeKeyShare)}, kid[:]...)
	return append(b, recipient[:]...)
}

// ParseKeyShare reads exactly one share. It refuses a header of another realm and a topic
// that is not the header's. No signature is verified.
func ParseKeyShare(b []byte) (*KeyShare, error) {
	r := reader{b: b, bad: len(b) > MaxControlSize}
	k := &KeyShare{Realm: r.pre(TypeKeyShare)}
	k.Proof = r.grantProof()
	r.fixed(k.Sharer[:])
	r.fixed(k.Credential[:])
	r.fixed(k.Recipient[:])
	r.fixed(k.Prekey[:])
	k.Topic = r.text(MaxNameLen)
	r.fixed(k.HPKE[:])
	r.fixed(k.Signature[:])
	if k.Proof.Header.Realm != k.Realm || k.Commit() == (Digest{}) {
		r.bad = true
	}
	if err := r.end("key share"); err != nil {
		return nil, err
	}
	return k, nil
}
