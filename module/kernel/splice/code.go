package splice

import (
	"errors"
	"fmt"
)

// errImportNamed says that an import's number stands where only calls are rewritten. Go's
// linker puts none there.
var errImportNamed = errors.New("an imported function is named outside of a call")

func (s *splicer) checkExports(body []byte) ([]byte, error) {
	r := reader{rest: body}
	for range r.uint() {
		r.sized()
		if kind, index := r.byte(), r.uint(); kind == 0 && index < s.imported {
			return nil, errImportNamed
		}
		if r.bad {
			break
		}
	}
	return body, r.end()
}

func (s *splicer) checkStart(body []byte) ([]byte, error) {
	r := reader{rest: body}
	if r.uint() < s.imported {
		return nil, errImportNamed
	}
	return body, r.end()
}

// checkElements takes the one form of segment that Go's linker writes: functions of table 0
// from a constant offset on.
func (s *splicer) checkElements(body []byte) ([]byte, error) {
	r := reader{rest: body}
	for range r.uint() {
		if r.uint() != 0 || r.byte() != 0x41 {
			return nil, ErrMalformed
		}
		r.skipLEB(5)
		if r.byte() != 0x0b {
			return nil, ErrMalformed
		}
		for range r.uint() {
			if r.uint() < s.imported {
				return nil, errImportNamed
			}
			if r.bad {
				break
			}
		}
		if r.bad {
			break
		}
	}
	return body, r.end()
}

// code rewrites the calls of imports and puts the kernel's bodies around the others.
func (s *splicer) code(body []byte) ([]byte, error) {
	r := reader{rest: body}
	if r.uint() != s.defined {
		return nil, ErrMalformed
	}
	out := make([]byte, 0, len(body)+16<<10)
	out = appendUint(out, s.defined+uint32(len(s.functions)))
	for _, f := range s.functions[:s.named()] {
		out = append(appendUint(out, uint32(len(f.Body))), f.Body...)
	}
	for i := range s.defined {
		function := r.sized()
		if r.bad {
			return nil, ErrMalformed
		}
		patched, err := s.patch(function)
		if err != nil {
			return nil, fmt.Errorf("function %d: %w", s.imported+i, err)
		}
		out = append(appendUint(out, uint32(len(patched))), patched...)
	}
	for _, f := range s.functions[s.named():] {
		out = append(appendUint(out, uint32(len(f.Body))), f.Body...)
	}
	return out, r.end()
}

// patch returns a function's body with its calls of imports renumbered; the body itself where
// it has none.
func (s *splicer) patch(body []byte) ([]byte, error) {
	r := reader{rest: body}
	for range r.uint() { // groups of locals
		r.uint()
		r.byte()
		if r.bad {
			return nil, ErrMalformed
		}
	}
	var out []byte
	copied := 0
	for len(r.rest) > 0 {
		opcode := r.byte()
		if opcode != opCall {
			if err := r.immediates(opcode); err != nil {
				return nil, err
			}
			continue
		}
		at := len(body) - len(r.rest)
		if index := r.uint(); index < s.imported && !r.bad {
			out = append(out, body[copied:at]...)
			out = appendUint(out, s.moved[index])
			copied = len(body) - len(r.rest)
		}
	}
	if err := r.err(); err != nil {
		return nil, err
	}
	if copied == 0 {
		return body, nil
	}
	return append(out, body[copied:]...), nil
}

const opCall = 0x10

// immediates passes over what follows an opcode (WebAssembly specification 2.0, §5.4). What
// Go's compiler does not emit is an error.
func (r *reader) immediates(opcode byte) error {
	switch {
	case opcode >= 0x45 && opcode <= 0xc4, // numeric
		opcode <= 0x01, opcode == 0x05, opcode == 0x0b, opcode == 0x0f, // unreachable, nop, else, end, return
		opcode == 0x1a, opcode == 0x1b: // drop, select
	case opcode >= 0x02 && opcode <= 0x04: // block, loop, if
		r.skipLEB(5)
	case opcode == 0x0c, opcode == 0x0d, // br, br_if
		opcode >= 0x20 && opcode <= 0x24, // local and global
		opcode == 0x3f, opcode == 0x40:   // memory.size, memory.grow
		r.uint()
	case opcode == 0x0e: // br_table
		for range r.uint() {
			if r.uint(); r.bad {
				break
			}
		}
		r.uint()
	case opcode == 0x11, // call_indirect
		opcode >= 0x28 && opcode <= 0x3e: // loads and stores
		r.uint()
		r.uint()
	case opcode == 0x41: // i32.const
		r.skipLEB(5)
	case opcode == 0x42: // i64.const
		r.skipLEB(10)
	case opcode == 0x43: // f32.const
		r.take(4)
	case opcode == 0x44: // f64.const
		r.take(8)
	case opcode == 0xfc:
		switch sub := r.uint(); {
		case sub <= 7: // saturating conversions
		case sub == 10: // memory.copy
			r.take(2)
		case sub == 11: // memory.fill
			r.byte()
		default:
			return fmt.Errorf("instruction 0xfc %d is not known", sub)
		}
	default:
		return fmt.Errorf("instruction %#x is not known", opcode)
	}
	return r.err()
}
