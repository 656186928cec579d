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
	server                *Server
	plane, agent, channel []family
	build                 *prometheus.Desc
}

func newCollector(s *Server) *collector {
	return &collector{server: s, plane: planeFamilies(), agent: agentFamilies(), channel: channelFamilies(),
		build: prometheus.NewDesc(prefix+"build_info", "1, with what runs.", []string{"version", "goversion", "abi"}, nil)}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	out <- c.build
	for _, families := range [][]family{c.plane, c.agent, c.channel} {
		for i := range families {
			out <- families[i].desc
		}
	}
}

// Collect implements prometheus.Collector. Before there is a source it says what runs.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	out <- prometheus.MustNewConstMetric(c.build, prometheus.GaugeValue, 1, version(), runtime.Version(), strconv.Itoa(abi.Version))
	c.server.with(func(src *Source) {
		s := &sample{agent: src.Agent(), at: time.Now()}
		s.ready = !src.Draining() && unready(&s.agent, s.at) == ""
		if src.Plane != nil {
			s.module, s.proxy = src.Plane.Module(), src.Plane.Proxy()
			emit(out, c.plane, s)
		}
		emit(out, c.agent, s)
		if src.Channel != nil {
			s.channel = src.Channel()
			emit(out, c.channel, s)
		}
	})
}

func emit(out chan<- prometheus.Metric, families []family, s *sample) {
	for i := range families {
		f := &families[i]
		f.values(s, func(value float64, labels ...string) {
			out <- prometheus.MustNewConstMetric(f.desc, f.kind, value, labels...)
		})
	}
}

func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
