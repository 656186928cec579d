package envoy

import (
	"bytes"
	"crypto/rand"
	"testing"

	"github.com/flynn/noise"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/channel"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

var (
	testRealm   = wire.RealmID{4, 2}
	testPairing = [channel.KeySize]byte{3, 1, 4}
)

// An agent is the other end of the channel, made of the library's responder.
type agent struct {
	realm   wire.RealmID
	pairing [channel.KeySize]byte
	say     func(q channel.Request) channel.Answer

	channels   map[channel.ID]*[2]*noise.CipherState // from and to the module
	handshakes int
	seen       [][]byte // bodies, as they crossed
}

func (a *agent) post(c Call) (status int, body []byte) {
	a.seen = append(a.seen, bytes.Clone(c.Body))
	if c.Path == channel.HandshakePath {
		hs, err := noise.NewHandshakeState(noise.Config{
			CipherSuite: noise.NewCipherSuite(noise.DH25519, noise.CipherChaChaPoly, noise.HashSHA256), Random: rand.Reader,
			Pattern: noise.HandshakeNN, Prologue: append([]byte("KX1 lease v1\x00"), a.realm[:]...), PresharedKey: a.pairing[:],
		})
		if err != nil {
			panic(err)
		}
		if _, _, _, err := hs.ReadMessage(nil, c.Body); err != nil {
			return 400, nil
		}
		var id channel.ID
		rand.Read(id[:])
		message, from, to, err := hs.WriteMessage(nil, nil)
		if err != nil {
			panic(err)
		}
		if a.channels == nil {
			a.channels = map[channel.ID]*[2]*noise.CipherState{}
		}
		a.channels[id] = &[2]*noise.CipherState{from, to}
		a.handshakes++
		return 200, append(id[:], message...)
	}
	if c.Path != channel.CallPath || len(c.Body) < channel.IDSize || len(c.Body) > channel.MaxCall {
		return 400, nil
	}
	states := a.channels[channel.ID(c.Body)]
	if states == nil {
		return 410, nil
	}
	plain, err := states[0].Decrypt(nil, nil, c.Body[channel.IDSize:])
	if err != nil {
		delete(a.channels, channel.ID(c.Body))
		return 410, nil
	}
	requests, err := channel.ParseRequests(plain)
	if err != nil {
		return 400, nil
	}
	answer := channel.AppendCount(nil, len(requests))
	for _, q := range requests {
		answer = channel.AppendAnswer(answer, a.say(q))
	}
	out, err := states[1].Encrypt(nil, nil, answer)
	if err != nil {
		panic(err)
	}
	a.seen = append(a.seen, bytes.Clone(out))
	return 200, out
}

// paired is a world with a channel to an agent that gives everything.
func paired(t *testing.T) (*world, *Channel, *agent) {
	w := newWorld(t, Config{})
	c, err := NewChannel(testRealm, &testPairing, rand.Reader, w.keys)
	if err != nil {
		t.Fatal(err)
	}
	return w, c, &agent{realm: testRealm, pairing: testPairing, say: generous(true)}
}

// settle makes the calls that the channel asks for, until it asks for none.
func (w *world) settle(c *Channel, post func(Call) (int, []byte)) (calls int) {
	w.Helper()
	for ; calls < 100; calls++ {
		call, ok := c.Next(w.now)
		if !ok {
			return calls
		}
		if _, twice := c.Next(w.now); twice {
			w.Fatal("two calls at once")
		}
		status, body := post(call)
		c.Answered(status, body, w.now)
	}
	w.Fatal("it does not settle")
	return calls
}

func TestKeysComeOverTheChannelAndNotInTheClear(t *testing.T) {
	w, c, a := paired(t)
	if n := w.settle(c, a.post); n != 0 {
		t.Fatalf("%d calls where nothing is asked", n)
	}
	w.request(produceRequest(7, 1, "orders"))
	w.keys.NeedRoot("orders", 0, testKid, w.now)
	if n := w.settle(c, a.post); n != 2 {
		t.Errorf("%d calls, want a handshake and one call", n)
	}
	if err := w.stream.Resume(w.now); err != nil {
		t.Fatal(err)
	}
	if r := w.produced(); len(r.Topics) != 1 || w.roots() != 1 {
		t.Errorf("%d topics, %d roots", len(r.Topics), w.roots())
	}
	for _, crossed := range a.seen {
		if node := leaseOf("orders").Node; bytes.Contains(crossed, node[:]) || bytes.Contains(crossed, []byte("orders")) {
			t.Error("something crossed in the clear")
		}
	}
	if s := c.Stats(); s != (ChannelStats{Handshakes: 1, Calls: 1}) {
		t.Errorf("%+v", s)
	}
}

func TestAnotherPairingKeyOrRealmGetsNothing(t *testing.T) {
	for name, change := range map[string]func(a *agent){
		"pairing key": func(a *agent) { a.pairing[0]++ },
		"realm":       func(a *agent) { a.realm[0]++ },
	} {
		w, c, a := paired(t)
		change(a)
		w.keys.NeedLease("orders", w.now)
		w.settle(c, a.post)
		if s := c.Stats(); s.Failures != 1 || s.Handshakes != 0 || w.filter.Counters()[abi.CounterLeases] != 0 {
			t.Errorf("%s: %+v", name, s)
		}
	}
	if _, err := NewChannel(testRealm, &[channel.KeySize]byte{}, rand.Reader, nil); err == nil {
		t.Error("an empty pairing key is taken")
	}
}

func TestAnAnswerThatWasAlteredIsNotTakenAndAFreshChannelFollows(t *testing.T) {
	spoils := map[string]func(status int, body []byte) (int, []byte){
		"a flipped bit":    func(s int, b []byte) (int, []byte) { b[len(b)/2] ^= 1; return s, b },
		"cut":              func(s int, b []byte) (int, []byte) { return s, b[:len(b)-1] },
		"longer":           func(s int, b []byte) (int, []byte) { return s, append(b, 0) },
		"nothing":          func(s int, b []byte) (int, []byte) { return s, nil },
		"too much":         func(s int, b []byte) (int, []byte) { return s, make([]byte, channel.MaxMessage+1) },
		"no agent":         func(int, []byte) (int, []byte) { return 0, nil },
		"an HTTP error":    func(s int, b []byte) (int, []byte) { return 503, b },
		"dropped channels": func(int, []byte) (int, []byte) { return 410, nil },
	}
	for name, spoil := range spoils {
		for spoiled := range 2 { // the handshake, or the call
			w, c, a := paired(t)
			w.keys.NeedLease("orders", w.now)
			n := 0
			bad := func(call Call) (int, []byte) {
				status, body := a.post(call)
				if n++; n-1 == spoiled {
					return spoil(status, body)
				}
				return status, body
			}
			w.settle(c, bad)
			if w.filter.Counters()[abi.CounterLeases] != 0 || c.Stats().Failures == 0 {
				// A flipped bit of the channel's id shows with the first call.
				t.Errorf("%s at %d: %+v", name, spoiled, c.Stats())
			}
			w.now += firstRetry
			w.keys.NeedLease("orders", w.now)
			w.settle(c, a.post)
			if w.filter.Counters()[abi.CounterLeases] != 1 || a.handshakes > 2 {
				t.Errorf("%s at %d: no lease after %d handshakes", name, spoiled, a.handshakes)
			}
		}
	}
}

func TestAnAnswerThatIsReplayedIsNotTaken(t *testing.T) {
	w, c, a := paired(t)
	var first []byte
	record := func(call Call) (int, []byte) {
		status, body := a.post(call)
		first = bytes.Clone(body)
		return status, body
	}
	w.keys.NeedLease("orders", w.now)
	w.settle(c, record)
	w.keys.NeedRoot("orders", 0, testKid, w.now)
	w.settle(c, func(call Call) (int, []byte) { return 200, first })
	if s := c.Stats(); s.Failures != 1 || w.roots() != 0 {
		t.Errorf("%+v, %d roots", s, w.roots())
	}
}

func TestAnAgentThatIsGoneIsNotAskedEverFaster(t *testing.T) {
	w, c, a := paired(t)
	calls := 0
	for range 600 {
		w.now += 100
		w.keys.NeedLease("orders", w.now)
		calls += w.settle(c, func(Call) (int, []byte) { return 0, nil })
	}
	if calls < 10 || calls > 40 {
		t.Errorf("%d calls in a minute", calls)
	}
	// Once it was there, it is given the benefit of the doubt again.
	w.now += lastRetry
	if w.settle(c, a.post); w.filter.Counters()[abi.CounterLeases] != 1 {
		t.Fatal("no lease")
	}
	w.keys.NeedRoot("orders", 0, testKid, w.now)
	w.settle(c, func(Call) (int, []byte) { return 0, nil })
	w.now += firstRetry
	if w.settle(c, a.post); w.roots() != 1 {
		t.Error("no root after the first retry")
	}
}

func TestAnAgentThatStartsAnewIsFoundAgain(t *testing.T) {
	w, c, a := paired(t)
	w.keys.NeedLease("orders", w.now)
	w.settle(c, a.post)
	a.channels = nil
	w.keys.NeedRoot("orders", 0, testKid, w.now)
	w.settle(c, a.post)
	w.now += firstRetry
	w.settle(c, a.post)
	if s := c.Stats(); s.Handshakes != 2 || s.Failures != 1 || w.roots() != 1 {
		t.Errorf("%+v, %d roots", s, w.roots())
	}
}

func TestAnIdleChannelIsNotUsedAfterTheAgentDroppedIt(t *testing.T) {
	w, c, a := paired(t)
	w.keys.NeedLease("orders", w.now)
	w.settle(c, a.post)
	w.filter.Erase(nil)
	clear(w.keys.held) // nothing to renew
	a.channels = nil
	w.now += uint64(channel.IdleLimit.Milliseconds())
	w.keys.NeedRoot("orders", 0, testKid, w.now)
	w.settle(c, a.post)
	if s := c.Stats(); s.Failures != 0 || s.Handshakes != 2 || w.roots() != 1 {
		t.Errorf("%+v, %d roots", s, w.roots())
	}
}

// More is asked for than one call carries.
func TestManyRequestsTakeSeveralCalls(t *testing.T) {
	w, c, a := paired(t)
	for i := range 3000 {
		w.keys.NeedRoot("orders", 0, abi.Kid{1, byte(i), byte(i >> 8)}, w.now)
	}
	if n := w.settle(c, a.post); n < 3 || w.roots() != 3000 {
		t.Errorf("%d roots in %d calls", w.roots(), n)
	}
	for _, crossed := range a.seen {
		if len(crossed) > channel.MaxCall {
			t.Errorf("%d bytes in one call", len(crossed))
		}
	}
}

// No lease, no plaintext: not while the agent is away, and not after.
func TestAnAgentThatIsGoneNeverLeadsToPlaintext(t *testing.T) {
	w, c, _ := paired(t)
	id := w.request(produceRequest(9, 1, "orders"))
	for range 100 {
		w.now += 100
		w.settle(c, func(Call) (int, []byte) { return 0, nil })
		if err := w.stream.Resume(w.now); err != nil {
			t.Fatal(err)
		}
	}
	if sent := w.forwarded(); len(sent) != 1 || contains(sent, "secret") {
		t.Errorf("forwarded %q", sent)
	}
	if x := w.stream.pending[0]; x.correlationID != id || x.local == nil {
		t.Errorf("pending %+v", x)
	}
}
