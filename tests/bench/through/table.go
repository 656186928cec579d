package through

import (
	"fmt"

	"github.com/wasm-e2ee/wasm-e2ee/tests/bench/report"
)

// What is asked of 1 KiB records, as shares of Kroxylicious' processor time for each MB.
const (
	mostSealing = 0.25
	mostPlain   = 0.5
)

// A figure is one property of a shot.
type figure struct {
	name, unit string
	of         func(shot) float64
	proxies    bool // it is the proxy's own, and no proxy has none
}

var figures = []figure{
	{"processor time to produce", "CPU-ms/MB", func(s shot) float64 { return s.proxyProduce }, true},
	{"processor time to consume", "CPU-ms/MB", func(s shot) float64 { return s.proxyConsume }, true},
	{"the broker's processor time to produce", "CPU-ms/MB of Kafka", func(s shot) float64 { return s.kafkaProduce }, false},
	{"the broker's processor time to consume", "CPU-ms/MB of Kafka", func(s shot) float64 { return s.kafkaConsume }, false},
	{"produced", "MB/s", func(s shot) float64 { return s.produced }, false},
	{"consumed", "MB/s", func(s shot) float64 { return s.consumed }, false},
	{"produced, records", "records/s", func(s shot) float64 { return s.recordsIn }, false},
	{"consumed, records", "records/s", func(s shot) float64 { return s.recordsOut }, false},
	{"p50", "ms", func(s shot) float64 { return s.p50 }, false},
	{"p99", "ms", func(s shot) float64 { return s.p99 }, false},
	{"p99.9", "ms", func(s shot) float64 { return s.p999 }, false},
	{"memory", "MB RSS", func(s shot) float64 { return s.rss }, true},
	{"stored", "B/B", func(s shot) float64 { return s.stored }, false},
}

const note = "records/s and MB/s (10^6 B of random values) as fast as one franz-go client goes, linger 5 ms, no codec; " +
	"p50, p99 and p99.9 from when a record is due at the offered load to when the consumer has it; stored is bytes of the broker's log for each byte of values. " +
	"All processes share the machine's cores. Kroxylicious is 0.12.0, the newest on Maven: upstream is further"

// tabulate makes a cell's rows: sealing beside encrypting, and plain beside passing.
func tabulate(c cell, found map[string][]shot) (rows []report.Row) {
	for _, pair := range []struct {
		what, ours, theirs string
		most               float64
	}{{"sealed", sealing, encrypting, mostSealing}, {"plain", plain, passing, mostPlain}} {
		for _, f := range figures {
			side := func(way string) report.Side {
				s := report.Side{Name: way}
				for _, shot := range found[way] {
					s.Values = append(s.Values, f.of(shot))
				}
				return s
			}
			sides := []report.Side{side(pair.ours), side(pair.theirs)}
			if !f.proxies {
				sides = append(sides, side(direct))
			}
			var target *report.Target
			asked := f.name == figures[0].name || pair.what == "plain" && f.name == figures[1].name
			if c.size == 1<<10 && asked {
				target = report.AtMost(pair.most)
			}
			name := fmt.Sprintf("%s, %s, %s", c, pair.what, f.name)
			if f.unit == "ms" {
				name += fmt.Sprintf(" at %d records/s", c.rate)
			}
			row := report.Compare(name, f.unit, target, sides...)
			row.Note, row.Match = note, c.String()
			rows = append(rows, row)
		}
	}
	return rows
}
