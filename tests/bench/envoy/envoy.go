// Package envoy measures one stream through a real Envoy with one worker: Produce requests with
// batches of 1 MiB of 1 KiB records to a broker that throws them away. Each way is a listener of
// the same process, and only one of them is busy at a time.
package envoy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/wasm-e2ee/wasm-e2ee/abi/plugin"
	"github.com/wasm-e2ee/wasm-e2ee/host/process"
	"github.com/wasm-e2ee/wasm-e2ee/tests/bench/report"
	"github.com/wasm-e2ee/wasm-e2ee/tests/bench/run"
	"github.com/wasm-e2ee/wasm-e2ee/tests/bench/stand"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/broker"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/deps"
)

// Version is the Envoy that is measured.
const Version = "1.40.0"

// What is asked of one stream sealed.
const (
	leastToPlainGo = 4   // times x/crypto in the module
	leastToCopying = 0.5 // of copying in and out
)

const topic = stand.SealedTopics + "envoy"

// startTimeout is for V8, which compiles every module before Envoy is ready.
const startTimeout = 3 * time.Minute

// Rows runs an Envoy and measures every way in turn.
func Rows(ctx context.Context, o run.Options) ([]report.Row, error) {
	binary := filepath.Join(deps.Dir(deps.Envoy(Version)), "envoy")
	if !deps.Have(deps.Envoy(Version)) {
		return nil, errors.New("Envoy has not been fetched\nhint: make deps-envoy-" + Version)
	}
	module, err := filepath.Abs(o.Module)
	if err != nil {
		return nil, err
	}
	copying, plainGo, err := buildModules(o.Dir)
	if err != nil {
		return nil, err
	}
	// The agent's topics are on a broker in this process; what is sealed goes to the sink.
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, topic))
	if err != nil {
		return nil, err
	}
	defer cluster.Close()
	agent, err := stand.StartAgent(ctx, o, filepath.Join(o.Dir, "agent"), cluster.ListenAddrs()[0])
	if err != nil {
		return nil, err
	}
	defer agent.Stop(10 * time.Second)
	sink, err := listenSink(topic)
	if err != nil {
		return nil, err
	}
	defer sink.close()

	ways := []way{{name: "sealing", module: module, sealed: true}, {name: "sealing with x/crypto", module: plainGo, sealed: true},
		{name: "copying only", module: copying}, {name: "no module"}}
	ports, err := broker.FreePorts(len(ways) + 1)
	if err != nil {
		return nil, err
	}
	for i := range ways {
		ways[i].port = ports[i]
	}
	admin := fmt.Sprintf("127.0.0.1:%d", ports[len(ways)])
	text, err := configuration(ways, sink.Addr().String(), admin, agent.Socket, agent.Realm)
	if err != nil {
		return nil, err
	}
	config := filepath.Join(o.Dir, "envoy.json")
	if err := os.WriteFile(config, text, 0o644); err != nil {
		return nil, err
	}
	o.Log("starting Envoy")
	proxy, err := process.Start(process.Spec{Name: "envoy", Env: []string{plugin.KeyVariable + "=" + agent.PairingKey},
		Args: []string{binary, "-c", config, "--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"}})
	if err != nil {
		return nil, err
	}
	defer proxy.Kill()
	if err := ready(ctx, proxy, admin); err != nil {
		return nil, err
	}
	sides, err := measure(o, ways, sink)
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, proxy.Output())
	}
	toPlainGo := report.Compare("one stream sealed, to x/crypto in the module", "MB/s", report.AtLeast(leastToPlainGo), sides[0], sides[1])
	toPlainGo.Note = fmt.Sprintf("Envoy %s, one worker, one connection, %d Produce requests of 1 MiB of 1 KiB records in flight; the client and the broker are in the benchmark's process", Version, inFlight)
	return []report.Row{
		toPlainGo,
		report.Compare("one stream sealed, to copying only", "MB/s", report.AtLeast(leastToCopying), sides[0], sides[2]),
		report.Compare("one stream sealed, to no module", "MB/s", nil, sides[0], sides[3]),
		report.Compare("one stream copied, to no module", "MB/s", nil, sides[2], sides[3]),
	}, nil
}

// measure sends one way after the other, round by round; the first round warms up. It fails where
// the broker could read what a way seals, or not read what it does not.
func measure(o run.Options, ways []way, sink *sink) ([]report.Side, error) {
	length := run.Pick(o, 2*time.Second, 300*time.Millisecond)
	sides := make([]report.Side, len(ways))
	streams := make([]*stream, len(ways))
	for i, w := range ways {
		var err error
		if streams[i], err = connect(w.port, topic); err != nil {
			return nil, err
		}
		defer streams[i].Close()
	}
	for round := -1; round < o.Rounds; round++ {
		for i := range ways {
			if round%2 != 0 {
				i = len(ways) - 1 - i
			}
			begin, plain, sealed := time.Now(), sink.plain.Load(), sink.sealed.Load()
			requests, err := streams[i].run(length)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", ways[i].name, err)
			}
			speed := float64(requests) * float64(streams[i].size) / 1e6 / time.Since(begin).Seconds()
			plain, sealed = sink.plain.Load()-plain, sink.sealed.Load()-sealed
			if ways[i].sealed && plain > 0 || !ways[i].sealed && sealed > 0 {
				return nil, fmt.Errorf("%s: the broker could read %d requests and could not read %d", ways[i].name, plain, sealed)
			}
			sides[i].Name = ways[i].name
			if round >= 0 {
				sides[i].Values = append(sides[i].Values, speed)
			}
		}
		o.Log("round %d of %d", round+1, o.Rounds)
	}
	return sides, nil
}

// ready waits until Envoy serves.
func ready(ctx context.Context, proxy *process.Process, admin string) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		if resp, err := http.Get("http://" + admin + "/ready"); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-proxy.Done():
			return fmt.Errorf("envoy ended:\n%s", proxy.Output())
		case <-ctx.Done():
			return fmt.Errorf("envoy is not ready: %w\n%s", ctx.Err(), proxy.Output())
		case <-time.After(50 * time.Millisecond):
		}
	}
}
