package broker

import (
	"bytes"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/agent"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// state is the newest AuthorityState of the issuer, nil before the first.
func (w *world) state() *wire.AuthorityState {
	w.authority.Lock()
	defer w.authority.Unlock()
	for _, r := range w.seen.of(wire.TypeAuthorityState) {
		if a, err := wire.ParseAuthorityState(r.value); err == nil && (w.authority.latest == nil || a.Seq > w.authority.latest.Seq) {
			w.authority.latest = a
		}
	}
	return w.authority.latest
}

// follow signs the state that follows prev.
func (w *world) follow(prev *wire.AuthorityState, fresh time.Duration, revoke ...wire.Revocation) *wire.AuthorityState {
	a, err := w.issuer.NextState(prev, revoke, time.Now(), fresh)
	must(w.t, err)
	return a
}

// nextState puts the issuer's next state on the roster.
func (w *world) nextState(fresh time.Duration, revoke ...wire.Revocation) *wire.AuthorityState {
	a := w.follow(w.state(), fresh, revoke...)
	w.authority.Lock()
	w.authority.latest = a
	w.authority.Unlock()
	if !w.writeState(a) {
		w.t.Error("the roster was not written")
	}
	return a
}

func (w *world) writeState(a *wire.AuthorityState) bool { return w.roster(a.Key(), a.Append(nil)) }

// restate appends the state that would follow, changed.
func restate(f func(w *world, a *wire.AuthorityState)) func(w *world, _ place) bool {
	return func(w *world, _ place) bool {
		if w.state() == nil {
			return false
		}
		a := w.follow(w.state(), time.Hour)
		f(w, a)
		return w.writeState(a)
	}
}

// expose makes the next state the one that is edited, and puts it on the roster.
func (w *world) expose(a *wire.AuthorityState, instead []byte) {
	w.edit.mu.Lock()
	w.edit.staged, w.edit.instead = a, instead
	w.edit.mu.Unlock()
	w.authority.Lock()
	w.authority.latest = a
	w.authority.Unlock()
	if !w.writeState(a) {
		w.t.Error("the roster was not written")
	}
}

// heal is the issuer's next state, which everybody is shown.
func (w *world) heal() { w.nextState(time.Hour) }

func authorityActions() []*action {
	instead := onControl(keyring.RosterTopic, func(e *editor, _ place, r *kafka.Record) bool {
		a, err := wire.ParseAuthorityState(r.Value)
		if err != nil || e.staged == nil || a.Seq != e.staged.Seq {
			return false
		}
		r.Value = e.instead
		return true
	})
	return []*action{
		{name: "replay an older AuthorityState", alarm: agent.AlarmRollback, store: func(w *world, _ place) bool {
			old := w.state()
			if old == nil {
				return false
			}
			w.nextState(time.Hour)
			return w.writeState(old)
		}},
		{name: "show an older AuthorityState to some", alarm: agent.AlarmRollback, key: kafka.KeyFetch, client: agentClient, answer: instead,
			stage: func(w *world) func() {
				old := w.state()
				w.edit.arm(nil)
				w.nextState(time.Hour) // what everybody holds is no older one
				w.edit.arm(named("show an older AuthorityState to some"))
				w.expose(w.follow(w.state(), time.Hour), old.Append(nil))
				return w.heal
			}},
		{name: "hide an AuthorityState from some", detected: "was to be renewed by", key: kafka.KeyFetch, client: agentClient, answer: instead,
			stage: func(w *world) func() {
				w.edit.arm(nil)
				w.nextState(1500 * time.Millisecond)
				w.edit.arm(named("hide an AuthorityState from some"))
				w.expose(w.follow(w.state(), time.Hour), nil)
				return func() { time.Sleep(2 * time.Second); w.heal() }
			}},
		{name: "show different AuthorityStates", alarm: agent.AlarmConflict, key: kafka.KeyFetch, client: agentClient, answer: instead,
			stage: func(w *world) func() {
				prev := w.state()
				w.expose(w.follow(prev, time.Hour), w.follow(prev, 2*time.Hour).Append(nil))
				return w.heal
			}},
		{name: "two AuthorityStates of one number", alarm: agent.AlarmConflict, store: func(w *world, _ place) bool {
			prev := w.state()
			if prev == nil {
				return false
			}
			w.nextState(time.Hour)
			return w.writeState(w.follow(prev, 2*time.Hour))
		}},
		{name: "strip the signature of an AuthorityState", detected: signature,
			store: restate(func(_ *world, a *wire.AuthorityState) { clear(a.Signature[:]) })},
		{name: "an AuthorityState re-signed in the issuer's name", detected: signature, store: restate(func(w *world, a *wire.AuthorityState) {
			a.Revoked = []wire.Revocation{{Serial: w.consumerCred.Serial, At: a.Issued}}
			w.mallory.sign(wire.TypeAuthorityState, a.AppendBody(nil), &a.Signature)
		})},
		{name: "an AuthorityState of a member's own", outside: nothing + ": it waits for an issuer's certificate that never comes, and revokes nobody",
			store: restate(func(w *world, a *wire.AuthorityState) {
				a.Revoked, a.Issuer = []wire.Revocation{{Serial: w.consumerCred.Serial, At: a.Issued}}, w.mallory.cred.Subject
				w.mallory.sign(wire.TypeAuthorityState, a.AppendBody(nil), &a.Signature)
			})},
		{name: "flip a bit of an AuthorityState", detected: refused, store: func(w *world, _ place) bool {
			a := w.follow(w.state(), time.Hour)
			value := bytes.Clone(a.Append(nil))
			value[len(value)-1-w.rng.IntN(wire.SignatureSize)] ^= 1 << w.rng.IntN(8)
			return w.roster(a.Key(), value)
		}},
		{name: "an AuthorityState under another key", detected: "under another key", store: func(w *world, _ place) bool {
			a := w.follow(w.state(), time.Hour)
			key := a.Key()
			key[1] ^= 1
			return w.roster(key, a.Append(nil))
		}},
		{name: "a tombstone for the AuthorityState", outside: nothing + ": what was revoked stays so; who starts later says that it is gone (rollback)",
			store: func(w *world, _ place) bool { return w.roster(w.state().Key(), nil) }},
	}
}
