package kafka

import "github.com/wasm-e2ee/wasm-e2ee/abi"

// Error codes of Kafka's protocol that clients are answered with. Which of them reaches the
// application in which client was tried: on Fetch only 29 does in all of them.
const (
	CodeCorruptMessage           int16 = 2
	CodeMessageTooLarge          int16 = 10
	CodeCoordinatorNotAvailable  int16 = 15 // retried by members of groups
	CodeNotEnoughReplicas        int16 = 19 // retried by producers
	CodeTopicAuthorizationFailed int16 = 29
	CodeGroupAuthorizationFailed int16 = 30
	CodePolicyViolation          int16 = 44
	CodeUnknownTopicID           int16 = 100 // retried after fresh Metadata
)

// ProduceError returns the error code of a partition whose batch was not sealed for this
// reason; 0 closes the connection, as Kafka does after bytes that are none of its own
// (SPEC.md §5).
func ProduceError(s abi.Status) int16 {
	switch s {
	case abi.StatusMalformed:
		return 0
	case abi.StatusCorrupt:
		return CodeCorruptMessage
	case abi.StatusTooLarge:
		return CodeMessageTooLarge
	case abi.StatusNotConfigured, abi.StatusWeakRandom, abi.StatusFull, abi.StatusInternal, abi.StatusUnavailable,
		abi.StatusPending, abi.StatusClockSkew, abi.StatusShuttingDown:
		return CodeNotEnoughReplicas
	}
	return CodePolicyViolation
}

// FetchRetries reports whether a batch that was not opened for this reason may open later:
// its partition comes back without it and without an error, and the client asks again. For
// any other reason the partition is denied (SPEC.md §5).
func FetchRetries(s abi.Status) bool {
	return s != abi.StatusInternal && ProduceError(s) == CodeNotEnoughReplicas
}

// Skippable reports whether a batch that was not opened for this reason is passed over where
// the policy says on_unreadable: skip (PROTOCOL.md §2.8.5): it will not open later either.
// What can be tried again, what is wrong with this node rather than with the batch, and what
// nobody knows the reason of, is not. History is passed over whatever the policy says.
func Skippable(s abi.Status) bool {
	switch s {
	case abi.StatusMalformed, abi.StatusCorrupt, abi.StatusUnsupportedMagic, abi.StatusUnsupportedCodec, abi.StatusTooLarge,
		abi.StatusPlaintext, abi.StatusUnauthentic, abi.StatusUnreadable, abi.StatusErased, abi.StatusReplayed:
		return true
	}
	return false
}
