// Package broker is a malicious broker (PROTOCOL.md §4, V-4): an embedded Kafka whose
// connections pass through an editor that drops, delays, repeats, swaps, splices, forges and
// hides what it likes, in sequences that a seed decides. Around it run agents, engines and
// proxies as in production, with plain clients. What must hold is looked at from both
// ends: at the consumer's client, and at every byte that reaches the broker.
package broker
