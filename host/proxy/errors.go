package proxy

import (
	"context"
	"errors"
	"strings"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
)

// Error codes of Kafka's protocol that clients are answered with here.
const (
	codeNotEnoughReplicas        = kafka.CodeNotEnoughReplicas
	codeTopicAuthorizationFailed = kafka.CodeTopicAuthorizationFailed
	codeGroupAuthorizationFailed = kafka.CodeGroupAuthorizationFailed
	codeUnsupportedVersion       = kafka.ErrorUnsupportedVersion
	codePolicyViolation          = kafka.CodePolicyViolation
	codeUnknownTopicID           = kafka.CodeUnknownTopicID
)

// A verdict is what becomes of a batch whose seal or open ended with a status.
type verdict struct {
	produce int16  // the partition's error code; 0 closes the connection
	retry   bool   // what follows the batches that did open may open later; else it is denied
	hint    string // the next step of whoever reads the log
}

// judge returns the status that err wraps and what follows from it. An error without one is
// a deadline that passed while waiting, or else a bug.
func judge(err error) (abi.Status, verdict) {
	var status abi.Status
	switch {
	case errors.As(err, &status):
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		status = abi.StatusUnavailable
	default:
		status = abi.StatusInternal
	}
	known := status
	if known.Hint() == "" {
		known = abi.StatusInternal
	}
	return status, verdict{kafka.ProduceError(known), kafka.FetchRetries(known), known.Hint()}
}

// explain splits what a log line says of err: the reason, and the next step, which err may
// know better than the table.
func explain(err error, v verdict) (reason, hint string) {
	text := err.Error()
	for _, mark := range []string{"\nhint: ", "; hint: "} {
		if reason, hint, own := strings.Cut(text, mark); own {
			return reason, hint
		}
	}
	return text, v.hint
}

// refusal is the sentence that a producer's application reads.
func refusal(status abi.Status, v verdict) string {
	return "wasm-e2ee: " + status.String() + " (hint: " + v.hint + ")"
}
