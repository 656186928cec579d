package keyring

import (
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

// A Roster is the verified view of the roster topic (PROTOCOL.md §2.6, §2.7.2).
type Roster struct{}

// NewRoster returns a view that knows the chain of the state's own credential and its
// high-water marks. The agent then reads the topic from its start.
func NewRoster(s *State, t Timing) *Roster { return &Roster{} }

// Apply verifies one record and keeps it. A nil value is a tombstone; it carries no
// signature, so it only removes what has expired anyway. A record whose signer is not
// known yet is held back, without an error, until the signer's credential arrives. On an
// error the view is as it was; the agent logs it and goes on.
func (r *Roster) Apply(key, value []byte, now time.Time) error { return nil }

// A Recipient is a consumer that a grant is wrapped for.
type Recipient struct {
	Node   wire.NodeID
	Prekey wire.PrekeyID
	kemPub []byte
}

// Recipients returns, in order of node id, who is entitled to topic at now and has a
// bundle (PROTOCOL.md §2.7.2). The error wraps abi.StatusNoRecipient and says whether
// nobody is there, or which of groups has no recipient.
func (r *Roster) Recipients(topic string, groups []string, now time.Time) ([]Recipient, error) {
	return nil, nil
}

// Credentials lists the verified credentials, and Bundles the accepted bundles, for
// showing them.
func (r *Roster) Credentials() []*wire.Credential { return nil }
func (r *Roster) Bundles() []*wire.PrekeyBundle   { return nil }
