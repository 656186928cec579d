package clients

import (
	"path/filepath"

	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/broker"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/deps"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/records"
)

// Confluent is confluent-kafka for Python (librdkafka). It does transactions and pacing.
var Confluent = programClient(Client{
	Name:   "confluent-kafka",
	Parts:  []deps.Part{deps.Python},
	Codecs: []string{"none", "gzip", "snappy", "lz4", "zstd"},
	Shape: records.Shape{Partitions: 3, Binary: true, Headers: true, NullHeaders: true, NullKeys: true,
		EmptyKeys: true, NullValues: true, EmptyValues: true, Timestamps: true},
}, func() []string {
	return []string{filepath.Join(deps.Dir(deps.Python), "bin", "python"), source("python", "client.py")}
}, noEnv)

// Kafkajs is kafkajs on Node; snappy, lz4 and zstd would need plugins that it does not ship.
var Kafkajs = programClient(Client{
	Name:   "kafkajs",
	Parts:  []deps.Part{deps.Node},
	Codecs: []string{"none", "gzip"},
	Shape: records.Shape{Partitions: 3, Binary: true, Headers: true, NullKeys: true,
		EmptyKeys: true, NullValues: true, EmptyValues: true, Timestamps: true},
}, func() []string { return []string{"node", source("node", "client.js")} },
	func() []string { return []string{"NODE_PATH=" + filepath.Join(deps.Dir(deps.Node), "node_modules")} })

// Java is Kafka's own client as a program of ours calls it. It does transactions.
var Java = programClient(Client{
	Name:   "java",
	Parts:  []deps.Part{deps.Kafka, deps.Java},
	Codecs: []string{"none", "gzip", "snappy", "lz4", "zstd"},
	Shape: records.Shape{Partitions: 3, Binary: true, Headers: true, NullHeaders: true, NullKeys: true,
		EmptyKeys: true, NullValues: true, EmptyValues: true, Timestamps: true},
}, func() []string { return broker.Java("-Xmx256m", source("java", "log4j2.properties"), "Client") }, noEnv)

func noEnv() []string { return nil }
