package records

import "bytes"

// A Search counts texts in what is written to it, across the borders of writes.
type Search struct {
	Texts []string
	Hits  []int
	Size  int64  // bytes written
	keep  []byte // the end of what was seen: one byte less than the longest text
}

// SearchFor begins a search.
func SearchFor(texts ...string) *Search {
	return &Search{Texts: texts, Hits: make([]int, len(texts))}
}

func (s *Search) Write(b []byte) (int, error) {
	s.Size += int64(len(b))
	longest := 0
	for i, text := range s.Texts {
		longest = max(longest, len(text))
		s.Hits[i] += bytes.Count(b, []byte(text))
		// Those that begin before b and end in it.
		before := s.keep[max(0, len(s.keep)-len(text)+1):]
		after := b[:min(len(b), len(text)-1)]
		s.Hits[i] += bytes.Count(append(bytes.Clone(before), after...), []byte(text)) - bytes.Count(after, []byte(text)) - bytes.Count(before, []byte(text))
	}
	s.keep = append(s.keep, b...)
	s.keep = bytes.Clone(s.keep[max(0, len(s.keep)-longest+1):])
	return len(b), nil
}

// Parts are the places that canaries are put into.
var Parts = []string{"key", "value", "header name", "header value"}

// Search begins a search for the canaries, in the order of Parts.
func (c Canaries) Search() *Search {
	return SearchFor(c.Key, c.Value, c.HeaderName, c.HeaderValue)
}

// Add searches records as a consumer gets them, each canary everywhere.
func (s *Search) Add(all []Record) {
	for i := range all {
		s.Write(Append(nil, &all[i]))
	}
}
