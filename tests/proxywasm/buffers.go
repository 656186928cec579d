package proxywasm

// Kinds of buffers.
const (
	bufferDownstream    = 2
	bufferUpstream      = 3
	bufferHTTPBody      = 4
	bufferVM            = 6
	bufferConfiguration = 7
	bufferCallData      = 8
)

// buffer returns what a kind of buffer holds; change is nil where it cannot be edited. What a
// stream has let pass is empty.
func (v *vm) buffer(kind uint32) (b []byte, change func(b []byte), found bool) {
	c := v.stream()
	switch kind {
	case bufferVM, bufferCallData:
		return nil, nil, true
	case bufferConfiguration:
		return v.p.opts.Configuration, nil, v.configuring
	case bufferHTTPBody:
		if v.answer == nil {
			return nil, nil, false
		}
		return v.answer.body, nil, true
	case bufferDownstream:
		if c == nil || !c.showClient {
			return nil, nil, true
		}
		return c.fromClient, func(b []byte) { c.fromClient = b }, true
	case bufferUpstream:
		if c == nil || !c.showUpstream {
			return nil, nil, true
		}
		return c.fromUpstream, func(b []byte) { c.fromUpstream = b }, true
	}
	return nil, nil, false
}

func (v *vm) getBufferBytes(s []uint64) status {
	if u(s[0]) > bufferCallData {
		return badArgument
	}
	b, _, found := v.buffer(u(s[0]))
	if !found {
		return notFound
	}
	from := min(uint64(u(s[1])), uint64(len(b)))
	to := min(uint64(u(s[1]))+uint64(u(s[2])), uint64(len(b)))
	return v.give(b[from:max(from, to)], u(s[3]), u(s[4]))
}

func (v *vm) getBufferStatus(s []uint64) status {
	if u(s[0]) > bufferCallData {
		return badArgument
	}
	b, _, found := v.buffer(u(s[0]))
	if !found {
		return notFound
	}
	if st := v.put32(u(s[1]), uint32(len(b))); st != ok {
		return st
	}
	return v.put32(u(s[2]), 0)
}

// setBufferBytes prepends, appends, or replaces the whole. Nothing else works.
func (v *vm) setBufferBytes(s []uint64) status {
	if u(s[0]) > bufferCallData {
		return badArgument
	}
	b, change, found := v.buffer(u(s[0]))
	if !found {
		return notFound
	}
	data, found := v.text(s[3], s[4])
	if !found {
		return invalidMemory
	}
	from, size := uint64(u(s[1])), uint64(u(s[2]))
	switch {
	case change == nil:
		return badArgument
	case from == 0 && size == 0:
		change(append([]byte(data), b...))
	case from == 0 && size >= uint64(len(b)):
		change([]byte(data))
	case from > 0 && from >= uint64(len(b)):
		change(append(b, data...))
	default:
		return badArgument
	}
	return ok
}
