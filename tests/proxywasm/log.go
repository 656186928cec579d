package proxywasm

import (
	"fmt"
	"strings"
	"sync"
)

// A Level is the level of a log line, as proxy_log counts them.
type Level uint32

// The levels of proxy_log.
const (
	LevelTrace Level = iota
	LevelDebug
	LevelInfo
	LevelWarn
	LevelError
	LevelCritical
)

func (l Level) String() string {
	return [...]string{"trace", "debug", "info", "warn", "error", "critical"}[min(l, LevelCritical)]
}

// A Line is what a machine, or the host about it, logged.
type Line struct {
	Level Level
	Text  string
}

func (l Line) String() string { return fmt.Sprintf("[%v] %s", l.Level, l.Text) }

// maxLines bounds what is kept; the oldest lines go first.
const maxLines = 1 << 14

type log struct {
	mu    sync.Mutex
	level Level
	lines []Line
}

func (l *log) add(level Level, text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if level < l.level {
		return
	}
	if len(l.lines) == maxLines {
		l.lines = append(l.lines[:0], l.lines[maxLines/2:]...)
	}
	l.lines = append(l.lines, Line{level, text})
}

// Log returns the lines so far.
func (p *Proxy) Log() []Line {
	p.log.mu.Lock()
	defer p.log.mu.Unlock()
	return append([]Line(nil), p.log.lines...)
}

// Logged counts the lines with text in them.
func (p *Proxy) Logged(text string) (n int) {
	for _, line := range p.Log() {
		if strings.Contains(line.Text, text) {
			n++
		}
	}
	return n
}
