package keyring

import (
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

// A Node is this process's identity key and credential chain (PROTOCOL.md §2.2).
type Node struct{}

// Attributes are what a CSR asks for and an issuer grants.
type Attributes struct {
	Roles        wire.Roles
	Topics       []wire.Pattern
	Groups       []wire.Pattern
	OfflineAllow time.Duration // longest validity of a bundle, whole seconds
}

// CSR makes a signing request file (PROTOCOL.md §2.12, offline issuer).
func (n *Node) CSR(want Attributes) []byte { return nil }

// Install verifies a credential file (chain, realm, this node's key, validity at now) and
// adopts it. A node that already belongs to a realm refuses another realm's.
func (n *Node) Install(file []byte, now time.Time) error { return nil }

// Check reports why the node cannot work at now: no credential, not yet valid, expired.
// It wraps abi.StatusNotEntitled.
func (n *Node) Check(now time.Time) error { return nil }

// ID is the node's id.
func (n *Node) ID() wire.NodeID { return wire.NodeID{} }

// Realm is the realm's id, zeros before enrolment.
func (n *Node) Realm() wire.RealmID { return wire.RealmID{} }

// Credential is the node's credential, nil before enrolment. It must not be changed.
func (n *Node) Credential() *wire.Credential { return nil }

// GrantPartition is the partition of GrantsTopic that this node reads.
func (n *Node) GrantPartition() int32 { return 0 }

// RosterRecords are the credentials of the node's chain, for the agent to write to the
// roster where they are not there yet.
func (n *Node) RosterRecords() []Record { return nil }

// MayProduce and MayConsume return nil, or an error wrapping abi.StatusNotEntitled that
// names what is missing: credential, validity, role or topic pattern.
func (n *Node) MayProduce(topic string, now time.Time) error { return nil }
func (n *Node) MayConsume(topic string, now time.Time) error { return nil }

// HasRole reports whether the credential carries every one of roles, whatever the time.
func (n *Node) HasRole(roles wire.Roles) bool { return false }

// AllowsGroup reports whether the credential lists the consumer group.
func (n *Node) AllowsGroup(group string) bool { return false }

// Groups are the group patterns of the credential. When it is empty only the hard cap
// erases, and the agent says so at start (PROTOCOL.md §2.8.7).
func (n *Node) Groups() []wire.Pattern { return nil }
