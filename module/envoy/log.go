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
	maxName   = 512    // in so many bytes each: peers choose some
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

// event writes what happened to a key, a partition or a group, in the sidecar's words.
func (v *VM) event(e Event) {
	if !v.quiet.allow(e.Subject(), v.host.Now()) {
		return
	}
	level := plugin.LevelInfo
	if e.Warning() {
		level = plugin.LevelWarn
	}
	v.host.Log(level, e.String())
}

// A rateLimit decides which repetitions are logged. Its zero value has allowed none.
type rateLimit struct{ last map[any]uint64 }

// allow reports whether a subject, which is comparable, was not allowed within the last
// minute. Of a text that somebody else chose the beginning counts.
func (r *rateLimit) allow(subject any, now uint64) bool {
	if text, ok := subject.(string); ok {
		subject = strings.Clone(text[:min(len(text), maxName)])
	}
	if at, ok := r.last[subject]; ok && now-at < quietTime {
		return false
	}
	if r.last == nil || len(r.last) >= maxQuiet {
		r.last = map[any]uint64{} // forgetting costs a repeated line
	}
	r.last[subject] = now
	return true
}
