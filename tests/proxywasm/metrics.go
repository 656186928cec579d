package proxywasm

import (
	"maps"
	"sync"
)

// Kinds of metrics, which are also the lower bits of their numbers.
const (
	kindCounter = iota
	kindGauge
	kindHistogram
	kindMask = 3
	kindStep = 4
)

// metrics are the values of a proxy: a name means the same one in every machine, and none of
// them goes with a machine.
type metrics struct {
	mu     sync.Mutex
	values map[string]uint64
}

func (m *metrics) change(name string, f func(old uint64) uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.values == nil {
		m.values = map[string]uint64{}
	}
	m.values[name] = f(m.values[name])
}

// Metrics returns what the machines counted, by the names that they gave. Envoy's /stats shows
// them after "wasmcustom.". Of a histogram it is the number of samples.
func (p *Proxy) Metrics() map[string]uint64 {
	p.metrics.mu.Lock()
	defer p.metrics.mu.Unlock()
	return maps.Clone(p.metrics.values)
}

func (v *vm) defineMetric(kind uint32, name string) (id uint32, s status) {
	if kind > kindHistogram {
		return 0, badArgument
	}
	v.lastMetric[kind] += kindStep
	id = v.lastMetric[kind] | kind
	v.names[id] = name
	v.p.metrics.change(name, func(old uint64) uint64 { return old })
	return id, ok
}

func (v *vm) incrementMetric(id uint32, offset int64) status {
	name, found := v.names[id]
	switch {
	case id&kindMask >= kindHistogram:
		return badArgument
	case !found:
		return notFound
	case id&kindMask == kindCounter && offset <= 0:
		return badArgument
	}
	v.p.metrics.change(name, func(old uint64) uint64 { return old + uint64(offset) })
	return ok
}

// recordMetric sets a gauge, but adds to a counter.
func (v *vm) recordMetric(id uint32, value uint64) status {
	name, found := v.names[id]
	if !found {
		return notFound
	}
	v.p.metrics.change(name, func(old uint64) uint64 {
		switch id & kindMask {
		case kindCounter:
			return old + value
		case kindHistogram:
			return old + 1
		}
		return value
	})
	return ok
}

func (v *vm) getMetric(id uint32) (value uint64, s status) {
	name, found := v.names[id]
	switch {
	case id&kindMask >= kindHistogram:
		return 0, badArgument
	case !found:
		return 0, notFound
	}
	v.p.metrics.change(name, func(old uint64) uint64 { value = old; return old })
	return value, ok
}
