package envoy

import (
	"fmt"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
)

// An Event is something that an operator should read in the proxy's log, in the sidecar's
// words. Clients repeat what was refused many times a second: whoever logs events says each
// Subject once a minute.
type Event struct {
	Kind      EventKind
	Topic     string     // of seal, open, skip, topic id
	Partition int32      // of seal, open, skip
	Offset    int64      // of open, skip: the base offset of the first batch that did not open
	Status    abi.Status // of seal, open, skip
	Group     string     // of group: clients choose it, and it is cut at 512 bytes
	API       string     // of group: the request's
	NoAgent   bool       // of seal, open: it is for want of an agent's answer
	HTTP      int        // of channel, and with NoAgent: the agent's answer, 0 where there was none
}

// An EventKind says what happened.
type EventKind uint8

const (
	EventSeal         EventKind = iota + 1 // a partition of a Produce request was refused
	EventOpen                              // a partition was cut before a batch
	EventSkip                              // a batch was passed over
	EventGroup                             // a consumer group was refused
	EventGroupUnknown                      // the agent did not say in time which groups are listed
	EventTopicID                           // a broker gave one topic id to two names
	EventTopicsFull                        // no further topic id can be remembered
	EventShared                            // what workers share cannot be written
	EventChannel                           // the key channel fails
	EventChannelUp                         // it works, for the first time or again
)

// What a proxy answers in the place of an agent that it does not reach, or not in time.
const (
	httpUnavailable = 503
	httpTimeout     = 504
)

// maxEventName bounds in bytes what an event keeps of a name that clients choose.
const maxEventName = 512

// Subject is what the log limits repetitions by. It is comparable.
func (e Event) Subject() Event {
	e.Offset, e.API = 0, ""
	if e.Kind == EventSeal {
		e.Partition = 0
	}
	return e
}

// Warning reports whether somebody should look, rather than just know.
func (e Event) Warning() bool {
	return e.Kind != EventChannelUp && !(e.Kind == EventChannel && e.HTTP == 410) &&
		!(e.Kind == EventSkip && e.Status == abi.StatusHistory)
}

// String is the log's line, the next step included.
func (e Event) String() string {
	text, hint := e.text(), e.Hint()
	if hint == "" {
		return text
	}
	return text + " (hint: " + hint + ")"
}

func (e Event) text() string {
	switch e.Kind {
	case EventSeal:
		return fmt.Sprintf("produce refused: topic %q, partition %d: %s", e.Topic, e.Partition, e.reason())
	case EventOpen:
		yet := ""
		if kafka.FetchRetries(e.Status) {
			yet = " yet"
		}
		return fmt.Sprintf("batch cannot be opened%s: topic %q, partition %d, offset %d: %s", yet, e.Topic, e.Partition, e.Offset, e.reason())
	case EventSkip:
		return fmt.Sprintf("batch passed over: topic %q, partition %d, offset %d: %v", e.Topic, e.Partition, e.Offset, e.Status)
	case EventGroup:
		return fmt.Sprintf("consumer group refused: %q, asked for by %s", e.Group, e.API)
	case EventGroupUnknown:
		return "the agent has not said yet which consumer groups the credential lists"
	case EventTopicID:
		return fmt.Sprintf("the broker gives one topic id to two names; nothing is produced to it or read from it: topic %q", e.Topic)
	case EventTopicsFull:
		return fmt.Sprintf("no further topic id can be remembered: topic %q", e.Topic)
	case EventShared:
		return "the proxy's shared data cannot be written; nothing is opened meanwhile"
	case EventChannel:
		return "key channel: " + e.agent()
	case EventChannelUp:
		return "key channel: connected to the agent"
	}
	return fmt.Sprintf("event %d", e.Kind)
}

// agent says what became of the last call to the agent.
func (e Event) agent() string {
	switch e.HTTP {
	case 0, httpUnavailable, httpTimeout:
		return "the agent cannot be reached"
	case 200:
		return "the agent's answer does not verify"
	case 400:
		return "the agent refused this proxy"
	case 410:
		return "the agent has begun anew"
	}
	return fmt.Sprintf("HTTP status %d", e.HTTP)
}

// reason is why a batch was not sealed or opened.
func (e Event) reason() string {
	if e.NoAgent {
		return e.agent()
	}
	return e.Status.String()
}

// refusal is the sentence that a producer's application reads.
func (e Event) refusal() string {
	return "wasm-e2ee: " + e.reason() + " (hint: " + e.Hint() + ")"
}

// event is what became of a batch. Where nobody but the agent could have helped, and none
// answers, it leads there.
func (k *Keys) event(kind EventKind, topic string, partition int32, offset int64, s abi.Status) Event {
	e := Event{Kind: kind, Topic: topic, Partition: partition, Offset: offset, Status: s}
	if k.cutOff && (s == abi.StatusUnavailable || s == abi.StatusPending) {
		e.NoAgent, e.HTTP = true, k.answer
	}
	return e
}

// Hint is the next step; "" where there is none to take.
func (e Event) Hint() string {
	switch e.Kind {
	case EventSeal, EventOpen:
		if e.NoAgent {
			return e.agentHint()
		}
		return e.Status.Hint()
	case EventSkip:
		if e.Status == abi.StatusHistory {
			return "" // as expired data
		}
		return e.Status.Hint()
	case EventGroup:
		return "issue a credential for this node that lists the group, or let the client use one that is listed"
	case EventGroupUnknown:
		return "see that wasm-e2ee agent runs and is enrolled; clients retry by themselves"
	case EventTopicID:
		return "treat the broker as hostile until explained; restart the proxy to clear this"
	case EventTopicsFull:
		return "restart the proxy: ids of topics that are gone are forgotten then"
	case EventShared:
		return "see that the proxy's configuration lets the module use shared data"
	case EventChannel:
		return e.agentHint()
	}
	return ""
}

func (e Event) agentHint() string {
	switch e.HTTP {
	case 0, httpUnavailable, httpTimeout:
		return "see that wasm-e2ee agent runs, and that the configuration's agent_cluster leads to its agent.listen"
	case 200:
		return "see that agent_cluster leads to wasm-e2ee agent and to nothing else"
	case 400:
		return "give the proxy the agent's pairing key and realm id: wasm-e2ee agent pair, wasm-e2ee envoy config"
	case 410:
		return ""
	}
	return "see that agent_cluster leads to wasm-e2ee agent"
}

// report hands an event to whoever logs; nil is nobody.
func (c *Config) report(e Event) {
	if c.Event != nil {
		c.Event(e)
	}
}
