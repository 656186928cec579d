package broker

import (
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/deps"
)

func TestBrokerStartsAndStops(t *testing.T) {
	deps.Need(t, deps.Kafka)
	begin := time.Now()
	c, err := Start(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("up after %v", time.Since(begin))
	begin = time.Now()
	c.Stop()
	t.Logf("down after %v; it printed:\n%s", time.Since(begin), c.Nodes[0].Process.Output())
}
