package agent

import (
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

func TestTheEndOfACredentialIsAnnounced(t *testing.T) {
	w := newWorld(t)
	var ahead atomic.Int64
	w.clock = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	var log logBook
	w.start(w.enrol(wire.RoleProduce, orders, nil), slow, func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) }).ready()
	const soon, over = "the credential ends soon", "the credential has ended"
	if s := log.String(); strings.Contains(s, soon) {
		t.Errorf("said with 12 of 12 hours left:\n%s", s)
	}
	for _, step := range []struct {
		at   time.Duration
		text string
	}{{10 * time.Hour, soon}, {13 * time.Hour, over}} {
		ahead.Store(int64(step.at))
		eventually(t, step.text, func() bool { return strings.Contains(log.String(), step.text) })
	}
	for _, text := range []string{soon, over} {
		if s := log.String(); strings.Count(s, text) != 1 || !strings.Contains(s, "hint=") {
			t.Errorf("%q not said once, with a hint:\n%s", text, s)
		}
	}
}
