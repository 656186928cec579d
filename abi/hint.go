package abi

const hintCluster = "check that the control topics _e2ee.roster and _e2ee.grants can be reached; clients retry by themselves"

// hints has an entry for each status that a batch can end with. The proxy is whatever runs the
// module: the sidecar, or Envoy.
var hints = map[Status]string{
	StatusMalformed:        "the record batch does not follow Kafka's format: look at the program that wrote it",
	StatusCorrupt:          "the batch was damaged on its way or on disk: compare its CRC at the broker",
	StatusUnsupportedMagic: "let the producer use the message format v2 (Kafka 0.11 or later)",
	StatusUnsupportedCodec: "use none, gzip, snappy, lz4 or zstd as compression",
	StatusTooLarge:         "make the producer's batches smaller, or raise the cap on decompressed batches",
	StatusPlaintext:        "somebody produced past the proxy: find out who may write to this topic, or declare it plain in the policy",
	StatusUnauthentic:      "the batch was altered or moved after it was sealed: treat the broker as hostile until explained",
	StatusForbidden:        "this topic carries the proxies' own messages: use another name",

	StatusNotConfigured: "the module is not configured: restart the proxy and report this",
	StatusBadArgument:   "the proxy and its module disagree: take both from one release and report this",
	StatusWeakRandom:    "the host gives the module no real random numbers: report this",
	StatusFull:          "the module holds too many keys: fewer topics for one proxy, or longer epochs",
	StatusInternal:      "the module failed on this batch and was restarted: report this",

	StatusUnavailable:  hintCluster,
	StatusNoRecipient:  "enrol and start a consumer for this topic (and for each group in require_groups) before producing",
	StatusCompacted:    "set cleanup.policy=delete, or declare the topic plain in the policy",
	StatusNotEntitled:  "issue a credential for this node that lists the topic and the role",
	StatusPending:      "the key of this batch is still expected; nothing is lost",
	StatusUnreadable:   "this node was not among the recipients when the batch was sealed: check its topics, begin at a later offset, or set policy.on_unreadable to skip",
	StatusErased:       "the key was erased after consumption, as configured: begin at a later offset, or set policy.on_unreadable to skip",
	StatusClockSkew:    "set this machine's clock (NTP)",
	StatusReplayed:     "the broker serves a batch a second time at another offset: treat it as hostile until explained",
	StatusHistory:      "it was sealed before this node joined, and cannot be passed over: the batch does not say where it ends",
	StatusShuttingDown: "the proxy is stopping; clients retry by themselves",
}

// Hint is the next step of whoever reads in a log that a batch ended with this status; "" where
// no batch can.
func (s Status) Hint() string { return hints[s] }
