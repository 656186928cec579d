package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// chainEvery is how many prekey rotations pass until the credential chain is published again.
// Every node reads all of the roster, and a chain is a third of a bundle.
const chainEvery = 20

// A publication is what this node still has to write to the roster.
type publication struct {
	chain   bool      // the credential chain: at start, every chainEvery rotations, and when overwritten or lost
	bundle  bool      // the newest bundle: after NewPrekey, and when overwritten
	renewed time.Time // when the chain was last written
	prekeys uint64    // made since start
}

// applyRoster takes one record of the roster topic.
func (a *Agent) applyRoster(rec *kgo.Record, _ time.Time) {
	if len(rec.Key) > 0 && wire.Type(rec.Key[0]) == wire.TypeEpochRequest {
		if a.node.HasRole(wire.RoleConsume | wire.RoleShare) {
			a.enqueue(rec)
		}
		return
	}
	at := a.now()
	a.mu.Lock()
	held := a.roster.Authority()
	err := a.roster.Apply(rec.Key, rec.Value, at)
	changed := a.roster.Authority() != held
	again, noteErr := a.consumer.NoteRoster(rec.Key, rec.Value, at)
	if again {
		a.publish.bundle = true
	}
	for _, own := range a.node.RosterRecords() {
		if bytes.Equal(own.Key, rec.Key) && !bytes.Equal(own.Value, rec.Value) {
			a.publish.chain = true
		}
	}
	a.mu.Unlock()
	if changed {
		a.authorityChanged()
	}
	if a.refuseState(rec, err) {
		return
	}
	// What compaction has not removed yet is old by nature when the roster is first read.
	if !errors.Is(err, keyring.ErrRollback) || a.isReady() {
		a.refuse(rec, err)
	}
	a.refuse(rec, noteErr)
}

// publishing keeps this node's credential and prekey on the roster, and says when grants
// can first reach it.
func (a *Agent) publishing(period time.Duration) {
	a.mu.Lock()
	a.publish.chain = true
	a.mu.Unlock()
	checked, ready := false, false
	last := time.Now()
	a.every(period, func() {
		if jumped(last, time.Now()) > a.cfg.Timing.Skew/2 {
			a.resumed()
		}
		last = time.Now()
		var err error
		if !checked {
			if err = a.rosterLog.catchUp(a.ctx); err == nil {
				checked = true
				a.checkRoster()
			}
		}
		if err == nil {
			err = a.publishDue()
		}
		if err == nil && !ready {
			err = a.checkCredential()
		}
		if err == nil && !ready {
			if err = a.rosterLog.catchUp(a.ctx); err == nil {
				ready = true
				close(a.joined)
				if !a.node.HasRole(wire.RoleConsume) {
					close(a.ready)
				} // else inquiring does
				a.log.Info("roster read, keys can be exchanged", "node", a.node.ID())
			}
		}
		a.warn("roster", a.refusedOr(err))
	})
}

// publishDue makes a prekey when it is time and writes what the roster lacks.
func (a *Agent) publishDue() error {
	at := a.now()
	a.mu.Lock()
	var fault error // a node whose credential has ended makes no prekey, and is still on the roster
	if a.node.HasRole(wire.RoleConsume) && a.consumer.PrekeyDue(at) {
		if _, err := a.consumer.NewPrekey(at); err != nil {
			fault = fmt.Errorf("new prekey: %w", err)
		} else {
			a.publish.bundle = true
			a.publish.prekeys++
		}
	}
	if at.Sub(a.publish.renewed) >= chainEvery*a.cfg.Timing.PrekeyRotation {
		a.publish.chain = true // heals a roster that lost it unseen
	}
	chain, bundle := a.publish.chain, a.publish.bundle
	var records []keyring.Record
	if chain {
		records = a.node.RosterRecords()
	}
	if bundle {
		if rec, ok := a.consumer.Bundle(); ok {
			records = append(records, rec)
		}
	}
	a.publish.chain, a.publish.bundle = false, false
	a.mu.Unlock()
	if len(records) == 0 {
		return fault
	}
	// The seed reaches the disk before anybody can wrap to it (PROTOCOL.md §2.8.1).
	err := a.saveChanged()
	if err == nil {
		_, err = a.write(a.ctx, rosterTopic, records)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil {
		a.publish.chain = a.publish.chain || chain
		a.publish.bundle = a.publish.bundle || bundle
		return err
	}
	if chain {
		a.publish.renewed = at
	}
	return fault
}

// write writes records to a control topic and waits for all acknowledgements.
func (a *Agent) write(ctx context.Context, topic string, records []keyring.Record) ([]*kgo.Record, error) {
	return writeRecords(ctx, a.cl, topic, records)
}

// resumed is what follows a clock jump: a suspended machine, or a clock that was set. What
// was leased before may have leaked or be used twice (PROTOCOL.md §2.7.4, §2.13).
func (a *Agent) resumed() {
	a.log.Warn("the clock jumped: new epochs and a new prekey")
	a.restart()
	at := a.now()
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.node.HasRole(wire.RoleConsume) {
		return
	}
	if _, err := a.consumer.NewPrekey(at); err == nil {
		a.publish.bundle = true
		a.publish.prekeys++
	}
}

// jumped is by how much the wall clock moved against the monotonic one between two times.
func jumped(from, to time.Time) time.Duration {
	return (to.Round(0).Sub(from.Round(0)) - to.Sub(from)).Abs()
}
