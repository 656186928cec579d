package keyring

import (
	"testing"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

// TestAStolenPrekeyOpensWhatPeersSharedForIt: the share stands in the log, also once the
// secret in it was erased.
func TestAStolenPrekeyOpensWhatPeersSharedForIt(t *testing.T) {
	_, holder, late, kid := group(t)
	before := late.state.Marshal()
	var shares []*wire.KeyShare
	for _, rec := range holder.share(late.ask("billing", kid)) {
		share, err := wire.ParseKeyShare(rec.Value)
		if err != nil {
			t.Fatal(err)
		}
		shares = append(shares, share)
	}
	want, err := holder.consumer.Root("orders", kid, holder.now)
	if err != nil {
		t.Fatal(err)
	}
	roots, err := UnsafeShares(before, shares)
	if err != nil || len(roots) != 1 || roots[0].Kid != kid || roots[0].Via != ViaPrekey || [32]byte(roots[0].Root) != want.Root {
		t.Errorf("the prekey opens %+v: %v", roots, err)
	}
	if roots, err := UnsafeShares(holder.state.Marshal(), shares); err != nil || len(roots) != 0 {
		t.Errorf("another node's prekeys open %d: %v", len(roots), err)
	}
}
