package engine

import (
	"strings"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
)

// Pass reports whether batches of a topic go on as they came, in both directions, since its mode
// is plain (SPEC.md §6.3), and counts those in records if so. The module would say the same: it
// has the same configuration. What it refuses in any case is left to it.
func (e *Engine) Pass(topic string, partition int32, records []byte) bool {
	if topic == "" || len(topic) > abi.MaxTopicLen || partition < 0 || strings.HasPrefix(topic, abi.ControlPrefix) ||
		e.config.Mode(topic) != abi.ModePlain {
		return false
	}
	for len(records) > 0 {
		e.passed.Add(1)
		size, err := kafka.BatchSize(records)
		if err != nil {
			size = len(records) // what is cut short counts
		}
		records = records[size:]
	}
	return true
}
