package envoy

import (
	"fmt"
	"strings"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/channel"
	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

// groups are the consumer groups that the node's credential lists, as the agent said last. Keys
// are erased behind these groups (PROTOCOL.md §2.8.4): another one would find its data
// unreadable some minutes later, without knowing why.
type groups struct {
	listed []wire.Pattern
	known  bool
	askAt  uint64 // Unix ms
	since  uint64 // when somebody first missed them; 0 where nobody does
}

// due reports whether the agent is to be asked now, and notes that it is.
func (g *groups) due(now uint64) bool {
	if now < g.askAt && g.askAt-now <= renewEvery { // the clock may have gone back
		return false
	}
	g.askAt = now + aheadAgain
	return true
}

// answered takes what the agent said. Until it says something else the last list holds.
func (g *groups) answered(a *channel.Answer, sentAt uint64) error {
	if a.Status != abi.StatusOK {
		return nil // it is asked again in a second
	}
	listed, err := wire.ParsePatterns(a.Body)
	if err != nil {
		return err
	}
	*g = groups{listed: listed, known: true, askAt: sentAt + renewEvery}
	return nil
}

// refuseGroup sees to requests for groups that are not listed. It returns false for done where
// the request must wait for the list, and true for refused where it was answered here.
func (s *Stream) refuseGroup(frame []byte, h kafka.RequestHeader, now uint64) (refused, done bool, err error) {
	var names []string
	ok := false
	if h.Key == kafka.KeyFindCoordinator {
		names, ok, err = kafka.CoordinatorGroups(h.Version, frame[h.Size:])
	} else {
		names, ok, err = kafka.RequestGroups(h.Key, h.Version, frame[h.Size:])
	}
	if err != nil {
		return false, false, &Violation{"client", kafka.APIName(h.Key), h.Version, err}
	}
	if !ok {
		return false, true, nil
	}
	g := &s.w.keys.groups
	code := kafka.CodeGroupAuthorizationFailed
	if !g.known {
		if g.since == 0 {
			g.since = now
		}
		if s.groupUntil == 0 {
			// As with leases: not each request waits for the whole time.
			s.groupUntil = max(g.since+s.w.cfg.ProduceWait, now+s.w.cfg.ProduceWait/10)
		}
		if now < s.groupUntil {
			return false, false, nil
		}
		code = kafka.CodeCoordinatorNotAvailable
		s.w.cfg.report(Event{Kind: EventGroupUnknown})
	} else {
		unlisted := ""
		for _, name := range names {
			if !wire.MatchAny(g.listed, name) {
				unlisted, ok = name, false
			}
		}
		if ok {
			s.groupUntil = 0
			return false, true, nil
		}
		s.w.stats.Groups++
		s.w.cfg.report(Event{Kind: EventGroup, Group: strings.Clone(unlisted[:min(len(unlisted), maxEventName)]), API: kafka.APIName(h.Key)})
	}
	s.groupUntil = 0
	if !kafka.RefusesGroups(h.Key, h.Version) {
		return false, false, &Violation{"client", kafka.APIName(h.Key), h.Version, fmt.Errorf("a consumer group that the credential does not list: %w", abi.StatusNotEntitled)}
	}
	size := refusedSize
	for _, name := range names {
		size += refusedSize + len(name)
	}
	s.answer(h, &kafka.GroupRefusal{Key: h.Key, Version: h.Version, Groups: names, Code: code}, size)
	return true, true, nil
}
