package config

import (
	"errors"
	"fmt"

	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// OnUnreadable says what becomes of a batch that will never open (PROTOCOL.md §2.8.5). The
// zero value stops.
type OnUnreadable string

const (
	Stop OnUnreadable = "stop" // the application gets an authorisation error on the partition
	Skip OnUnreadable = "skip" // the batch is passed over, counted and logged
)

// Freshness says what a producer does without a fresh AuthorityState (PROTOCOL.md §2.14).
// The zero value warns.
type Freshness string

const (
	Warn    Freshness = "warn"    // a line in the log
	Require Freshness = "require" // no new epoch begins: an issuer must run
)

// Profile names how long keys stay for groups to seek back (PROTOCOL.md §2.17, W): "strict",
// or "replay" and how long.
func (f *File) Profile() string {
	if w := f.KX1().Window; w > keyring.DefaultTiming().Window {
		return "replay " + w.String()
	}
	return "strict"
}

// checkProfile refuses what leaves in doubt which of two settings counts.
func (f *File) checkProfile() error {
	strict := keyring.DefaultTiming().Window
	switch {
	case f.Policy.OnUnreadable != "" && f.Policy.OnUnreadable != Stop && f.Policy.OnUnreadable != Skip:
		return fmt.Errorf("policy.on_unreadable %q is neither stop nor skip", f.Policy.OnUnreadable)
	case f.Policy.Freshness != "" && f.Policy.Freshness != Warn && f.Policy.Freshness != Require:
		return fmt.Errorf("policy.freshness %q is neither warn nor require", f.Policy.Freshness)
	case f.Policy.Replay != 0 && f.Timing.Window != 0:
		return errors.New("policy.replay and timing.window both set how long keys stay\nhint: keep one of them")
	case f.Policy.Replay != 0 && f.Policy.Replay < strict:
		return fmt.Errorf("policy.replay is %v, less than the %v that the profile strict keeps\nhint: leave it out", f.Policy.Replay, strict)
	}
	return nil
}
