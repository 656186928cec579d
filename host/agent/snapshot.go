package agent

import (
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// A Snapshot is what an agent holds and has done, without secrets.
type Snapshot struct {
	Node     wire.NodeID
	Roles    wire.Roles
	NotAfter time.Time     // the credential's end
	Revoked  bool          // the credential is
	Period   time.Duration // P, which the product promises (PROTOCOL.md §2.17)
	Ready    bool          // as Agent.Ready
	Contact  time.Time     // when the control topics were last known to be read to their ends; zero: not yet

	Epochs  []keyring.EpochView  // live epochs of this producing instance
	Pending []keyring.EpochView  // epochs whose grants are not acknowledged yet
	Held    []keyring.KidView    // topic secrets held
	Prekeys []keyring.PrekeyView // prekey seeds held

	// Since start.
	EpochsBegun   uint64 // one for each topic
	RootsReceived uint64
	RootsErased   uint64
	PrekeysMade   uint64
	Alarms        map[Alarm]uint64
}

// counts is what a Snapshot counts.
type counts struct{ epochs, received, erased uint64 }

// Snapshot returns the present view.
func (a *Agent) Snapshot() Snapshot {
	a.mu.Lock()
	defer a.mu.Unlock()
	view := a.state.View()
	return Snapshot{
		Node: view.Node, Roles: view.Credential.Roles, NotAfter: time.UnixMilli(int64(view.Credential.NotAfter)), Revoked: a.node.CheckRevoked(a.now()) != nil, Period: a.cfg.Timing.P(),
		Ready: a.isReady(), Contact: a.contact,
		Epochs: a.producer.Epochs(), Pending: a.producer.Pending(), Held: view.Kids, Prekeys: view.Prekeys,
		EpochsBegun: a.counts.epochs, RootsReceived: a.counts.received, RootsErased: a.counts.erased, PrekeysMade: a.publish.prekeys,
		Alarms: a.alarms.snapshot(),
	}
}

// View shows the whole state, without secrets, as it would be in the file.
func (a *Agent) View() keyring.View {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.state.View()
}
