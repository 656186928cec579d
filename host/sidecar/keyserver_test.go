package sidecar

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/channel"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/config"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
	"github.com/wasm-e2ee/wasm-e2ee/host/lease"
	"github.com/wasm-e2ee/wasm-e2ee/tests/leasechannel"
)

// A plane is a data plane over an agent's channel.
type plane struct {
	*KeyServer
	*leasechannel.Channel
	t    *testing.T
	stop func()
}

// agentFile is the configuration of a newly enrolled node's agent, and its pairing key.
func (f *fixture) agentFile(want keyring.Attributes) (*config.File, lease.Key) {
	f.t.Helper()
	file := f.file(want)
	key, err := lease.NewKey(rand.Reader)
	if err != nil {
		f.t.Fatal(err)
	}
	dir := filepath.Dir(file.State)
	file.Agent = config.Agent{Listen: "unix:" + filepath.Join(dir, "agent.sock"), PairingKeyFile: filepath.Join(dir, "pairing.key")}
	if err := os.WriteFile(file.Agent.PairingKeyFile, lease.MarshalKey(key), 0o600); err != nil {
		f.t.Fatal(err)
	}
	return file, *key
}

func (f *fixture) plane(want keyring.Attributes) *plane {
	f.t.Helper()
	file, key := f.agentFile(want)
	ctx, cancel := context.WithCancel(f.t.Context())
	s, err := StartKeyServer(ctx, file, slog.New(slog.DiscardHandler))
	if err != nil {
		cancel()
		f.t.Fatal(err)
	}
	stop := func() {
		cancel()
		if err := s.Wait(); err != nil {
			f.t.Error(err)
		}
	}
	f.t.Cleanup(stop)
	ch, err := leasechannel.NewClient(s.Addr()).Open(key, s.Agent.View().Realm)
	if err != nil {
		f.t.Fatal(err)
	}
	return &plane{s, ch, f.t, stop}
}

// soon asks until the answer is another than that the key is not there yet.
func (p *plane) soon(r channel.Request) channel.Answer {
	p.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; {
		answers, err := p.Call(r)
		if err != nil {
			p.t.Fatal(err)
		}
		if s := answers[0].Status; s != abi.StatusPending && s != abi.StatusUnavailable {
			return answers[0]
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("%v of %s: %v", r.Op, r.Topic, answers[0].Status)
		}
	}
}

// TestAKeyGoesFromPlaneToPlane leases at one agent what another one's data plane opens.
func TestAKeyGoesFromPlaneToPlane(t *testing.T) {
	f := newFixture(t)
	consumer := f.plane(keyring.Attributes{Roles: wire.RoleConsume, Groups: []wire.Pattern{{Name: "billing"}}})
	producer := f.plane(keyring.Attributes{Roles: wire.RoleProduce})
	first, err1 := abi.ParseLease(producer.soon(channel.Request{Op: channel.OpLease, Topic: "orders"}).Body)
	second, err2 := abi.ParseLease(producer.soon(channel.Request{Op: channel.OpLease, Topic: "orders"}).Body)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	if first.Kid != second.Kid || first.Start == second.Start {
		t.Errorf("two leases at %d and %d, of kids %x and %x", first.Start, second.Start, first.Kid, second.Kid)
	}
	root, err := abi.ParseRoot(consumer.soon(channel.Request{Op: channel.OpRoot, Topic: "orders", Kid: first.Kid}).Body)
	if err != nil || root.Kid != first.Kid || root.Topic != "orders" || root.Root == [32]byte{} {
		t.Errorf("root of %x for %s: %v", root.Kid, root.Topic, err)
	}
	for name, p := range map[string]*plane{"producer": producer, "consumer": consumer} {
		kids, err := channel.ParseKids(p.soon(channel.Request{Op: channel.OpRenew, Kids: []abi.Kid{{1}, first.Kid}}).Body)
		if err != nil || !slices.Equal(kids, []abi.Kid{first.Kid}) {
			t.Errorf("the %s may keep %x: %v", name, kids, err)
		}
	}
	groups, err := wire.ParsePatterns(consumer.soon(channel.Request{Op: channel.OpGroups}).Body)
	if err != nil || !slices.Equal(groups, []wire.Pattern{{Name: "billing"}}) {
		t.Errorf("groups %v: %v", groups, err)
	}
	opened := channel.Request{Op: channel.OpOpened, Topic: "orders", Kid: first.Kid, Leaf: first.Start, Partition: 0, Offset: 5}
	for _, c := range []struct {
		offset int64
		want   abi.Status
	}{{5, abi.StatusOK}, {5, abi.StatusOK}, {9, abi.StatusReplayed}} {
		opened.Offset = c.offset
		if got := consumer.soon(opened).Status; got != c.want {
			t.Errorf("opened at %d: %v, want %v", c.offset, got, c.want)
		}
	}
	if got := producer.soon(channel.Request{Op: channel.OpLease, Topic: "payments"}).Status; got != abi.StatusNotEntitled {
		t.Errorf("a topic that the credential does not cover: %v", got)
	}
}

// TestAnAgentsMetricsAreItsOwn wants those of the channel, and none of a data plane.
func TestAnAgentsMetricsAreItsOwn(t *testing.T) {
	f := newFixture(t)
	f.start(f.file(keyring.Attributes{Roles: wire.RoleConsume, Groups: []wire.Pattern{{Name: "billing"}}}))
	p := f.plane(keyring.Attributes{Roles: wire.RoleProduce})
	p.soon(channel.Request{Op: channel.OpLease, Topic: "orders"})
	p.soon(channel.Request{Op: channel.OpLease, Topic: "payments"})
	text := get(t, p, "/metrics")
	for _, line := range []string{"wasm_e2ee_channels 1", "wasm_e2ee_channels_begun_total 1", `wasm_e2ee_channel_requests_total{op="lease"} 1`,
		`wasm_e2ee_channel_refusals_total{op="lease",status="not_entitled"} 1`, "wasm_e2ee_epochs 1", "wasm_e2ee_ready 1"} {
		if !strings.Contains(text, "\n"+line+"\n") {
			t.Errorf("no line %s", line)
		}
	}
	if strings.Contains(text, "sealed_batches") || strings.Contains(text, "orders") {
		t.Errorf("of a data plane, or of a topic:\n%s", text)
	}
	if got := get(t, p, "/readyz"); got != "ready\n" {
		t.Errorf("/readyz: %s", got)
	}
	if got := get(t, p, "/exposure"); !strings.Contains(got, `"orders"`) {
		t.Errorf("/exposure: %s", got)
	}
}

func TestNothingOfAKeyServerIsLeft(t *testing.T) {
	f := newFixture(t)
	before := runtime.NumGoroutine()
	p := f.plane(keyring.Attributes{Roles: wire.RoleProduce})
	taken, _ := f.agentFile(keyring.Attributes{Roles: wire.RoleProduce})
	taken.Agent.Listen = "unix:" + p.Addr().String()
	if _, err := StartKeyServer(t.Context(), taken, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "\nhint: ") {
		t.Errorf("on a socket that is taken: %v", err)
	}
	p.stop()
	for deadline := time.Now().Add(20 * time.Second); runtime.NumGoroutine() > before; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines before, %d after\n%s", before, runtime.NumGoroutine(), stacks[:runtime.Stack(stacks, true)])
		}
	}
	if _, err := p.Call(channel.Request{Op: channel.OpLease, Topic: "orders"}); err == nil {
		t.Error("an agent that ended still answers")
	}
	if _, err := http.Get("http://" + p.MetricsAddr().String() + "/healthz"); err == nil {
		t.Error("an agent that ended still answers probes")
	}
}
