package wire

import (
	"fmt"
	"strings"
)

// MaxNameLen bounds a topic or group name and a pattern, in bytes. Kafka's limit on
// topics; groups longer than this cannot be named in a credential.
const MaxNameLen = 249

// A Pattern matches names of topics or groups: exactly, or by a prefix.
//
//	1b: 0 exact, 1 prefix
//	2b: length, then the name or prefix (an exact name is not empty)
type Pattern struct {
	Prefix bool
	Name   string
}

// ParsePattern reads a pattern as people write it: "orders", or "orders.*" for every name
// that starts with "orders.".
func ParsePattern(s string) (Pattern, error) {
	name, prefix := strings.CutSuffix(s, "*")
	if len(name) > MaxNameLen || name == "" && !prefix || strings.Contains(name, "*") {
		return Pattern{}, fmt.Errorf("pattern %q: want a name of 1 to %d bytes, or a prefix followed by one *", s, MaxNameLen)
	}
	return Pattern{Prefix: prefix, Name: name}, nil
}

// String writes the pattern as ParsePattern reads it.
func (p Pattern) String() string {
	if p.Prefix {
		return p.Name + "*"
	}
	return p.Name
}

// Match reports whether the pattern covers name.
func (p Pattern) Match(name string) bool {
	if p.Prefix {
		return strings.HasPrefix(name, p.Name)
	}
	return p.Name == name
}

// MatchAny reports whether any of the patterns covers name.
func MatchAny(patterns []Pattern, name string) bool {
	for _, p := range patterns {
		if p.Match(name) {
			return true
		}
	}
	return false
}

// AppendPatterns appends a list of patterns, as a Credential and the lease channel have it:
//
//	2b: count, then each
//	1b: 0 a name, 1 a prefix
//	    the name or prefix, behind its length u16
func AppendPatterns(b []byte, patterns []Pattern) []byte {
	b = append(b, byte(len(patterns)>>8), byte(len(patterns)))
	for _, p := range patterns {
		kind := byte(0)
		if p.Prefix {
			kind = 1
		}
		b = appendString(append(b, kind), p.Name)
	}
	return b
}

// ParsePatterns reads exactly one list of patterns.
func ParsePatterns(b []byte) ([]Pattern, error) {
	r := reader{b: b}
	patterns := r.patterns()
	if err := r.end("patterns"); err != nil {
		return nil, err
	}
	return patterns, nil
}

func (r *reader) patterns() []Pattern {
	n := r.count(1 + 2)
	var out []Pattern
	for range n {
		kind := r.u8()
		p := Pattern{Prefix: kind == 1, Name: r.text(MaxNameLen)}
		if kind > 1 || p.Name == "" && !p.Prefix {
			r.bad = true
		}
		if r.bad {
			return nil
		}
		out = append(out, p)
	}
	return out
}
