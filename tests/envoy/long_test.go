package envoy

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/clients"
)

// A long says what `make envoy` is to do.
type long struct {
	versions []string
	records  int // for each client
	soak     time.Duration
	seed     uint64
}

// longRun reads ENVOY_VERSIONS, ENVOY_RECORDS, ENVOY_DURATION and ENVOY_SEED, as `make envoy`
// sets them, and skips the test where they are not set.
func longRun(t *testing.T) long {
	t.Helper()
	if os.Getenv("ENVOY_VERSIONS") == "" {
		t.Skip("a long run; hint: make envoy")
	}
	l := long{versions: strings.Fields(os.Getenv("ENVOY_VERSIONS"))}
	var err error
	if l.records, err = strconv.Atoi(os.Getenv("ENVOY_RECORDS")); err != nil || l.records < 1000 {
		t.Fatalf("ENVOY_RECORDS=%q; hint: a number from 1000", os.Getenv("ENVOY_RECORDS"))
	}
	if l.soak, err = time.ParseDuration(os.Getenv("ENVOY_DURATION")); err != nil {
		t.Fatalf("ENVOY_DURATION=%q; hint: a duration such as 20m", os.Getenv("ENVOY_DURATION"))
	}
	if l.seed, err = strconv.ParseUint(os.Getenv("ENVOY_SEED"), 10, 64); err != nil {
		t.Fatalf("ENVOY_SEED=%q; hint: a number", os.Getenv("ENVOY_SEED"))
	}
	return l
}

// quick rotates every 5 s; the other periods fit to that and keep what a second group still
// wants.
var quick = map[string]string{"epoch": "5s", "lead": "1s", "prekey_rotation": "20s", "prekey_grace": "20s"}

// pair starts two Envoys.
func (w *world) pair(t *testing.T, s faceSpec) (a, b *envoyFace) {
	t.Helper()
	var wg sync.WaitGroup
	other := s
	other.unix = !s.unix
	wg.Go(func() { a = w.startEnvoy(t, s) })
	wg.Go(func() { b = w.startEnvoy(t, other) })
	wg.Wait()
	if a == nil || b == nil {
		t.FailNow()
	}
	return a, b
}

// smaller are clients whose records are small, where there are many.
func smaller(which []clients.Client) []clients.Client {
	out := make([]clients.Client, len(which))
	for i, c := range which {
		c.Shape.Largest = 4 << 10
		out[i] = c
	}
	return out
}

// Every Envoy, on one broker and on three, with each client: equal data, at both ends and mixed
// with sidecars, and nothing of it at the brokers.
func TestEveryEnvoyWithEveryClient(t *testing.T) {
	l := longRun(t)
	for _, version := range l.versions {
		for _, brokers := range []int{1, 3} {
			where := fmt.Sprintf("Envoy %s, %d broker(s)", version, brokers)
			t.Run(fmt.Sprintf("%s-%d", version, brokers), func(t *testing.T) {
				w := newWorld(t, brokers, nil)
				a, b := w.pair(t, faceSpec{version: version, workers: 2})
				side := w.startSidecar(t)
				scenario(t, "four clients", where, func(t *testing.T, r *row) { w.roundTrip(t, r, a, b, l.records, smaller(four)...) })
				mixed := smaller([]clients.Client{clients.FranzGo, clients.Confluent})
				scenario(t, "Envoy to sidecar", where, func(t *testing.T, r *row) { w.roundTrip(t, r, a, side, l.records, mixed...) })
				scenario(t, "sidecar to Envoy", where, func(t *testing.T, r *row) { w.roundTrip(t, r, side, b, l.records, mixed...) })
				scenario(t, "transactions", where, func(t *testing.T, r *row) {
					w.transactions(t, r, a, b, 3000, clients.Java, clients.Confluent, clients.FranzGo)
				})
				scenario(t, "groups", where, func(t *testing.T, r *row) { w.groups(t, r, a, b, 20*time.Second) })
				scenario(t, "no plaintext", where, func(t *testing.T, r *row) { w.noPlaintext(t, r) })
				scenario(t, "metrics", where, func(t *testing.T, r *row) {
					counted(t, shown[:2], a)
					counted(t, shown[2:4], b)
				})
			})
		}
	}
}

// Keys rotate every 5 s under load, with as many workers as there are leases of one epoch: no
// record is lost or unreadable, and no leaf seals twice.
func TestKeysRotateUnderLoad(t *testing.T) {
	l := longRun(t)
	for _, version := range l.versions {
		for _, workers := range []int{2, 4} {
			where := fmt.Sprintf("Envoy %s, %d workers", version, workers)
			t.Run(fmt.Sprintf("%s-%d", version, workers), func(t *testing.T) {
				w := newWorld(t, 1, quick)
				a, b := w.pair(t, faceSpec{version: version, workers: workers})
				scenario(t, "rotation every 5 s", where, func(t *testing.T, r *row) {
					w.while(t, r, "rotation", a, b, 400, func(ctx context.Context) { pause(ctx, 45*time.Second) })
				})
				scenario(t, "rotation, agents killed", where, func(t *testing.T, r *row) { w.agentsKilled(t, r, a, b) })
			})
		}
	}
}

// What goes wrong ends with an error, or with clients that go on; never with plaintext, a lost
// record, a leaf that seals twice, or a hang.
func TestWhatGoesWrong(t *testing.T) {
	l := longRun(t)
	for _, version := range l.versions {
		where := "Envoy " + version
		t.Run(version, func(t *testing.T) {
			w := newWorld(t, 1, nil)
			a, b := w.pair(t, faceSpec{version: version, workers: 2, hot: true})
			scenario(t, "injected plaintext", where, func(t *testing.T, r *row) { w.injected(t, r, a, b) })
			scenario(t, "agent killed, no key", where, func(t *testing.T, r *row) { w.agentKilled(t, r, a, b) })
			scenario(t, "agents killed", where, func(t *testing.T, r *row) { w.agentsKilled(t, r, a, b) })
			scenario(t, "broker killed", where, func(t *testing.T, r *row) { w.brokerKilled(t, r, a, b) })
			scenario(t, "garbage", where, func(t *testing.T, r *row) { w.garbage(t, r, a, b, 10_000, l.seed) })
			scenario(t, "pipelined requests", where, func(t *testing.T, r *row) { w.pipelined(t, r, a) })
			scenario(t, "slow readers", where, func(t *testing.T, r *row) { w.slowReaders(t, r, a, b, 700<<20) })
			scenario(t, "frames of 10 MB", where, func(t *testing.T, r *row) { w.largeFrames(t, r, a, b) })
			scenario(t, "module traps", where, func(t *testing.T, r *row) { w.trapped(t, r, version, b) })
			scenario(t, "hot restart", where, func(t *testing.T, r *row) { w.restartedHot(t, r, a, b) })
			scenario(t, "drain", where, func(t *testing.T, r *row) { w.drained(t, r, a, b) })
			scenario(t, "Envoy killed", where, func(t *testing.T, r *row) { w.envoysKilled(t, r, a, b) })
			scenario(t, "no plaintext", where, func(t *testing.T, r *row) { w.noPlaintext(t, r) })
		})
	}
}

// For a long time keys rotate, members come and go, garbage arrives and agents restart: every
// record comes, and memory stays where it was.
func TestSoak(t *testing.T) {
	l := longRun(t)
	if l.soak == 0 {
		t.Skip("no soak; hint: make envoy DURATION=20m")
	}
	version := l.versions[0]
	timing := map[string]string{"epoch": "10s", "lead": "2s", "prekey_rotation": "20s", "prekey_grace": "20s", "window": "30s"}
	w := newWorld(t, 1, timing)
	a, b := w.pair(t, faceSpec{version: version, workers: 2})
	scenario(t, "soak", fmt.Sprintf("Envoy %s, %v", version, l.soak), func(t *testing.T, r *row) { w.soak(t, r, a, b, l.soak) })
}
