package broker

import (
	"slices"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
	"github.com/wasm-e2ee/wasm-e2ee/host/agent"
)

// An action is one thing that the broker does against the protocol. Either answer edits an
// answer on its way, or store appends to a partition what was not sent there.
//
// What is longer is a script. What it is expected to come to is one of detected, alarm and
// outside.
type action struct {
	name     string
	key      int16  // the API whose answers are edited
	client   string // whose; "": anybody's
	answer   func(e *editor, x exchange, frame []byte) (reply, bool)
	stage    func(w *world) (after func()) // writes what answer edits, once it is armed; after: the broker is honest again
	store    func(w *world, at place) bool
	script   func(tr *traffic, at place) bool
	detected string      // what the log of a sidecar, an agent or an issuer says of it
	alarm    agent.Alarm // the kind that an agent raises, in its log, Snapshot and metrics
	outside  string      // why nobody has to notice: nothing changes, or PROTOCOL.md §3 claims nothing
	several  bool        // it needs more than one batch in an answer
}

// seen is how an action shows, for people.
func (a *action) seen() string {
	switch {
	case a.alarm != "":
		return "alarm `" + string(a.alarm) + "`"
	case a.detected != "":
		return "log: `" + a.detected + "`"
	}
	return "outside: " + a.outside
}

const anyKey = -1

// closed is what the log says of a frame that is not Kafka's.
const closed = "connection closed"

const (
	denial  = "availability: dropped, delayed and cut data is not protected (§3)"
	offsets = "offsets and the order of batches are the broker's (§3); no record comes twice"
	nothing = "it changes nothing"
)

// actions is everything that this broker does.
func actions() []*action {
	return slices.Concat(recordActions(), realmActions(), memberActions())
}

// recordActions need a producer and a consumer, realmActions an issuer too, and memberActions
// members that lack keys.
func recordActions() []*action {
	return slices.Concat(transportActions(), dataActions(), controlActions())
}
func realmActions() []*action {
	return slices.Concat(authorityActions(), logActions(), enrolmentActions())
}
func memberActions() []*action { return slices.Concat(shareActions(), requestActions()) }

func transportActions() []*action {
	return []*action{
		{name: "drop connection", key: anyKey, outside: denial,
			answer: func(*editor, exchange, []byte) (reply, bool) { return reply{drop: true}, true }},
		{name: "drop the answer to a Produce", key: kafka.KeyProduce, client: producerClient, outside: denial,
			answer: func(*editor, exchange, []byte) (reply, bool) { return reply{drop: true}, true }},
		{name: "delay", key: kafka.KeyFetch, outside: denial,
			answer: func(_ *editor, _ exchange, frame []byte) (reply, bool) {
				return reply{frame: frame, delay: 200 * time.Millisecond}, true
			}},
		{name: "truncate a response", key: kafka.KeyFetch, client: consumerClient, detected: closed,
			answer: onBatches(func(e *editor, at place, b [][]byte) ([][]byte, bool) { return b, true }, func(frame []byte) reply {
				return reply{frame: frame[:len(frame)-7]}
			})},
		{name: "claim an oversized frame", key: kafka.KeyFetch, client: consumerClient, detected: closed,
			answer: onBatches(func(e *editor, at place, b [][]byte) ([][]byte, bool) { return b, true }, func(frame []byte) reply {
				return reply{frame: frame, length: 0x7fffffff}
			})},
		{name: "stale metadata", key: kafka.KeyMetadata, outside: denial, answer: staleMetadata},
	}
}

// staleMetadata answers with what was true at the beginning.
func staleMetadata(e *editor, x exchange, frame []byte) (reply, bool) {
	old := e.metadata[x]
	if old == nil || string(old[4:]) == string(frame[4:]) {
		return reply{}, false
	}
	return reply{frame: append(append([]byte{}, frame[:4]...), old[4:]...)}, true
}

// onBatches makes an edit of the first partition in a Fetch answer that f accepts. last, if
// any, turns the frame that comes out into the reply.
func onBatches(f func(e *editor, at place, batches [][]byte) ([][]byte, bool), last func(frame []byte) reply) func(*editor, exchange, []byte) (reply, bool) {
	return func(e *editor, x exchange, frame []byte) (reply, bool) {
		size, err := kafka.ResponseHeaderSize(x.key, x.version, frame)
		if err != nil {
			return reply{}, false
		}
		r, err := kafka.ParseFetchResponse(x.version, frame[size:])
		if err != nil {
			return reply{}, false
		}
		done := false
		eachPartition(e, r, func(at place, p *kafka.FetchPartition) {
			if done {
				return
			}
			batches := split(p.Records)
			if len(batches) == 0 {
				return
			}
			if batches, done = f(e, at, batches); done {
				var out []byte
				for _, b := range batches {
					out = append(out, b...)
				}
				p.Records, e.hit = out, &at
			}
		})
		if !done {
			return reply{}, false
		}
		edited := r.Append(append([]byte{}, frame[:size]...))
		if last != nil {
			return last(edited), true
		}
		return reply{frame: edited}, true
	}
}

// is is what the log says of a refused batch.
func is(status abi.Status) string { return status.String() }
