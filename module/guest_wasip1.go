package main

import (
	"crypto/rand"
	"encoding/binary"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/module/filter"
)

// instance is the module instance's whole state.
var instance = guest{filter: filter.New(rand.Reader)}

// A guest resolves what the exports are given and calls the filter.
type guest struct {
	memory memory
	filter *filter.Filter
}

func (g *guest) configure(ptr, size uint32) abi.Status {
	block, ok := g.memory.bytes(ptr, size)
	if !ok {
		return abi.StatusBadArgument
	}
	c, err := abi.ParseConfig(block)
	if err != nil {
		return abi.StatusBadArgument
	}
	return g.filter.Configure(c)
}

func (g *guest) installLease(ptr, size uint32) abi.Status {
	if !g.filter.Ready() {
		return abi.StatusNotConfigured
	}
	block, ok := g.memory.bytes(ptr, size)
	if !ok {
		return abi.StatusBadArgument
	}
	l, err := abi.ParseLease(block)
	defer clear(l.Node[:])
	if err != nil {
		return abi.StatusBadArgument
	}
	return g.filter.InstallLease(&l)
}

func (g *guest) installRoot(ptr, size uint32) abi.Status {
	if !g.filter.Ready() {
		return abi.StatusNotConfigured
	}
	block, ok := g.memory.bytes(ptr, size)
	if !ok {
		return abi.StatusBadArgument
	}
	r, err := abi.ParseRoot(block)
	defer clear(r.Root[:])
	if err != nil {
		return abi.StatusBadArgument
	}
	return g.filter.InstallRoot(&r)
}

func (g *guest) erase(ptr, size uint32) abi.Status {
	if !g.filter.Ready() {
		return abi.StatusNotConfigured
	}
	block, ok := g.memory.bytes(ptr, size)
	if !ok || len(block)%abi.KidSize != 0 {
		return abi.StatusBadArgument
	}
	kids := make([]abi.Kid, len(block)/abi.KidSize)
	for i := range kids {
		kids[i] = abi.Kid(block[i*abi.KidSize:])
	}
	return g.filter.Erase(kids)
}

func (g *guest) sealBatch(buf, size, capacity, topic, topicSize, partition uint32, now uint64, result uint32) abi.Status {
	c, s := g.batch(buf, size, capacity, topic, topicSize, result)
	if s != abi.StatusOK {
		return s
	}
	r, s := g.filter.SealBatch(c.buf, int(size), c.topic, int32(partition), now)
	return c.answer(r, s)
}

func (g *guest) openBatch(buf, size, capacity, topic, topicSize, partition uint32, _ uint64, result uint32) abi.Status {
	c, s := g.batch(buf, size, capacity, topic, topicSize, result)
	if s != abi.StatusOK {
		return s
	}
	r, s := g.filter.OpenBatch(c.buf, int(size), c.topic, int32(partition))
	return c.answer(r, s)
}

// A batchCall is the memory that one call to seal or open names.
type batchCall struct {
	buf, topic, result []byte
}

// batch resolves the arguments that sealing and opening share. Neither topic nor result may
// overlap the buffer, which is rewritten while they are needed.
func (g *guest) batch(buf, size, capacity, topic, topicSize, result uint32) (batchCall, abi.Status) {
	var c batchCall
	if !g.filter.Ready() {
		return c, abi.StatusNotConfigured
	}
	var okBuf, okTopic, okResult bool
	c.buf, okBuf = g.memory.bytes(buf, capacity)
	c.topic, okTopic = g.memory.bytes(topic, topicSize)
	c.result, okResult = g.memory.bytes(result, abi.ResultSize)
	if !okBuf || !okTopic || !okResult || size > capacity ||
		overlap(buf, capacity, topic, topicSize) || overlap(buf, capacity, result, abi.ResultSize) {
		return c, abi.StatusBadArgument
	}
	return c, abi.StatusOK
}

// answer writes the result block, where the call was one (SPEC.md §3.8).
func (c *batchCall) answer(r abi.Result, s abi.Status) abi.Status {
	if s != abi.StatusBadArgument {
		r.Put(c.result)
	}
	return s
}

func overlap(a, aSize, b, bSize uint32) bool {
	return uint64(a) < uint64(b)+uint64(bSize) && uint64(b) < uint64(a)+uint64(aSize)
}

// counters writes as many counters as fit, least significant byte first.
func (g *guest) counters(ptr, size uint32) abi.Status {
	out, ok := g.memory.bytes(ptr, size)
	if !ok || len(out)%8 != 0 {
		return abi.StatusBadArgument
	}
	for _, v := range g.filter.Counters() {
		if len(out) == 0 {
			break
		}
		binary.LittleEndian.PutUint64(out, v)
		out = out[8:]
	}
	return abi.StatusOK
}
