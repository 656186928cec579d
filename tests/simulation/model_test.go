package simulation

import (
	"fmt"
	"slices"
)

// The small model of PROTOCOL.md §4, V-9: one producer and one consumer of one topic with one
// partition, whose group commits everything or nothing. Each step takes one unit of time and is
// one of these.
type step byte

const (
	rotate  step = 'P' // the consumer makes a prekey, publishes it and reads it back
	prepare step = 'R' // the producer reads the roster and makes the next epoch's grant
	begin   step = 'E' // the grant is written and acknowledged, the epoch begins, and one value is sealed in it
	follow  step = 'F' // the consumer reads its grants to the end
	commit  step = 'C' // the group commits all that there is
	erase   step = 'X' // the consumer does what is due about erasure
	repeat  step = 'Z' // the broker writes every grant once more
)

var steps = []step{rotate, prepare, begin, follow, commit, erase, repeat}

// The model's times, in units.
const (
	lifetime = 3 // T + a
	grace    = 3 // G_p
	window   = 2 // W
	hardCap  = 6 // H
	offline  = 8 // O
)

// room bounds what a model holds of each kind.
const room = 12

// A model is a state, and comparable. Times are in units, 0 for not yet.
type model struct {
	now     int8
	prekeys [room]modelPrekey
	made    int8 // prekeys
	epochs  [room]modelEpoch
	begun   int8 // epochs
	draft   int8 // when it was made; 0: none
	wraps   int8 // the prekey that it is wrapped for
	grants  [2 * room]int8
	written int8 // grants
	next    int8 // the consumer's place in them
	values  [room]int8
	sealed  int8 // values
	read    int8 // values that are committed
	repeats bool // the broker has repeated
}

type modelPrekey struct {
	made, superseded int8
	mark             int8 // place that the reader of grants must reach, and 1
	gone             bool
}

type modelEpoch struct {
	start  int8
	prekey int8
	status modelStatus
	ended  int8 // when its end was noted
	end    int8 // values by then
	past   int8 // when the group was found past it
	closed bool // a leak of the consumer opened it no more, once
}

type modelStatus int8

const (
	fresh modelStatus = iota
	held
	erased
	late   // read when it was past the hard cap
	locked // read when its prekey was gone
)

// do is one step. It reports false where the step does nothing, which another one says as well.
func (m *model) do(s step) bool {
	m.now++
	switch s {
	case rotate:
		if m.made == room {
			return false
		}
		for i := range m.made {
			if p := &m.prekeys[i]; p.superseded == 0 {
				p.superseded = m.now
			}
		}
		m.prekeys[m.made] = modelPrekey{made: m.now}
		m.made++
	case prepare:
		if m.draft != 0 || m.begun == room || m.now >= m.prekeys[m.made-1].made+offline {
			return false
		}
		m.draft, m.wraps = m.now, m.made-1
	case begin:
		if m.draft == 0 {
			return false
		}
		if m.now-m.draft < min(grace, lifetime) {
			m.epochs[m.begun] = modelEpoch{start: m.draft, prekey: m.wraps}
			m.grants[m.written] = m.begun
			m.values[m.sealed] = m.begun
			m.begun++
			m.written++
			m.sealed++
		}
		m.draft = 0
	case follow:
		for ; m.next < m.written; m.next++ {
			m.take(&m.epochs[m.grants[m.next]])
		}
	case commit:
		m.read = m.sealed
	case erase:
		m.erase()
	case repeat:
		if m.repeats || m.begun == 0 {
			return false
		}
		m.repeats = true
		for i := range m.begun {
			m.grants[m.written] = i
			m.written++
		}
	}
	for i := range m.begun {
		e := &m.epochs[i]
		e.closed = e.closed || !m.opens(i)
	}
	return true
}

// take reads a grant (§2.8.2).
func (m *model) take(e *modelEpoch) {
	switch {
	case e.status != fresh:
	case m.now >= e.start+lifetime+hardCap:
		e.status = late
	case m.prekeys[e.prekey].gone:
		e.status = locked
	default:
		e.status = held
	}
}

// erase is §2.8.3 and §2.8.4.
func (m *model) erase() {
	for i := range m.begun {
		e := &m.epochs[i]
		if e.status != held {
			continue
		}
		if e.ended == 0 && m.now > e.start+lifetime {
			e.ended, e.end = m.now, m.sealed
		}
		if e.ended != 0 && e.past == 0 && m.passed(i) {
			e.past = m.now
		}
		if m.now >= e.start+lifetime+hardCap || e.past != 0 && m.now >= e.past+window {
			e.status = erased
		}
	}
	for i := range m.made {
		p := &m.prekeys[i]
		if p.mark == 0 && p.superseded != 0 && m.now >= p.superseded+grace {
			p.mark = m.written + 1
		}
		p.gone = p.gone || p.mark != 0 && m.next >= p.mark-1
	}
}

// passed reports whether the group has read every value of an epoch. One that has committed
// nothing is yet to start, and past nothing.
func (m *model) passed(epoch int8) bool {
	for _, v := range m.values[min(m.read, m.epochs[epoch].end):m.epochs[epoch].end] {
		if v == epoch {
			return false
		}
	}
	return m.read > 0
}

// unread reports whether a value of an epoch is before the group.
func (m *model) unread(epoch int8) bool {
	return slices.Contains(m.values[m.read:m.sealed], epoch)
}

// opens reports whether a leak of the consumer opens an epoch (C3): by its secret, or by the
// prekey that its grant is wrapped for.
func (m *model) opens(epoch int8) bool {
	e := &m.epochs[epoch]
	return e.status == held || !m.prekeys[e.prekey].gone
}

// check holds a state against the claims, whatever the way to it.
func (m *model) check(last step) error {
	for i := range m.begun {
		e, p := &m.epochs[i], &m.prekeys[m.epochs[i].prekey]
		over := e.start + lifetime
		switch {
		case e.closed && m.opens(i):
			return fmt.Errorf("C13: epoch %d is readable again", i)
		case e.status == locked:
			return fmt.Errorf("§2.8.3: the prekey of epoch %d went before its grant was read", i)
		case e.status == erased && m.now < over+hardCap && m.unread(i):
			return fmt.Errorf("§2.8.4: epoch %d was erased before its values were read", i)
		case p.superseded != 0 && e.start > p.superseded:
			return fmt.Errorf("C4: epoch %d is wrapped for a prekey that was replaced before", i)
		case last == erase && e.status == held && m.now >= over+hardCap:
			return fmt.Errorf("C3: epoch %d is held beyond the hard cap", i)
		case last == erase && e.status == held && e.past != 0 && m.now >= e.past+window:
			return fmt.Errorf("C3: epoch %d is held though the group was past it %d ago", i, m.now-e.past)
		}
	}
	return nil
}
