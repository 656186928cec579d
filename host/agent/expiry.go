package agent

import "time"

const hintRenew = "issue a new one from the same request (wasm-e2ee realm issue), stop this sidecar, install it (wasm-e2ee enroll --credential), and start it again"

// watchCredential says when a quarter of the credential's validity is left, and when it has
// ended (PROTOCOL.md §2.6): a node that nobody renews stops without any other sign.
func (a *Agent) watchCredential() {
	c := a.node.Credential()
	begin, end := time.UnixMilli(int64(c.NotBefore)).UTC(), time.UnixMilli(int64(c.NotAfter)).UTC()
	life := end.Sub(begin)
	var soon, over bool // said
	a.every(scaled(time.Second, life/16), func() {
		switch at := a.now(); {
		case !over && !at.Before(end):
			soon, over = true, true
			a.log.Warn("the credential has ended: this node is granted nothing more, and begins no epoch", "ended", end, "hint", hintRenew)
		case !soon && !at.Before(end.Add(-life/4)):
			soon = true
			a.log.Warn("the credential ends soon", "ends", end, "left", end.Sub(at).Round(time.Second), "hint", hintRenew)
		}
	})
}
