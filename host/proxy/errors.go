package proxy

import (
	"context"
	"errors"
	"strings"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
)

// Error codes of Kafka's protocol that clients are answered with. Which of them reaches the
// application in which client was tried: on Fetch only 29 does in all of them.
const (
	codeCorruptMessage           int16 = 2
	codeMessageTooLarge          int16 = 10
	codeNotEnoughReplicas        int16 = 19 // retried by producers
	codeTopicAuthorizationFailed int16 = 29
	codeGroupAuthorizationFailed int16 = 30
	codeUnsupportedVersion       int16 = 35
	codePolicyViolation          int16 = 44
	codeUnknownTopicID           int16 = 100 // retried after fresh Metadata
)

// A verdict is what becomes of a batch whose seal or open ended with a status.
type verdict struct {
	produce int16       // the partition's error code; 0 closes the connection
	fetch   fetchAction // for what follows the batches that did open
	hint    string      // the next step of whoever reads the log
}

type fetchAction uint8

const (
	deny  fetchAction = iota // codeTopicAuthorizationFailed
	retry                    // no records and no error: the client asks again
)

const hintCluster = "check that the control topics _e2ee.roster and _e2ee.grants can be reached; clients retry by themselves"

var verdicts = map[abi.Status]verdict{
	abi.StatusMalformed:        {0, deny, "the record batch does not follow Kafka's format: look at the program that wrote it"},
	abi.StatusCorrupt:          {codeCorruptMessage, deny, "the batch was damaged on its way or on disk: compare its CRC at the broker"},
	abi.StatusUnsupportedMagic: {codePolicyViolation, deny, "let the producer use the message format v2 (Kafka 0.11 or later)"},
	abi.StatusUnsupportedCodec: {codePolicyViolation, deny, "use none, gzip, snappy, lz4 or zstd as compression"},
	abi.StatusTooLarge:         {codeMessageTooLarge, deny, "make the producer's batches smaller, or raise the cap on decompressed batches"},
	abi.StatusPlaintext:        {codePolicyViolation, deny, "somebody produced past the sidecar: find out who may write to this topic, or declare it plain in the policy"},
	abi.StatusUnauthentic:      {codePolicyViolation, deny, "the batch was altered or moved after it was sealed: treat the broker as hostile until explained"},
	abi.StatusForbidden:        {codePolicyViolation, deny, "this topic carries the sidecars' own messages: use another name"},

	abi.StatusNotConfigured: {codeNotEnoughReplicas, retry, "the module is not configured: restart the sidecar and report this"},
	abi.StatusBadArgument:   {codePolicyViolation, deny, "the sidecar and its module disagree: take both from one release and report this"},
	abi.StatusWeakRandom:    {codeNotEnoughReplicas, retry, "the host gives the module no real random numbers: report this"},
	abi.StatusFull:          {codeNotEnoughReplicas, retry, "the module holds too many keys: fewer topics for one sidecar, or longer epochs"},
	abi.StatusInternal:      {codeNotEnoughReplicas, deny, "the module failed on this batch and was restarted: report this"},

	abi.StatusUnavailable:  {codeNotEnoughReplicas, retry, hintCluster},
	abi.StatusNoRecipient:  {codePolicyViolation, deny, "enrol and start a consumer for this topic (and for each group in require_groups) before producing"},
	abi.StatusCompacted:    {codePolicyViolation, deny, "set cleanup.policy=delete, or declare the topic plain in the policy"},
	abi.StatusNotEntitled:  {codePolicyViolation, deny, "issue a credential for this node that lists the topic and the role"},
	abi.StatusPending:      {codeNotEnoughReplicas, retry, "the key of this batch is still expected; nothing is lost"},
	abi.StatusUnreadable:   {codePolicyViolation, deny, "this node was not among the recipients when the batch was sealed: check its topics, begin at a later offset, or set policy.on_unreadable to skip"},
	abi.StatusErased:       {codePolicyViolation, deny, "the key was erased after consumption, as configured: begin at a later offset, or set policy.on_unreadable to skip"},
	abi.StatusClockSkew:    {codeNotEnoughReplicas, retry, "set this machine's clock (NTP)"},
	abi.StatusReplayed:     {codePolicyViolation, deny, "the broker serves a batch a second time at another offset: treat it as hostile until explained"},
	abi.StatusHistory:      {codePolicyViolation, deny, "it was sealed before this node joined, and cannot be passed over: the batch does not say where it ends"},
	abi.StatusShuttingDown: {codeNotEnoughReplicas, retry, "the sidecar is stopping; clients retry by themselves"},
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
	v, ok := verdicts[status]
	if !ok {
		v = verdicts[abi.StatusInternal]
	}
	return status, v
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
