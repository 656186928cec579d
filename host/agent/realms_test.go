package agent

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

// TestRealmsShareAClusterWithoutAWord has two realms on one pair of control topics: each
// works, and neither warns of the other.
func TestRealmsShareAClusterWithoutAWord(t *testing.T) {
	w := newWorld(t)
	other := *w
	other.issuer = newIssuer(t)
	var log logBook
	quietly := func(c *Config) {
		c.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))
	}
	for _, w := range []*world{w, &other, w} {
		consumer := w.start(w.enrol(wire.RoleConsume, orders, billing), slow, quietly).ready()
		producer := w.start(w.enrol(wire.RoleProduce, orders, nil), slow, quietly).ready()
		consumer.opens(producer.lease("orders"))
	}
	if s := log.String(); strings.Contains(s, "control record refused") {
		t.Errorf("warned:\n%s", s)
	}
}
