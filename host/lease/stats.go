package lease

import (
	"sync/atomic"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/channel"
)

// Stats counts what a Server has done since it started.
type Stats struct {
	Open              int                                  // channels now
	Begun             uint64                               // channels
	HandshakesRefused uint64                               // of another pairing key or realm, or no handshakes at all
	CallsRefused      uint64                               // on channels that are not open, or that ended the channel
	Served            map[channel.Op]uint64                // answered with StatusOK
	Refused           map[channel.Op]map[abi.Status]uint64 // answered with another status
}

// Statuses and operations have smaller numbers than these.
const (
	numStatuses = 64
	numOps      = channel.OpGroups + 1
)

type counters struct {
	begun, handshakesRefused, callsRefused atomic.Uint64
	answers                                [numOps][numStatuses]atomic.Uint64
}

func (c *counters) count(op channel.Op, status abi.Status) {
	c.answers[op][min(status, numStatuses-1)].Add(1)
}

// Stats returns the counters as they are now.
func (s *Server) Stats() Stats {
	out := Stats{
		Open: s.channels.len(), Begun: s.stats.begun.Load(),
		HandshakesRefused: s.stats.handshakesRefused.Load(), CallsRefused: s.stats.callsRefused.Load(),
		Served: map[channel.Op]uint64{}, Refused: map[channel.Op]map[abi.Status]uint64{},
	}
	for op := channel.OpLease; op < numOps; op++ {
		out.Refused[op] = map[abi.Status]uint64{}
		for status := range s.stats.answers[op] {
			n := s.stats.answers[op][status].Load()
			switch {
			case status == int(abi.StatusOK):
				out.Served[op] = n
			case n > 0:
				out.Refused[op][abi.Status(status)] = n
			}
		}
	}
	return out
}
