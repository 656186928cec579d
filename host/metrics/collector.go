package metrics

import (
	"runtime"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
)

// A collector reads the parts anew at each scrape: nothing is counted twice, and nothing is
// counted here.
type collector struct {
	server   *Server
	families []family
	build    *prometheus.Desc
}

func newCollector(s *Server) *collector {
	return &collector{server: s, families: families(),
		build: prometheus.NewDesc(prefix+"build_info", "1, with what runs.", []string{"version", "goversion", "abi"}, nil)}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	out <- c.build
	for i := range c.families {
		out <- c.families[i].desc
	}
}

// Collect implements prometheus.Collector. Before there is a sidecar it says what runs.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	out <- prometheus.MustNewConstMetric(c.build, prometheus.GaugeValue, 1, version(), runtime.Version(), strconv.Itoa(abi.Version))
	c.server.with(func(src *Source) {
		s := &sample{agent: src.Agent(), module: src.Module(), proxy: src.Proxy(), at: time.Now()}
		s.ready = !src.Draining() && unready(&s.agent, s.at) == ""
		for i := range c.families {
			f := &c.families[i]
			f.values(s, func(value float64, labels ...string) {
				out <- prometheus.MustNewConstMetric(f.desc, f.kind, value, labels...)
			})
		}
	})
}

func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
