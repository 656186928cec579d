// Package ledger keeps a book of every key and nonce that a fleet seals with (PROTOCOL.md
// §4, V-5), while its processes are crashed at every step, started again from their state or
// from an old copy of it, run twice from one state, and split over workers. Simulated
// processes take every path in virtual time; real ones are killed by the system.
package ledger
