package keyring

import (
	"errors"
	"fmt"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

// A Node is this process's identity key and credential chain (PROTOCOL.md §2.2).
type Node struct {
	seed  secretKey
	root  wire.PublicKey     // of the realm; set with chain
	chain []*wire.Credential // the node's own, then its issuer's; empty before enrolment

	// standing is the credential of this process's start. ID, realm, roles and patterns are
	// read from it, even while a renewal replaces the chain: it changes none of them.
	standing *wire.Credential

	revoked []wire.Revocation // of the AuthorityState that holds, as far as the roster was read
}

// Attributes are what a signing request asks for and an issuer grants.
type Attributes struct {
	Roles        wire.Roles
	Topics       []wire.Pattern
	Groups       []wire.Pattern
	OfflineAllow time.Duration // longest validity of a bundle, whole seconds
}

// CSR makes a signing request file (PROTOCOL.md §2.12, offline issuer).
func (n *Node) CSR(want Attributes) []byte {
	return armor(armorCSR, n.csr(want, offlineHandshake).Append(nil))
}

// csr signs a request over the hash of the handshake that carries it.
func (n *Node) csr(want Attributes, handshake wire.Digest) *wire.CSR {
	csr := &wire.CSR{
		Subject:      publicOf(&n.seed),
		OfflineAllow: uint32(min(want.OfflineAllow/time.Second, 1<<32-1)),
		Roles:        want.Roles,
		Topics:       want.Topics,
		Groups:       want.Groups,
	}
	csr.Signature = signRaw(&n.seed, csr.SignatureInput(handshake))
	return csr
}

// Install verifies a credential file (chain, realm, this node's key, validity at now) and
// adopts it. A node that already belongs to a realm refuses another realm's, and an older
// lineage. On an error the node is as it was.
func (n *Node) Install(file []byte, now time.Time) error {
	root, chain, err := ParseCredentialFile(file)
	if err != nil {
		return err
	}
	return n.install(root, chain, now)
}

// install adopts a verified chain for this node's key, if it is valid now.
func (n *Node) install(root wire.PublicKey, chain []*wire.Credential, now time.Time) error {
	c := chain[0]
	switch {
	case c.Subject != publicOf(&n.seed):
		return fmt.Errorf("credential: made for another identity key: %w", ErrUnauthentic)
	case c.Roles.Has(wire.RoleIssuer):
		return errors.New("credential: an issuer's certificate, not a node's")
	case n.chain != nil && root != n.root:
		return fmt.Errorf("credential: of realm %v, but this node belongs to %v", c.Realm, n.Realm())
	case n.chain == nil && c.Node != wire.NodeIDOf(c.Subject), n.chain != nil && c.Node != n.ID():
		return fmt.Errorf("credential: node id %v is not this node's: %w", c.Node, ErrUnauthentic)
	case n.chain != nil && c.Lineage < n.chain[0].Lineage:
		return fmt.Errorf("credential: lineage %d: %w", c.Lineage, ErrRollback)
	}
	if err := n.checkChain(chain, now); err != nil {
		return err
	}
	n.adopt(root, chain)
	return nil
}

func (n *Node) adopt(root wire.PublicKey, chain []*wire.Credential) {
	n.root, n.chain, n.standing = root, chain, chain[0]
}

// checkChain reports the first credential that is not valid at now, or that was revoked.
func (n *Node) checkChain(chain []*wire.Credential, now time.Time) error {
	if err := n.checkRevoked(chain, now); err != nil {
		return err
	}
	at := unixMs(now)
	for i, c := range chain {
		what := inChain(i)
		if at > c.NotAfter {
			return fmt.Errorf("%s expired at %s: %w", what, fromMs(c.NotAfter).UTC().Format(time.RFC3339), abi.StatusNotEntitled)
		}
		if !validAt(c, at, DefaultTiming().Skew) {
			return fmt.Errorf("%s is valid from %s on: %w", what, fromMs(c.NotBefore).UTC().Format(time.RFC3339), abi.StatusNotEntitled)
		}
	}
	return nil
}

// inChain names a credential by its place in a chain.
func inChain(i int) string {
	if i > 0 {
		return "issuer's certificate"
	}
	return "credential"
}

func (n *Node) checkRevoked(chain []*wire.Credential, now time.Time) error {
	for i, c := range chain {
		if from, ok := revokedAt(n.revoked, c.Serial); ok && unixMs(now) >= from {
			return fmt.Errorf("%s was revoked at %s: %w; hint: enrol a new identity, with a new state file", inChain(i), fromMs(from).UTC().Format(time.RFC3339), abi.StatusNotEntitled)
		}
	}
	return nil
}

// CheckRevoked returns an error that wraps abi.StatusNotEntitled where the node's credential,
// or its issuer's certificate, is revoked, as far as the roster was read.
func (n *Node) CheckRevoked(now time.Time) error { return n.checkRevoked(n.chain, now) }

// Check reports why the node cannot work at now: no credential, not yet valid, expired,
// revoked. It wraps abi.StatusNotEntitled.
func (n *Node) Check(now time.Time) error {
	if n.chain == nil {
		return fmt.Errorf("no credential: %w", abi.StatusNotEntitled)
	}
	return n.checkChain(n.chain, now)
}

// ID is the node's id.
func (n *Node) ID() wire.NodeID {
	if n.standing != nil {
		return n.standing.Node
	}
	return wire.NodeIDOf(publicOf(&n.seed))
}

// Realm is the realm's id, zeros before enrolment.
func (n *Node) Realm() wire.RealmID {
	if n.standing == nil {
		return wire.RealmID{}
	}
	return n.standing.Realm
}

// PublicKey is the identity's public key.
func (n *Node) PublicKey() wire.PublicKey { return publicOf(&n.seed) }

// Credential is the node's credential, nil before enrolment. It must not be changed.
func (n *Node) Credential() *wire.Credential {
	if n.chain == nil {
		return nil
	}
	return n.chain[0]
}

// GrantPartition is the partition of GrantsTopic that this node reads.
func (n *Node) GrantPartition() int32 { return GrantPartition(n.ID()) }

// RosterRecords are the credentials of the node's chain, the issuer's first, for the agent
// to write to the roster where they are not there yet.
func (n *Node) RosterRecords() []Record {
	var out []Record
	for i := len(n.chain) - 1; i >= 0; i-- {
		out = append(out, Record{Key: n.chain[i].Key(), Value: n.chain[i].Append(nil)})
	}
	return out
}

// MayProduce and MayConsume return nil, or an error wrapping abi.StatusNotEntitled that
// names what is missing: credential, validity (it may be revoked), role or topic pattern.
func (n *Node) MayProduce(topic string, now time.Time) error {
	if err := n.Check(now); err != nil {
		return err
	}
	return n.covers(wire.RoleProduce, topic)
}

func (n *Node) MayConsume(topic string, now time.Time) error {
	if err := n.Check(now); err != nil {
		return err
	}
	return n.covers(wire.RoleConsume, topic)
}

// covers reports why the credential, whatever its validity, does not allow role on topic.
func (n *Node) covers(role wire.Roles, topic string) error {
	switch {
	case n.chain == nil || !n.chain[0].Roles.Has(role):
		return fmt.Errorf("topic %s: the credential lacks role %v: %w", topic, role, abi.StatusNotEntitled)
	case !wire.MatchAny(n.chain[0].Topics, topic):
		return fmt.Errorf("topic %s: no topic pattern of the credential matches: %w", topic, abi.StatusNotEntitled)
	}
	return nil
}

// HasRole reports whether the credential carries every one of roles, whatever the time.
func (n *Node) HasRole(roles wire.Roles) bool {
	return n.standing != nil && n.standing.Roles.Has(roles)
}

// AllowsGroup reports whether the credential lists the consumer group.
func (n *Node) AllowsGroup(group string) bool {
	return n.standing != nil && wire.MatchAny(n.standing.Groups, group)
}

// Groups are the group patterns of the credential. When it is empty only the hard cap
// erases, and the agent says so at start (PROTOCOL.md §2.8.7).
func (n *Node) Groups() []wire.Pattern {
	if n.standing == nil {
		return nil
	}
	return n.standing.Groups
}

// Topics are the topic patterns of the credential.
func (n *Node) Topics() []wire.Pattern {
	if n.standing == nil {
		return nil
	}
	return n.standing.Topics
}
