// Package e2e runs the product as people do: the built program, a real Apache Kafka, real
// clients in five languages and families. Its tests only; nothing may import it. The parts
// come from deps.mk; a missing one skips its test with what to run, and fails in CI. Linux
// only, since the tests look into /proc.
package e2e
