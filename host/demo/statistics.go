package demo

import (
	"bufio"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi/plugin"
)

// envoys are both ends, where they are Envoys.
func (s *stage) envoys() []*plane {
	if s.producer.envoy == nil {
		return nil
	}
	return []*plane{s.producer, s.consumer}
}

// serving returns once clients are served at both ends. Sidecars serve as soon as they run.
func (s *stage) serving(ctx context.Context) error {
	for _, p := range s.envoys() {
		if err := p.envoy.ready(ctx); err != nil {
			return fmt.Errorf("%s's Envoy: %w", p.name, err)
		}
		s.out.step("%-10s Envoy at %s, up in %.1f s, statistics at http://%s", p.name, p.addr, time.Since(p.envoy.begun).Seconds(), p.envoy.admin)
	}
	for _, p := range s.envoys() {
		s.out.step("%-10s runs e2ee.wasm, SHA-256 %x", p.name, p.envoy.spec.Module.Sum)
	}
	return nil
}

// statistics are the module's metrics by name, with labels where they have some, as Envoy tells
// them to Prometheus.
type statistics map[string]uint64

// ourMetric is a line of /stats/prometheus with one of the module's: name, labels, of which there
// may be none, and value.
var ourMetric = regexp.MustCompile(`^(` + plugin.MetricPrefix + `\w+(?:\{[^}]+\})?)(?:\{\})? (\d+)$`)

func (e *envoyPlane) statistics(ctx context.Context) (statistics, error) {
	response, err := e.get(ctx, "/stats/prometheus")
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	out := statistics{}
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		if m := ourMetric.FindStringSubmatch(lines.Text()); m != nil {
			if out[m[1]], err = strconv.ParseUint(m[2], 10, 64); err != nil {
				return nil, err
			}
		}
	}
	return out, lines.Err()
}

// counted lists what is not 0 of a metric, in the order of its labels.
func (s statistics) counted(metric string) (names []string) {
	for name, value := range s {
		if family, _, _ := strings.Cut(name, "{"); family == plugin.MetricPrefix+metric && value != 0 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// statisticsTime bounds how long workers take to tell what they counted.
const statisticsTime = 5 * time.Second

// account prints what both Envoys counted, and returns what of it is not as it must be after so
// many records.
func (s *stage) account(ctx context.Context, records uint64) (broken []string, err error) {
	if s.envoys() == nil {
		return nil, nil
	}
	s.out.title("What both Envoys tell Prometheus")
	for _, p := range s.envoys() {
		moved := plugin.MetricPrefix + map[string]string{"producer": "sealed_records_total", "consumer": "opened_records_total"}[p.name]
		var now statistics
		for deadline := time.Now().Add(statisticsTime); now[moved] != records && time.Now().Before(deadline); {
			if now, err = p.envoy.statistics(ctx); err != nil {
				return nil, fmt.Errorf("%s's Envoy: %w", p.name, err)
			}
			time.Sleep(50 * time.Millisecond)
		}
		bad := append(now.counted("skipped_batches_total"), now.counted("closed_connections_total")...)
		for _, name := range slices.Concat([]string{moved}, now.counted("partitions_total"), now.counted("refusals_total"), bad) {
			s.out.step("%-10s %-66s %d", p.name, name, now[name])
		}
		if now[moved] != records {
			broken = append(broken, fmt.Sprintf("the %s's Envoy counted %d of %d records", p.name, now[moved], records))
		}
		if len(bad) > 0 {
			broken = append(broken, fmt.Sprintf("the %s's Envoy skipped batches or closed connections", p.name))
		}
	}
	if s.producer.envoy.spec.Module.Sum != s.consumer.envoy.spec.Module.Sum {
		broken = append(broken, "both Envoys run different modules")
	}
	return broken, nil
}
