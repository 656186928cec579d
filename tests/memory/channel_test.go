//go:build linux

package memory

import (
	"crypto/rand"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/channel"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
	"github.com/wasm-e2ee/wasm-e2ee/host/lease"
	"github.com/wasm-e2ee/wasm-e2ee/tests/leasechannel"
)

// Kinds of secrets of a lease channel.
const (
	pairingKey = "pairing key"
	channelKey = "key of a channel"
	leasedNode = "leased tree node"
)

// inProcessOf counts what is found in a process that has no module.
func inProcessOf(n *node, s *search) map[string]int {
	n.t.Helper()
	hits, sizes, err := s.inMemory(n.cmd.Process.Pid)
	if errors.Is(err, os.ErrPermission) && os.Getenv("CI") != "true" {
		n.t.Skipf("the memory of a child cannot be read here: %v; allow ptrace (kernel.yama.ptrace_scope=1, or the capability SYS_PTRACE in a container)", err)
	}
	must(n.t, err)
	if sizes[inProcess] == 0 {
		n.t.Error("nothing was looked at")
	}
	return counted(hits)
}

// goneFrom scans until nothing is found.
func goneFrom(n *node, s *search, when string) {
	n.t.Helper()
	for end := time.Now().Add(graceOfScan); ; time.Sleep(50 * time.Millisecond) {
		found := inProcessOf(n, s)
		if len(found) == 0 {
			return
		}
		if time.Now().After(end) {
			n.t.Errorf("%s: %s: still in memory: %s", n.name, when, list(found))
			return
		}
	}
}

// asked repeats a request until the key is there.
func asked(t *testing.T, ch *leasechannel.Channel, r channel.Request) []byte {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; {
		answers, err := ch.Call(r)
		must(t, err)
		if answers[0].Status == abi.StatusOK {
			return answers[0].Body
		}
		if time.Now().After(end) {
			t.Fatalf("%v: %v", r.Op, answers[0].Status)
		}
	}
}

// TestWhatAnAgentGaveAwayItForgets searches agents for the lease and the root that they gave
// to data planes, for the keys of channels that are over, and at the end for the pairing key.
func TestWhatAnAgentGaveAwayItForgets(t *testing.T) {
	t.Parallel()
	needsScrub(t)
	self, err := os.Executable()
	must(t, err)
	key, err := lease.NewKey(rand.Reader)
	must(t, err)
	pairing := filepath.Join(t.TempDir(), "pairing.key")
	must(t, os.WriteFile(pairing, lease.MarshalKey(key), 0o600))

	w := newWorld(t, nil)
	consumerState, _ := w.enrol("consumer", keyring.Attributes{Roles: wire.RoleConsume, Groups: []wire.Pattern{{Name: group}}})
	producerState, _ := w.enrol("producer", keyring.Attributes{Roles: wire.RoleProduce})
	consumer := w.start(self, "consumer", consumerState, envPairing+"="+pairing)
	producer := w.start(self, "producer", producerState, envPairing+"="+pairing)
	open := func(n *node) (*leasechannel.Client, *leasechannel.Channel) {
		addr, err := net.ResolveTCPAddr("tcp", n.addr)
		must(t, err)
		c := leasechannel.NewClient(addr)
		ch, err := c.Open(*key, w.issuer.Certificate().Realm)
		must(t, err)
		return c, ch
	}
	consuming, fromConsumer := open(consumer)
	producing, fromProducer := open(producer)
	l, err := abi.ParseLease(asked(t, fromProducer, channel.Request{Op: channel.OpLease, Topic: topic}))
	must(t, err)
	r, err := abi.ParseRoot(asked(t, fromConsumer, channel.Request{Op: channel.OpRoot, Topic: topic, Kid: l.Kid}))
	must(t, err)

	given := newSearch([]*secret{newSecret(leasedNode, topic, l.Node[:]), newSecret(rootNode, topic, r.Root[:])})
	for _, end := range []struct {
		n  *node
		c  *leasechannel.Client
		ch *leasechannel.Channel
	}{{consumer, consuming, fromConsumer}, {producer, producing, fromProducer}} {
		goneFrom(end.n, given, "once given away")
		keys := end.ch.Keys()
		ofChannel := newSearch([]*secret{newSecret(channelKey, "sent", keys[0][:]), newSecret(channelKey, "received", keys[1][:])})
		ofPairing := newSearch([]*secret{newSecret(pairingKey, "", key[:])})
		wants(t, end.n, inProcessOf(end.n, ofChannel), channelKey+" | "+inProcess)
		wants(t, end.n, inProcessOf(end.n, ofPairing), pairingKey+" | "+inProcess)
		if _, err := end.c.Post(channel.CallPath, end.ch.ID[:]); err == nil {
			t.Error("a call of nothing was answered")
		}
		goneFrom(end.n, ofChannel, "after the channel")
		end.n.tell("close")
		goneFrom(end.n, ofPairing, "after the end")
	}
}
