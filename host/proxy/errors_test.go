package proxy

import (
	"fmt"
	"testing"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
)

func TestTheHintIsSaidOnceAndTheBetterOneWins(t *testing.T) {
	err := fmt.Errorf("topic orders: %w: compact\nhint: alter the topic", abi.StatusCompacted)
	_, v := judge(err)
	if reason, hint := explain(err, v); reason != "topic orders: topic is compacted: compact" || hint != "alter the topic" {
		t.Errorf("reason %q, hint %q", reason, hint)
	}
	err = fmt.Errorf("credential was revoked: %w; hint: enrol anew", abi.StatusNotEntitled)
	if reason, hint := explain(err, v); reason != "credential was revoked: "+abi.StatusNotEntitled.Error() || hint != "enrol anew" {
		t.Errorf("reason %q, hint %q", reason, hint)
	}
	err = fmt.Errorf("topic orders: %w", abi.StatusCompacted)
	if reason, hint := explain(err, v); reason != "topic orders: topic is compacted" || hint != v.hint {
		t.Errorf("reason %q, hint %q", reason, hint)
	}
}

// TestEveryStatusHasAHint keeps the table whole as statuses are added.
func TestEveryStatusHasAHint(t *testing.T) {
	for s := abi.StatusMalformed; s <= abi.StatusHistory; s++ {
		if s.Hint() == "" && s.String() != fmt.Sprintf("unknown status %d", s) {
			t.Errorf("%d (%v) has no hint", uint32(s), s)
		}
	}
}
