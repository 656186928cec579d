// Package splice puts the kernel of package simd into a linked WebAssembly module: each
// import from the module "kernel" becomes a function of that name, and so does WASI's
// poll_oneoff (see noWait). Nothing else of the module changes, and the same module gives the
// same bytes.
//
// Functions are numbered imports first. The kernel's come to stand first among the
// definitions, so that every definition that the module had keeps its number, and with it
// tables, exports and calls between them. What moves are imports after the first of the
// kernel's, which the module names in calls alone. The kernel's own helpers come last.
package splice

import (
	"errors"
	"fmt"
	"slices"

	"github.com/wasm-e2ee/wasm-e2ee/module/kernel/simd"
)

// Sections (WebAssembly specification 2.0, §5.5.2) that have to do with functions.
const (
	sectionType     = 1
	sectionImport   = 2
	sectionFunction = 3
	sectionExport   = 7
	sectionStart    = 8
	sectionElement  = 9
	sectionCode     = 10
)

// ErrMalformed says that the module is none, or ends early.
var ErrMalformed = errors.New("not a WebAssembly module that a linker wrote")

// ErrNoKernel says that a module imports nothing from the kernel.
var ErrNoKernel = errors.New("nothing is imported from the kernel (hint: build with -tags=simd)")

const header = "\x00asm\x01\x00\x00\x00"

type section struct {
	id   byte
	body []byte
}

// A splicer holds what the sections must agree on.
type splicer struct {
	functions []simd.Function
	types     uint32         // of the module as it came
	imported  uint32         // functions imported as it came
	defined   uint32         // functions defined as it came
	moved     []uint32       // new number of each imported function
	typeOf    []uint32       // type of each of functions
	signature map[string]int // signatures of the module's types, to the first of them
	added     [][]byte       // types that the helpers need beside those
	indexes   []uint32       // types of the module's own definitions
}

// Splice returns module with the kernel in the place of its imports. A module that imports
// nothing from the kernel, a name that it does not have, or one with another signature is
// an error.
func Splice(module []byte) ([]byte, error) {
	sections, err := split(module)
	if err != nil {
		return nil, err
	}
	s := &splicer{}
	steps := []struct {
		id byte
		do func([]byte) ([]byte, error)
	}{
		{sectionType, s.readTypes},
		{sectionFunction, s.readFunctions},
		{sectionImport, s.imports},
		{sectionType, s.addTypes},
		{sectionFunction, s.addFunctions},
		{sectionExport, s.checkExports},
		{sectionStart, s.checkStart},
		{sectionElement, s.checkElements},
		{sectionCode, s.code},
	}
	for _, step := range steps {
		i := slices.IndexFunc(sections, func(x section) bool { return x.id == step.id })
		if i < 0 {
			if step.id == sectionStart || step.id == sectionElement || step.id == sectionExport {
				continue
			}
			return nil, fmt.Errorf("section %d is missing: %w", step.id, ErrMalformed)
		}
		if sections[i].body, err = step.do(sections[i].body); err != nil {
			return nil, fmt.Errorf("section %d: %w", step.id, err)
		}
	}
	out := []byte(header)
	for _, x := range sections {
		out = append(out, x.id)
		out = appendUint(out, uint32(len(x.body)))
		out = append(out, x.body...)
	}
	return out, nil
}

func split(module []byte) ([]section, error) {
	if len(module) < len(header) || string(module[:len(header)]) != header {
		return nil, ErrMalformed
	}
	r := reader{rest: module[len(header):]}
	var sections []section
	seen := map[byte]bool{}
	for len(r.rest) > 0 && !r.bad {
		x := section{id: r.byte(), body: r.sized()}
		if x.id != 0 && seen[x.id] {
			return nil, ErrMalformed
		}
		seen[x.id] = true
		sections = append(sections, x)
	}
	return sections, r.err()
}

func (s *splicer) readTypes(body []byte) ([]byte, error) {
	r := reader{rest: body}
	s.types = r.uint()
	s.signature = map[string]int{}
	for i := range int(s.types) {
		before := r.rest
		if r.byte() != 0x60 {
			return nil, ErrMalformed
		}
		r.sized()
		r.sized()
		if r.bad {
			break
		}
		signature := string(before[:len(before)-len(r.rest)])
		if _, ok := s.signature[signature]; !ok {
			s.signature[signature] = i
		}
	}
	return body, r.end()
}

func (s *splicer) readFunctions(body []byte) ([]byte, error) {
	r := reader{rest: body}
	s.defined = r.uint()
	for range s.defined {
		if s.indexes = append(s.indexes, r.uint()); r.bad {
			break
		}
	}
	return body, r.end()
}

// imports takes the kernel's out, orders its functions as they were imported, and numbers
// the others anew.
func (s *splicer) imports(body []byte) ([]byte, error) {
	r := reader{rest: body}
	n := r.uint()
	var kept []byte
	var numKept, other uint32
	var names []string
	var types []uint32
	for range n {
		before := r.rest
		module, name := string(r.sized()), string(r.sized())
		kind := r.byte()
		var typ uint32
		if kind == 0 {
			typ = r.uint()
		} else {
			r.importOf(kind)
		}
		if r.bad {
			return nil, ErrMalformed
		}
		if (module == simd.Module || module == wasi && name == noWait.Name) && kind == 0 {
			if slices.Contains(names, name) {
				return nil, fmt.Errorf("%s is imported twice", name)
			}
			names, types = append(names, name), append(types, typ)
			s.moved = append(s.moved, 0)
			s.imported++
			continue
		}
		kept = append(kept, before[:len(before)-len(r.rest)]...)
		numKept++
		if kind == 0 {
			s.moved = append(s.moved, other+1) // 0 is for the kernel's
			other++
			s.imported++
		}
	}
	if err := r.end(); err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(names, func(name string) bool { return name != noWait.Name }) {
		return nil, ErrNoKernel
	}
	next := other
	for i, number := range s.moved {
		if number == 0 {
			s.moved[i] = next
			next++
		} else {
			s.moved[i]--
		}
	}
	return append(appendUint(nil, numKept), kept...), s.order(names, types)
}

// order picks the functions that are imported, in that order, and then the helpers.
func (s *splicer) order(names []string, types []uint32) error {
	all := append(simd.Functions(s.imported+s.defined), noWait)
	for i, name := range names {
		at := slices.IndexFunc(all, func(f simd.Function) bool { return f.Name == name && name != "" })
		if at < 0 {
			return fmt.Errorf("the kernel has no %q", name)
		}
		f := all[at]
		if got, ok := s.signature[signature(f)]; !ok || uint32(got) != types[i] {
			return fmt.Errorf("%s is imported with another signature", name)
		}
		s.functions = append(s.functions, f)
		s.typeOf = append(s.typeOf, types[i])
	}
	for _, f := range all {
		if f.Name != "" {
			continue
		}
		at, ok := s.signature[signature(f)]
		if !ok {
			at = int(s.types) + len(s.added)
			s.added = append(s.added, []byte(signature(f)))
			s.signature[signature(f)] = at
		}
		s.functions = append(s.functions, f)
		s.typeOf = append(s.typeOf, uint32(at))
	}
	return nil
}

// signature is a function's type as it stands in the type section.
func signature(f simd.Function) string {
	b := appendUint([]byte{0x60}, uint32(len(f.Params)))
	b = append(b, f.Params...)
	b = appendUint(b, uint32(len(f.Results)))
	return string(append(b, f.Results...))
}

func (s *splicer) addTypes(body []byte) ([]byte, error) {
	r := reader{rest: body}
	r.uint()
	out := append(appendUint(nil, s.types+uint32(len(s.added))), r.rest...)
	return append(out, slices.Concat(s.added...)...), nil
}

// named returns how many of the functions are imported by name.
func (s *splicer) named() int {
	return slices.IndexFunc(s.functions, func(f simd.Function) bool { return f.Name == "" })
}

func (s *splicer) addFunctions([]byte) ([]byte, error) {
	out := appendUint(nil, s.defined+uint32(len(s.functions)))
	for _, t := range slices.Concat(s.typeOf[:s.named()], s.indexes, s.typeOf[s.named():]) {
		out = appendUint(out, t)
	}
	return out, nil
}
