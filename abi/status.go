package abi

import "strconv"

// A Status is the one numbered taxonomy of outcomes. The module returns it from every
// e2ee_* function, the agent answers with it, and it is itself an error, so that
// errors.Is(err, abi.StatusNeedRoot) holds from guest to log. Numbers are part of the
// ABI (SPEC.md §5) and never change their meaning.
type Status uint32

const (
	// StatusOK is success. It is never returned as an error.
	StatusOK Status = 0

	// The caller can go on after doing what the status asks for.

	StatusNeedLease Status = 1 // no usable lease for this topic: install one, call again
	StatusNeedRoot  Status = 2 // no root for the kid in the result: install it, call again
	StatusNeedSpace Status = 3 // the buffer is too small: result.length is the capacity wanted

	// The batch is refused. The buffer is as it was.

	StatusMalformed        Status = 16 // lengths, counts or varints do not hold together
	StatusCorrupt          Status = 17 // the CRC-32C does not match
	StatusUnsupportedMagic Status = 18 // a message set older than record batch v2
	StatusUnsupportedCodec Status = 19 // an unknown compression codec
	StatusTooLarge         Status = 20 // over the decompression or record-count cap
	StatusPlaintext        Status = 21 // not sealed, where the policy says encrypted
	StatusUnauthentic      Status = 22 // the tag does not verify, or the batch is not in its place
	StatusForbidden        Status = 23 // a client may not produce to this topic at all (control topics)

	// The call itself is wrong, or the module cannot serve.

	StatusNotConfigured Status = 32 // e2ee_configure has not succeeded yet
	StatusBadArgument   Status = 33 // a pointer, length or block that does not parse
	StatusWeakRandom    Status = 34 // random_get is constant or repeats: refuses to start
	StatusFull          Status = 35 // no room for another lease or root
	StatusInternal      Status = 36 // a bug; the instance must be discarded

	// The agent's answers, why there is no lease or no root.

	StatusUnavailable  Status = 48 // control topics cannot be reached, or no acknowledgement in time: retry
	StatusNoRecipient  Status = 49 // no entitled consumer, or a required group is missing
	StatusCompacted    Status = 50 // the topic is compacted and the policy does not provide for it
	StatusNotEntitled  Status = 51 // this node's credential does not cover role, topic or group
	StatusPending      Status = 52 // the grant may still arrive: ask again
	StatusUnreadable   Status = 53 // no grant opens this kid for this node, and none will
	StatusErased       Status = 54 // the key was held and has been erased
	StatusClockSkew    Status = 55 // the broker's clock and ours disagree beyond the allowed skew
	StatusShuttingDown Status = 56 // the process is draining
	StatusReplayed     Status = 57 // opened before at another offset: the broker appended it again
	StatusHistory      Status = 58 // sealed before this node joined: passed over like expired data
)

var statusText = map[Status]string{
	StatusOK:               "ok",
	StatusNeedLease:        "no lease for this topic is installed",
	StatusNeedRoot:         "no root for this kid is installed",
	StatusNeedSpace:        "the buffer is too small",
	StatusMalformed:        "malformed batch",
	StatusCorrupt:          "checksum mismatch",
	StatusUnsupportedMagic: "message format older than v2",
	StatusUnsupportedCodec: "unknown compression codec",
	StatusTooLarge:         "batch exceeds a size limit",
	StatusPlaintext:        "plaintext where the policy says encrypted",
	StatusUnauthentic:      "authentication failed",
	StatusForbidden:        "topic is reserved",
	StatusNotConfigured:    "module is not configured",
	StatusBadArgument:      "bad argument",
	StatusWeakRandom:       "random source is not random",
	StatusFull:             "no room for another key",
	StatusInternal:         "internal error in the module",
	StatusUnavailable:      "control topics are unavailable",
	StatusNoRecipient:      "no entitled consumer",
	StatusCompacted:        "topic is compacted",
	StatusNotEntitled:      "credential does not cover this",
	StatusPending:          "grant has not arrived yet",
	StatusUnreadable:       "sealed for others, or before this node joined",
	StatusErased:           "key has been erased",
	StatusClockSkew:        "clock differs too much from the broker's",
	StatusShuttingDown:     "shutting down",
	StatusReplayed:         "opened before at another offset",
	StatusHistory:          "sealed before this node joined",
}

// statusNames are statuses as the values of a metric's label, as SPEC.md §5 names them.
var statusNames = map[Status]string{
	StatusOK:               "ok",
	StatusNeedLease:        "need_lease",
	StatusNeedRoot:         "need_root",
	StatusNeedSpace:        "need_space",
	StatusMalformed:        "malformed",
	StatusCorrupt:          "corrupt",
	StatusUnsupportedMagic: "unsupported_magic",
	StatusUnsupportedCodec: "unsupported_codec",
	StatusTooLarge:         "too_large",
	StatusPlaintext:        "plaintext",
	StatusUnauthentic:      "unauthentic",
	StatusForbidden:        "forbidden",
	StatusNotConfigured:    "not_configured",
	StatusBadArgument:      "bad_argument",
	StatusWeakRandom:       "weak_random",
	StatusFull:             "full",
	StatusInternal:         "internal",
	StatusUnavailable:      "unavailable",
	StatusNoRecipient:      "no_recipient",
	StatusCompacted:        "compacted",
	StatusNotEntitled:      "not_entitled",
	StatusPending:          "pending",
	StatusUnreadable:       "unreadable",
	StatusErased:           "erased",
	StatusClockSkew:        "clock_skew",
	StatusShuttingDown:     "shutting_down",
	StatusReplayed:         "replayed",
	StatusHistory:          "history",
}

// Name is the status's name in SPEC.md §5 in lower case with underscores, such as
// no_recipient; "" for a number that is not in use. It does not change.
func (s Status) Name() string { return statusNames[s] }

// String names the status in lower case, without its number.
func (s Status) String() string {
	if t, ok := statusText[s]; ok {
		return t
	}
	return "unknown status " + strconv.FormatUint(uint64(s), 10)
}

// Error makes a Status an error. StatusOK must not be used as one: see Err.
func (s Status) Error() string { return s.String() }

// Err returns nil for StatusOK and the status itself otherwise.
func (s Status) Err() error {
	if s == StatusOK {
		return nil
	}
	return s
}
