// Package kafka reads and writes Kafka's bytes as far as they are touched here: the frames
// of the few APIs that carry records or addresses, record batches v2, records, varints and
// CRC-32C. It follows Apache Kafka's protocol guide and message definitions.
//
// It imports the standard library only, does no I/O, and holds no state. Parsers alias the
// bytes they are given, accept one encoding per meaning, and leave their input alone.
package kafka
