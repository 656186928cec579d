package lease

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/channel"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/tests/leasechannel"
)

var (
	realm = wire.RealmID{7, 7, 7}
	kid   = abi.Kid{1, 2, 3, 4, 5, 6, 7, 8}
)

// again is an offset at which what opens has opened before.
const again = int64(1) << 40

// fake is an agent: topic "later" has no key yet, "never" none at all, "odd" a broken one.
type fake struct {
	mu     sync.Mutex
	leaves uint32
	opened []string
}

func (f *fake) fail(ctx context.Context, topic string, pending abi.Status) error {
	switch topic {
	case "later":
		if end, ok := ctx.Deadline(); !ok || time.Until(end) > channel.AnswerTime {
			return errors.New("nobody waits that long")
		}
		<-ctx.Done()
		return fmt.Errorf("topic %s: %w", topic, pending)
	case "never":
		return fmt.Errorf("topic %s: %w", topic, abi.StatusNotEntitled)
	case "odd":
		return errors.New("an error of no status")
	}
	return nil
}

func (f *fake) Lease(ctx context.Context, topic string) (abi.Lease, error) {
	if err := f.fail(ctx, topic, abi.StatusUnavailable); err != nil {
		return abi.Lease{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.leaves++
	return abi.Lease{Kid: kid, UseBy: 99, Start: (f.leaves - 1) << 10, Level: 14, Node: [32]byte{0x11}, Topic: topic}, nil
}

func (f *fake) Root(ctx context.Context, topic string, _ int32, kid abi.Kid) (abi.Root, error) {
	if err := f.fail(ctx, topic, abi.StatusPending); err != nil {
		return abi.Root{}, err
	}
	return abi.Root{Kid: kid, Root: [32]byte{0x22}, Topic: topic}, nil
}

func (f *fake) Opened(topic string, kid abi.Kid, leaf uint32, partition int32, offset int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.opened = append(f.opened, fmt.Sprint(topic, kid, leaf, partition, offset))
	if offset == again {
		return abi.StatusReplayed
	}
	return nil
}

func (f *fake) Holds(kids []abi.Kid) []abi.Kid {
	return slices.DeleteFunc(slices.Clone(kids), func(k abi.Kid) bool { return k != kid })
}

func (f *fake) Groups() []wire.Pattern {
	return []wire.Pattern{{Name: "billing"}, {Prefix: true, Name: "audit."}}
}

// A site is a server at work.
type site struct {
	*Server
	*leasechannel.Client
	t    *testing.T
	key  Key
	keys *fake
	addr net.Addr
	stop func()
}

func serve(t *testing.T, addr string) *site {
	t.Helper()
	key, err := NewKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := Listen(addr)
	if err != nil {
		t.Fatal(err)
	}
	keys := &fake{}
	s := &site{Client: leasechannel.NewClient(ln.Addr()), t: t, key: *key, keys: keys, addr: ln.Addr()}
	s.Server = New(Config{Realm: realm, Key: key}, keys)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, ln) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if *key != (Key{}) {
			t.Error("the pairing key stays after the end")
		}
	})
	t.Cleanup(s.stop)
	return s
}

func (s *site) channel() *leasechannel.Channel {
	s.t.Helper()
	ch, err := s.Client.Open(s.key, realm)
	if err != nil {
		s.t.Fatal(err)
	}
	return ch
}

// refused wants an answer of a code and of nothing else.
func refused(t *testing.T, what string, err error, code int) {
	t.Helper()
	var r *leasechannel.Refusal
	if !errors.As(err, &r) || r.Code != code || len(r.Body) != 0 {
		t.Errorf("%s: %v, want %d and no word", what, err, code)
	}
}

func TestEachRequestIsAnsweredInItsPlace(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "unix:" + filepath.Join(t.TempDir(), "agent.sock")} {
		s := serve(t, addr)
		ch := s.channel()
		began := time.Now()
		answers, err := ch.Call(
			channel.Request{Op: channel.OpRoot, Topic: "later", Kid: kid},
			channel.Request{Op: channel.OpLease, Topic: "orders"},
			channel.Request{Op: channel.OpLease, Topic: "later"},
			channel.Request{Op: channel.OpLease, Topic: "orders"},
			channel.Request{Op: channel.OpRoot, Topic: "orders", Partition: 3, Kid: kid},
			channel.Request{Op: channel.OpLease, Topic: "never"},
			channel.Request{Op: channel.OpRoot, Topic: "odd", Kid: kid},
			channel.Request{Op: channel.OpRenew, Kids: []abi.Kid{{9}, kid, {8}}},
			channel.Request{Op: channel.OpOpened, Topic: "orders", Kid: kid, Leaf: 5, Partition: 6, Offset: 7},
			channel.Request{Op: channel.OpOpened, Topic: "orders", Kid: kid, Leaf: 5, Partition: 6, Offset: again},
			channel.Request{Op: channel.OpGroups},
		)
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < channel.AnswerTime {
			t.Errorf("a key that is not there was waited for %v", took)
		}
		var got []abi.Status
		for _, a := range answers {
			got = append(got, a.Status)
		}
		want := []abi.Status{abi.StatusPending, 0, abi.StatusUnavailable, 0, 0, abi.StatusNotEntitled, abi.StatusInternal, 0, 0, abi.StatusReplayed, 0}
		if !slices.Equal(got, want) {
			t.Fatalf("statuses %d, want %d", got, want)
		}
		first, err1 := abi.ParseLease(answers[1].Body)
		second, err2 := abi.ParseLease(answers[3].Body)
		root, err3 := abi.ParseRoot(answers[4].Body)
		kids, err4 := channel.ParseKids(answers[7].Body)
		if err := errors.Join(err1, err2, err3, err4); err != nil {
			t.Fatal(err)
		}
		if first.Topic != "orders" || first.Node != [32]byte{0x11} || first.Start == second.Start {
			t.Errorf("leases %+v and %+v", first, second)
		}
		if root.Kid != kid || root.Topic != "orders" || root.Root != [32]byte{0x22} {
			t.Errorf("root %+v", root)
		}
		if !slices.Equal(kids, []abi.Kid{kid}) {
			t.Errorf("%x may be kept", kids)
		}
		if want := []string{fmt.Sprint("orders", kid, 5, 6, 7), fmt.Sprint("orders", kid, 5, 6, again)}; !slices.Equal(s.keys.opened, want) {
			t.Errorf("noted %q", s.keys.opened)
		}
		groups, err := wire.ParsePatterns(answers[10].Body)
		if err != nil || !slices.Equal(groups, s.keys.Groups()) {
			t.Errorf("groups %v: %v", groups, err)
		}
		stats := s.Stats()
		if stats.Open != 1 || stats.Begun != 1 || stats.HandshakesRefused+stats.CallsRefused != 0 ||
			!reflect.DeepEqual(stats.Served, map[channel.Op]uint64{channel.OpLease: 2, channel.OpRoot: 1, channel.OpRenew: 1, channel.OpOpened: 1, channel.OpGroups: 1}) ||
			!reflect.DeepEqual(stats.Refused[channel.OpLease], map[abi.Status]uint64{abi.StatusUnavailable: 1, abi.StatusNotEntitled: 1}) {
			t.Errorf("counted %+v", stats)
		}
		s.stop()
	}
}

// TestACallMayBeAsLargeAsAMessage sends as much as fits, in both directions.
func TestACallMayBeAsLargeAsAMessage(t *testing.T) {
	s := serve(t, "127.0.0.1:0")
	ch := s.channel()
	requests := make([]channel.Request, 300)
	for i := range requests {
		requests[i] = channel.Request{Op: channel.OpLease, Topic: strings.Repeat("t", abi.MaxTopicLen)}
	}
	requests = requests[:channel.Fits(requests)]
	opened := make([]channel.Request, 3000)
	for i := range opened {
		opened[i] = channel.Request{Op: channel.OpOpened, Topic: "t", Kid: kid, Offset: int64(i)}
	}
	opened = opened[:channel.Fits(opened)]
	for _, requests := range [][]channel.Request{requests, opened} {
		answers, err := ch.Call(requests...)
		if err != nil {
			t.Fatal(err)
		}
		for i, a := range answers {
			if a.Status != abi.StatusOK {
				t.Fatalf("answer %d of %d: %v", i, len(answers), a.Status)
			}
		}
	}
	if len(requests) < 200 || len(opened) < 2000 {
		t.Errorf("%d leases and %d offsets fit", len(requests), len(opened))
	}
}

func TestWhoIsNotPairedLearnsNothing(t *testing.T) {
	s := serve(t, "127.0.0.1:0")
	other := s.key
	other[31] ^= 1
	_, err := s.Client.Open(other, realm)
	refused(t, "another pairing key", err, http.StatusBadRequest)
	_, err = s.Client.Open(s.key, wire.RealmID{7, 7, 8})
	refused(t, "another realm", err, http.StatusBadRequest)
	_, first, err := leasechannel.Hello(s.key, realm)
	if err != nil {
		t.Fatal(err)
	}
	for name, body := range map[string][]byte{"nothing": {}, "a byte less": first[:47], "a byte more": append(slices.Clone(first), 0), "much": make([]byte, 1<<20)} {
		_, err = s.Post(channel.HandshakePath, body)
		refused(t, name, err, http.StatusBadRequest)
	}
	for i := range first {
		bent := slices.Clone(first)
		bent[i] ^= 0x40
		_, err = s.Post(channel.HandshakePath, bent)
		refused(t, fmt.Sprintf("byte %d of message 1 changed", i), err, http.StatusBadRequest)
	}
	_, err = s.Post("/kx1/v2/channel", nil)
	refused(t, "another path", err, http.StatusNotFound)
	_, err = s.Post(channel.CallPath, make([]byte, channel.IDSize+32))
	refused(t, "an unknown channel", err, http.StatusGone)
	_, err = s.Post(channel.CallPath, make([]byte, channel.IDSize-1))
	refused(t, "not even an id", err, http.StatusBadRequest)
	resp, err := http.Get("http://" + s.addr.String() + channel.HandshakePath)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("GET: %d", resp.StatusCode)
	}
	if stats := s.Stats(); stats.Open != 0 || stats.Begun != 0 || stats.HandshakesRefused != 2+4+48 || stats.CallsRefused != 2 {
		t.Errorf("counted %+v", stats)
	}
}

// TestAnErrorEndsTheChannelAndNoOther breaks a channel in each way there is.
func TestAnErrorEndsTheChannelAndNoOther(t *testing.T) {
	s := serve(t, "127.0.0.1:0")
	well := s.channel()
	lease := channel.Request{Op: channel.OpLease, Topic: "orders"}
	good := channel.AppendRequests(nil, []channel.Request{lease})
	for name, body := range map[string]func(*leasechannel.Channel) ([]byte, error){
		"nothing behind the id": func(ch *leasechannel.Channel) ([]byte, error) { return ch.ID[:], nil },
		"a byte changed": func(ch *leasechannel.Channel) ([]byte, error) {
			b, err := ch.Seal(good)
			b[len(b)-1] ^= 1
			return b, err
		},
		"a message of another channel": func(ch *leasechannel.Channel) ([]byte, error) {
			b, err := s.channel().Seal(good)
			copy(b, ch.ID[:])
			return b, err
		},
		"a message left out": func(ch *leasechannel.Channel) ([]byte, error) {
			if _, err := ch.Seal(good); err != nil {
				return nil, err
			}
			return ch.Seal(good)
		},
		"too long":       func(ch *leasechannel.Channel) ([]byte, error) { return ch.Seal(make([]byte, channel.MaxPlaintext+1)) },
		"no requests":    func(ch *leasechannel.Channel) ([]byte, error) { return ch.Seal([]byte{0, 0}) },
		"bytes too many": func(ch *leasechannel.Channel) ([]byte, error) { return ch.Seal(append(good, 0)) },
		"a call twice": func(ch *leasechannel.Channel) ([]byte, error) {
			b, err := ch.Seal(good)
			if err == nil {
				_, err = s.Post(channel.CallPath, b)
			}
			return b, err
		},
	} {
		ch := s.channel()
		b, err := body(ch)
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Post(channel.CallPath, b)
		refused(t, name, err, http.StatusBadRequest)
		_, err = ch.Call(lease)
		refused(t, name+", and then a good call", err, http.StatusGone)
		if _, err := well.Call(lease); err != nil {
			t.Fatalf("%s: another channel: %v", name, err)
		}
	}
}

func TestASecondCallAtOnceEndsTheChannel(t *testing.T) {
	s := serve(t, "127.0.0.1:0")
	ch := s.channel()
	later := channel.AppendRequests(nil, []channel.Request{{Op: channel.OpLease, Topic: "later"}})
	var bodies [2][]byte
	for i := range bodies {
		var err error
		if bodies[i], err = ch.Seal(later); err != nil {
			t.Fatal(err)
		}
	}
	session := s.channels.get(ch.ID, time.Now())
	first := make(chan error, 1)
	go func() {
		_, err := s.Post(channel.CallPath, bodies[0])
		first <- err
	}()
	underWay := func() bool {
		s.channels.mu.Lock()
		defer s.channels.mu.Unlock()
		return session.used
	}
	for deadline := time.Now().Add(20 * time.Second); !underWay(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatal("the first call does not come")
		}
	}
	_, err := s.Post(channel.CallPath, bodies[1])
	refused(t, "the second call", err, http.StatusBadRequest)
	if err := <-first; err != nil {
		t.Errorf("the first call: %v", err)
	}
	_, err = ch.Call(channel.Request{Op: channel.OpLease, Topic: "orders"})
	refused(t, "the next call", err, http.StatusGone)
}

func TestALogSaysOnceThatSomebodyIsNotPaired(t *testing.T) {
	var log bytes.Buffer
	key, err := NewKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s := New(Config{Realm: realm, Key: key, Log: logger(&log)}, &fake{})
	for range 5 {
		request, _ := http.NewRequest(http.MethodPost, channel.HandshakePath, bytes.NewReader(make([]byte, channel.HelloSize)))
		s.warn(request)
	}
	if n := strings.Count(log.String(), "\n"); n != 1 || !strings.Contains(log.String(), "hint=") {
		t.Errorf("%d lines: %s", n, &log)
	}
	if strings.Contains(log.String(), fmt.Sprintf("%x", key[:4])) {
		t.Error("the key is in the log")
	}
}
