package agent

import (
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

const hintRenew = "this node asks for the next one by itself: is `wasm-e2ee issuer` running where the realm is? Without an issuer, sign its request again there (wasm-e2ee realm issue), stop this sidecar, install the credential (wasm-e2ee enroll --credential), and start it again"

// watchCredential says when a fifth of the credential's validity is left, which a node that
// is renewed never sees, and when it has ended (PROTOCOL.md §2.6): a node that nobody renews
// stops without any other sign.
func (a *Agent) watchCredential() {
	var of wire.Serial
	var soon, over bool // said of it
	a.every(a.credentialPeriod(time.Second, 16), func() {
		a.mu.Lock()
		c := a.node.Credential()
		a.mu.Unlock()
		if c.Serial != of {
			of, soon, over = c.Serial, false, false
		}
		begin, end := time.UnixMilli(int64(c.NotBefore)).UTC(), time.UnixMilli(int64(c.NotAfter)).UTC()
		switch at := a.now(); {
		case !over && !at.Before(end):
			soon, over = true, true
			a.log.Warn("the credential has ended: this node is granted nothing more, and begins no epoch", "ended", end, "hint", hintRenew)
		case !soon && !at.Before(end.Add(-end.Sub(begin)/5)):
			soon = true
			a.log.Warn("the credential ends soon, and was not renewed", "ends", end, "left", end.Sub(at).Round(time.Second), "hint", hintRenew)
		}
	})
}
