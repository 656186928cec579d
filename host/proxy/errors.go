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

const hintCluster = "check that the control topics _e2ee.roster and _e2ee.grants can be reached; clients retry by themselves"

// hints has an entry for each status that a batch can end with.
var hints = map[abi.Status]string{
	abi.StatusMalformed:        "the record batch does not follow Kafka's format: look at the program that wrote it",
	abi.StatusCorrupt:          "the batch was damaged on its way or on disk: compare its CRC at the broker",
	abi.StatusUnsupportedMagic: "let the producer use the message format v2 (Kafka 0.11 or later)",
	abi.StatusUnsupportedCodec: "use none, gzip, snappy, lz4 or zstd as compression",
	abi.StatusTooLarge:         "make the producer's batches smaller, or raise the cap on decompressed batches",
	abi.StatusPlaintext:        "somebody produced past the sidecar: find out who may write to this topic, or declare it plain in the policy",
	abi.StatusUnauthentic:      "the batch was altered or moved after it was sealed: treat the broker as hostile until explained",
	abi.StatusForbidden:        "this topic carries the sidecars' own messages: use another name",

	abi.StatusNotConfigured: "the module is not configured: restart the sidecar and report this",
	abi.StatusBadArgument:   "the sidecar and its module disagree: take both from one release and report this",
	abi.StatusWeakRandom:    "the host gives the module no real random numbers: report this",
	abi.StatusFull:          "the module holds too many keys: fewer topics for one sidecar, or longer epochs",
	abi.StatusInternal:      "the module failed on this batch and was restarted: report this",

	abi.StatusUnavailable:  hintCluster,
	abi.StatusNoRecipient:  "enrol and start a consumer for this topic (and for each group in require_groups) before producing",
	abi.StatusCompacted:    "set cleanup.policy=delete, or declare the topic plain in the policy",
	abi.StatusNotEntitled:  "issue a credential for this node that lists the topic and the role",
	abi.StatusPending:      "the key of this batch is still expected; nothing is lost",
	abi.StatusUnreadable:   "this node was not among the recipients when the batch was sealed: check its topics, begin at a later offset, or set policy.on_unreadable to skip",
	abi.StatusErased:       "the key was erased after consumption, as configured: begin at a later offset, or set policy.on_unreadable to skip",
	abi.StatusClockSkew:    "set this machine's clock (NTP)",
	abi.StatusReplayed:     "the broker serves a batch a second time at another offset: treat it as hostile until explained",
	abi.StatusHistory:      "it was sealed before this node joined, and cannot be passed over: the batch does not say where it ends",
	abi.StatusShuttingDown: "the sidecar is stopping; clients retry by themselves",
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
	if _, ok := hints[known]; !ok {
		known = abi.StatusInternal
	}
	return status, verdict{kafka.ProduceError(known), kafka.FetchRetries(known), hints[known]}
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
