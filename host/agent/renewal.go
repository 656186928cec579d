package agent

import (
	"crypto/rand"
	"fmt"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// askPeriod is how often a request for the next credential is written again while no issuer
// answers: an issuer may come and go.
const askPeriod = time.Minute

// renewing replaces the identity key and its credential in time (PROTOCOL.md §2.12). Until
// the credential's end nothing waits for it: keys go on under the present one.
func (a *Agent) renewing() {
	read := false
	var asked time.Time // when the request was last written
	a.every(a.credentialPeriod(time.Second, 64), func() {
		var err error
		if !read {
			// The answer to an earlier run's request may be there already.
			if err = a.rosterLog.catchUp(a.ctx); err == nil {
				read = true
			}
		}
		if err == nil {
			err = a.renewDue(&asked)
		}
		a.warn("renewal of the credential", a.refusedOr(err))
	})
}

// credentialPeriod is usual, or a fraction of the credential's validity where that is short.
func (a *Agent) credentialPeriod(usual time.Duration, fraction uint64) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.node.Credential()
	return scaled(usual, time.Duration(min((c.NotAfter-c.NotBefore)/fraction, 1<<32))*time.Millisecond)
}

// renewDue takes the next credential if it is there, and asks for it when it is time.
func (a *Agent) renewDue(asked *time.Time) error {
	at, period := a.now(), a.credentialPeriod(askPeriod, 50)
	a.mu.Lock()
	if a.state.AdoptRenewal(a.roster, at) {
		c := a.node.Credential()
		a.publish.chain = true
		a.mu.Unlock()
		*asked = time.Time{}
		a.log.Info("the identity key was renewed", "node", c.Node, "lineage", c.Lineage, "credential_ends", time.UnixMilli(int64(c.NotAfter)).UTC())
		return a.saveChanged()
	}
	due := !at.Before(a.node.RenewAt()) && a.node.Renewable(at) && at.Sub(*asked).Abs() >= period
	if !due {
		a.mu.Unlock()
		return nil
	}
	first := !a.state.Renewing()
	rec, err := a.state.Renew(rand.Reader)
	a.mu.Unlock()
	if err != nil {
		return err
	}
	// The next key reaches the disk before anybody can sign a credential for it.
	if err := a.saveChanged(); err != nil {
		return err
	}
	if _, err := a.write(a.ctx, rosterTopic, []keyring.Record{rec}); err != nil {
		return err
	}
	*asked = at
	if first {
		a.log.Info("asked for the next credential", "node", a.node.ID())
	}
	return nil
}

// checkCredential reports why the credential does not count now.
func (a *Agent) checkCredential() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.node.Check(a.now()); err != nil {
		return fmt.Errorf("%w\nhint: %s", err, hintRenew)
	}
	return nil
}
