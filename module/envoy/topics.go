package envoy

import (
	"slices"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
)

// topicSlots and topicSlotSize bound the topic ids remembered: 16 MiB, which is above 200,000
// ids of topics with names of 60 bytes. Beyond it an id stays unknown, which is refused.
const (
	topicSlots    = 1 << 10
	topicSlotSize = 16 << 10
)

// topics remembers which name clients were told for each topic id, from the Metadata responses
// that passed any worker. Ids come instead of names from Produce 13 and Fetch 13 on (KIP-516).
//
// A broker must not be able to move an encrypted topic's id under a plain topic's name: an id
// keeps the name that clients were told, a second name for it makes the id useless, nothing that
// is known gives way to something new, and the broker is never asked about an id on its own.
//
// Each value of the shared data is a list of entries:
//
//	16b: id
//	1b:  length of the name; 0 where two names were told
//	     the name
type topics struct{ slots }

// A learned says what became of an id and a name.
type learned uint8

const (
	learnedOne   learned = iota // the id has one name, or there was nothing to learn
	learnedTwo                  // it has now lost it
	learnedNever                // there is no room for it, or the shared data does not work
)

// learn notes a topic of a Metadata response.
func (t *topics) learn(id [16]byte, name string) (result learned) {
	if id == [16]byte{} || name == "" || len(name) > abi.MaxTopicLen {
		return learnedOne // the last is no topic of Kafka's
	}
	done := t.change(id[:], func(value []byte) []byte {
		result = learnedOne
		if known, at, ok := findTopic(value, id); ok {
			if string(known) == name {
				return nil
			}
			result = learnedTwo
			if len(known) == 0 {
				return nil
			}
			value[at+16] = 0
			return slices.Delete(value, at+17, at+17+len(known))
		}
		if len(value)+17+len(name) > topicSlotSize {
			result = learnedNever
			return nil
		}
		return append(append(append(value, id[:]...), byte(len(name))), name...)
	})
	if !done {
		return learnedNever
	}
	return result
}

// name returns the topic's name, "" for an id that no client was told one name for.
func (t *topics) name(id [16]byte) string {
	value, _ := t.get(id[:])
	name, _, _ := findTopic(value, id)
	return string(name)
}

// findTopic returns the name of an id in a value, and where its entry begins.
func findTopic(value []byte, id [16]byte) (name []byte, at int, ok bool) {
	for at = 0; at+17 <= len(value); {
		size := int(value[at+16])
		if at+17+size > len(value) {
			break
		}
		if [16]byte(value[at:]) == id {
			return value[at+17:][:size], at, true
		}
		at += 17 + size
	}
	return nil, 0, false
}
