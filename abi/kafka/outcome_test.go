package kafka

import (
	"testing"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
)

func TestAnOutcomeIsEitherTriedAgainOrFinal(t *testing.T) {
	for s := abi.StatusMalformed; s <= abi.StatusHistory; s++ {
		if FetchRetries(s) && Skippable(s) {
			t.Errorf("%v: passed over, and expected to open later", s)
		}
		if FetchRetries(s) && ProduceError(s) != CodeNotEnoughReplicas {
			t.Errorf("%v: a consumer tries again and a producer does not", s)
		}
	}
	for s, want := range map[abi.Status]struct {
		produce     int16
		retry, skip bool
	}{
		abi.StatusMalformed:   {0, false, true},
		abi.StatusCorrupt:     {2, false, true},
		abi.StatusTooLarge:    {10, false, true},
		abi.StatusForbidden:   {44, false, false},
		abi.StatusPlaintext:   {44, false, true},
		abi.StatusBadArgument: {44, false, false},
		abi.StatusInternal:    {19, false, false},
		abi.StatusUnavailable: {19, true, false},
		abi.StatusNoRecipient: {44, false, false},
		abi.StatusNotEntitled: {44, false, false},
		abi.StatusPending:     {19, true, false},
		abi.StatusErased:      {44, false, true},
		abi.StatusHistory:     {44, false, false},
		abi.Status(4711):      {44, false, false},
	} {
		if p, r, k := ProduceError(s), FetchRetries(s), Skippable(s); p != want.produce || r != want.retry || k != want.skip {
			t.Errorf("%v: %d, %v, %v; want %+v", s, p, r, k, want)
		}
	}
}
