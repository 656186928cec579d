//go:build linux

package memory

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
)

// Where something is found.
const (
	inLinear  = "linear memory" // of a module instance
	inProcess = "process"       // the Go heap, stacks, globals
	inFiles   = "state directory"
)

// patternSize is how much of a secret counts as a copy of it: half of a key.
const patternSize = 16

// A hit is where a piece of a secret stands.
type hit struct {
	secret *secret
	where  string
	at     uint64 // address, or offset in the file
}

// A needle is one piece of a secret's bytes.
type needle struct {
	bytes  [patternSize]byte
	secret *secret
}

// A search finds pieces of many secrets in one pass: a filter of the first four bytes, then
// a table of the first eight.
type search struct {
	filter [1 << 14]uint64
	by     map[uint64][]needle
}

func newSearch(secrets []*secret) *search {
	s := &search{by: map[uint64][]needle{}}
	for _, x := range secrets {
		for _, form := range x.forms {
			for i := 0; i+patternSize <= len(form); i += patternSize {
				n := needle{bytes: [patternSize]byte(form[i:]), secret: x}
				head := binary.LittleEndian.Uint64(n.bytes[:])
				slot := hash(uint32(head))
				s.filter[slot>>6] |= 1 << (slot & 63)
				s.by[head] = append(s.by[head], n)
			}
		}
	}
	return s
}

func hash(x uint32) uint32 { return x * 0x9E3779B1 >> 12 }

// in calls found for each needle in b.
func (s *search) in(b []byte, found func(offset int, n needle)) {
	for i := 0; i+patternSize <= len(b); i++ {
		slot := hash(binary.LittleEndian.Uint32(b[i:]))
		if s.filter[slot>>6]&(1<<(slot&63)) == 0 {
			continue
		}
		for _, n := range s.by[binary.LittleEndian.Uint64(b[i:])] {
			if n.bytes == [patternSize]byte(b[i:]) {
				found(i, n)
			}
		}
	}
}

// A mapping is a range of a process's address space.
type mapping struct {
	from, to uint64
	where    string
}

// mappings lists the writable mappings of a process. Linear memory is told by its flag:
// the engine keeps it out of core dumps.
func mappings(pid int) ([]mapping, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []mapping
	var writable bool
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		var m mapping
		if len(fields) >= 5 && !strings.HasSuffix(fields[0], ":") {
			if _, err := fmt.Sscanf(fields[0], "%x-%x", &m.from, &m.to); err != nil {
				return nil, err
			}
			m.where = inProcess
			if writable = strings.HasPrefix(fields[1], "rw"); writable {
				out = append(out, m)
			}
		} else if fields[0] == "VmFlags:" && writable && strings.Contains(lines.Text(), " dd") {
			out[len(out)-1].where = inLinear
		}
	}
	return out, lines.Err()
}

// inMemory searches all writable memory of a process, which stands still meanwhile.
func (s *search) inMemory(pid int) (hits []hit, bytes map[string]int64, err error) {
	maps, err := mappings(pid)
	if err != nil {
		return nil, nil, err
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return nil, nil, err
	}
	defer mem.Close()
	pages, err := os.Open(fmt.Sprintf("/proc/%d/pagemap", pid))
	if err != nil {
		return nil, nil, err
	}
	defer pages.Close()
	bytes = map[string]int64{}
	for _, m := range maps {
		present, err := presentRuns(pages, m)
		if err != nil {
			return nil, nil, err
		}
		for _, run := range present {
			b := make([]byte, run.to-run.from)
			if _, err := mem.ReadAt(b, int64(run.from)); err != nil {
				continue // a page that the kernel alone may read
			}
			bytes[m.where] += int64(len(b))
			s.in(b, func(i int, n needle) { hits = append(hits, hit{n.secret, m.where, run.from + uint64(i)}) })
		}
	}
	return hits, bytes, nil
}

// presentRuns are the parts of a mapping that were ever touched: a module's memory reserves
// far more than it uses. Bits 63 and 62 of a page's entry say present and swapped.
func presentRuns(pagemap *os.File, m mapping) ([]mapping, error) {
	page := uint64(os.Getpagesize())
	entries := make([]byte, (m.to-m.from)/page*8)
	if _, err := pagemap.ReadAt(entries, int64(m.from/page*8)); err != nil && err != io.EOF {
		return nil, err
	}
	var out []mapping
	for i := 0; i < len(entries); i += 8 {
		if binary.LittleEndian.Uint64(entries[i:])>>62 == 0 {
			continue
		}
		at := m.from + uint64(i/8)*page
		if n := len(out); n > 0 && out[n-1].to == at {
			out[n-1].to += page
			continue
		}
		out = append(out, mapping{at, at + page, m.where})
	}
	return out, nil
}

// inDirectory searches every file of a directory.
func (s *search) inDirectory(t *testing.T, dir string) (hits []hit) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		b, err := os.ReadFile(dir + "/" + e.Name())
		if os.IsNotExist(err) {
			continue // a temporary file that was renamed meanwhile
		}
		must(t, err)
		s.in(b, func(i int, n needle) { hits = append(hits, hit{n.secret, inFiles, uint64(i)}) })
	}
	return hits
}
