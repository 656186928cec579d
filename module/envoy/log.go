package envoy

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"

	"github.com/wasm-e2ee/wasm-e2ee/abi/plugin"
)

// Clients repeat what was refused many times a second; the log says it once a minute.
const (
	quietTime = 60_000 // ms
	maxQuiet  = 1024   // subjects remembered,
	maxName   = 512    // in so many bytes each
)

// log writes one line as the sidecar does: a message, and pairs of a key and a value.
func (v *VM) log(level plugin.Level, message string, pairs ...any) {
	var b strings.Builder
	b.WriteString(message)
	for i := 0; i+1 < len(pairs); i += 2 {
		fmt.Fprintf(&b, " %v=%s", pairs[i], quoted(fmt.Sprint(pairs[i+1])))
	}
	v.host.Log(level, b.String())
}

// quoted is a value as it stands in a line: in quotes where a reader could take it for more
// than one value, or for another line.
func quoted(s string) string {
	plain := s != ""
	for _, r := range s {
		plain = plain && r > ' ' && r != '"' && r != '=' && r != unicode.ReplacementChar && unicode.IsPrint(r)
	}
	if plain {
		return s
	}
	return strconv.Quote(s)
}

// A rateLimit decides which repetitions are logged.
type rateLimit struct{ last map[string]uint64 }

// allow reports whether subject was not allowed within the last minute.
func (r *rateLimit) allow(subject string, now uint64) bool {
	subject = strings.Clone(subject[:min(len(subject), maxName)])
	if at, ok := r.last[subject]; ok && now-at < quietTime {
		return false
	}
	if r.last == nil || len(r.last) >= maxQuiet {
		r.last = map[string]uint64{} // forgetting costs a repeated line
	}
	r.last[subject] = now
	return true
}
