package envoy

import "github.com/wasm-e2ee/wasm-e2ee/abi"

// maxTopics bounds the topic ids remembered. Beyond it an id stays unknown, which is refused.
const maxTopics = 1 << 16

// topics remembers which name a client was told for each topic id, from the Metadata
// responses that passed. Ids come instead of names from Produce 13 and Fetch 13 on (KIP-516).
//
// A broker must not be able to move an encrypted topic's id under a plain topic's name: an id
// keeps the name that clients were told, a second name for it makes the id useless, and the
// broker is never asked about an id on its own.
type topics struct {
	names map[[16]byte]string // "" where two names were told
}

// learn notes a topic of a Metadata response and reports whether the id still has one name.
func (t *topics) learn(id [16]byte, name string) bool {
	if id == [16]byte{} || name == "" {
		return true
	}
	known, ok := t.names[id]
	switch {
	case ok && known == name:
	case ok:
		t.names[id] = ""
		return false
	case len(name) > abi.MaxTopicLen: // no topic of Kafka's, and nothing to remember
	case len(t.names) < maxTopics:
		if t.names == nil {
			t.names = map[[16]byte]string{}
		}
		t.names[id] = topicName(name)
	}
	return true
}

// name returns the topic's name, "" for an id that no client was told.
func (t *topics) name(id [16]byte) string { return t.names[id] }
