package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// maxAttempts is how often a state is signed anew after an issuer was quicker.
const maxAttempts = 5

// WriteAuthority puts an AuthorityState on the roster, which log has not been Run for yet:
// it reads the roster to its end, has next sign the state that follows, writes it, and reads
// it back. Where another issuer wrote one meanwhile, next signs again, on top of that one.
// The state is returned once it stands there; roster is where it was applied.
func WriteAuthority(ctx context.Context, log *RosterLog, roster *keyring.Roster, next func() (*wire.AuthorityState, error), apply func(key, value []byte) error) (*wire.AuthorityState, error) {
	ctx, cancel := context.WithCancel(ctx)
	var mu sync.Mutex // over roster
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	var refused error
	wg.Go(func() {
		log.Run(ctx, func(key, value []byte) {
			mu.Lock()
			defer mu.Unlock()
			if err := apply(key, value); err != nil && len(key) > 0 && wire.Type(key[0]) == wire.TypeAuthorityState && !errors.Is(err, keyring.ErrOtherRealm) {
				refused = err
			}
		})
	})
	for range maxAttempts {
		if err := log.CatchUp(ctx); err != nil {
			return nil, err
		}
		mu.Lock()
		refused = nil
		state, err := next()
		mu.Unlock()
		if err != nil {
			return nil, err
		}
		if err := log.Write(ctx, []keyring.Record{{Key: state.Key(), Value: state.Append(nil)}}); err != nil {
			return nil, err
		}
		if err := log.CatchUp(ctx); err != nil {
			return nil, err
		}
		mu.Lock()
		held, why := roster.Authority(), refused
		mu.Unlock()
		if held != nil && held.Digest() == state.Digest() {
			return state, nil
		}
		if why != nil && !errors.Is(why, keyring.ErrConflict) {
			return nil, fmt.Errorf("topic %s: the state that was written does not count: %w", rosterTopic, why)
		}
	}
	return nil, fmt.Errorf("topic %s: other states were written each time before this one\nhint: stop the issuers that run beside this one, and try again", rosterTopic)
}
