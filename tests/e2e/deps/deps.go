// Package deps finds the parts that deps.mk fetched: the real broker and the real clients. It
// fetches nothing. A test that lacks a part skips with what to run, and fails in CI.
package deps

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

// A Part is one target of deps.mk.
type Part string

const (
	Kafka  Part = "kafka"  // jars of Apache Kafka's broker, tools and console clients
	Java   Part = "java"   // our Java client's classes
	Python Part = "python" // venv with confluent-kafka and what tests/interop/python imports
	Node   Part = "node"   // kafkajs
	Kcat   Part = "kcat"
)

// Envoy is the Envoy of a version, a folder with the binary envoy.
func Envoy(version string) Part { return Part("envoy-" + version) }

// Root is the checkout's folder, absolute.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..", "..")
}

// Dir is the folder that holds a part, whether or not it is there.
func Dir(p Part) string { return filepath.Join(Root(), "build", "deps", string(p)) }

// Have tells whether a part has been fetched whole.
func Have(p Part) bool {
	_, err := os.Stat(Dir(p) + ".stamp")
	return err == nil
}

// Need skips the test when a part is missing, and fails it in CI.
func Need(t testing.TB, parts ...Part) {
	t.Helper()
	for _, p := range parts {
		if !Have(p) {
			Missing(t, string(p)+" has not been fetched; hint: make deps-"+string(p))
		}
	}
}

// Missing skips the test for the given reason, and fails it in CI.
func Missing(t testing.TB, reason string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}
