package e2e

import (
	"bytes"
	"io"
	"testing"

	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/records"
)

// A search counts texts in what is written to it, across the borders of writes.
type search struct {
	texts []string
	hits  []int
	size  int64
	keep  []byte // the end of what was seen: one byte less than the longest text
}

func searchFor(texts ...string) *search {
	return &search{texts: texts, hits: make([]int, len(texts))}
}

func (s *search) Write(b []byte) (int, error) {
	s.size += int64(len(b))
	longest := 0
	for i, text := range s.texts {
		longest = max(longest, len(text))
		s.hits[i] += bytes.Count(b, []byte(text))
		// Those that begin before b and end in it.
		before := s.keep[max(0, len(s.keep)-len(text)+1):]
		after := b[:min(len(b), len(text)-1)]
		s.hits[i] += bytes.Count(append(bytes.Clone(before), after...), []byte(text)) - bytes.Count(after, []byte(text)) - bytes.Count(before, []byte(text))
	}
	s.keep = append(s.keep, b...)
	s.keep = bytes.Clone(s.keep[max(0, len(s.keep)-longest+1):])
	return len(b), nil
}

// parts are the places that canaries are put into.
var parts = []string{"key", "value", "header name", "header value"}

func searchCanaries(c records.Canaries) *search {
	return searchFor(c.Key, c.Value, c.HeaderName, c.HeaderValue)
}

// add searches records as a consumer gets them, each canary everywhere.
func (s *search) add(all []records.Record) {
	for i := range all {
		s.Write(records.Append(nil, &all[i]))
	}
}

func TestSearchFindsTextsAcrossWrites(t *testing.T) {
	data := []byte("..needle..needleneedle.pin.needl")
	for size := 1; size <= len(data); size++ {
		s := searchFor("needle", "pin", "absent")
		for rest := data; len(rest) > 0; rest = rest[min(size, len(rest)):] {
			io.Copy(s, bytes.NewReader(rest[:min(size, len(rest))]))
		}
		if s.hits[0] != 3 || s.hits[1] != 1 || s.hits[2] != 0 || s.size != int64(len(data)) {
			t.Errorf("writes of %d B: %v of %v in %d B", size, s.hits, s.texts, s.size)
		}
	}
}
