package demo

import (
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

// A screen writes lines, coloured where a person looks at a terminal.
type screen struct {
	w     io.Writer
	color bool
	gone  func(error) // called where nobody reads any longer
}

func newScreen(w io.Writer, gone func(error)) *screen {
	s := &screen{w: w, gone: gone}
	if f, ok := w.(*os.File); ok && os.Getenv("NO_COLOR") == "" {
		if info, err := f.Stat(); err == nil {
			s.color = info.Mode()&os.ModeCharDevice != 0
		}
	}
	return s
}

const (
	bold  = "\x1b[1m"
	dim   = "\x1b[2m"
	red   = "\x1b[31m"
	green = "\x1b[32m"
	blue  = "\x1b[36m"
	reset = "\x1b[0m"
)

func (s *screen) paint(color, text string) string {
	if !s.color {
		return text
	}
	return color + text + reset
}

// Write passes log lines through.
func (s *screen) Write(b []byte) (int, error) { return s.w.Write(b) }

func (s *screen) line(text string) {
	if _, err := fmt.Fprintln(s.w, text); err != nil {
		s.gone(err)
	}
}
func (s *screen) title(text string)               { s.line("\n" + s.paint(bold, text) + "\n") }
func (s *screen) step(format string, args ...any) { s.line("  " + fmt.Sprintf(format, args...)) }
func (s *screen) note(format string, args ...any) {
	s.line(s.paint(blue, "  -- "+fmt.Sprintf(format, args...)))
}

// Widths of the three columns in characters.
const (
	sentWidth   = 30
	storedWidth = 58
)

func (s *screen) header() {
	s.line(s.paint(bold, "  "+pad("PRODUCER SENT", sentWidth)+"  "+pad("BROKER HOLDS", storedWidth)+"  CONSUMER RECEIVED"))
}

// row shows one order at the three places; i is its index in its batch.
func (s *screen) row(o *order, i int, stored *kgo.Record) {
	middle := "  (inside the value above; a stub keeps its offset)"
	if i == 0 {
		middle = describe(stored)
	}
	mark := s.paint(green, "equal")
	if o.received != o.value {
		mark = s.paint(red, "DIFFERS")
	}
	s.line("  " + pad(o.value, sentWidth) + "  " + s.paint(dim, pad(middle, storedWidth)) + "  " + pad(o.received, sentWidth) + " " + mark)
}

// describe shows what the broker stores for one batch: place, decoded header, ciphertext.
func describe(r *kgo.Record) string {
	place := fmt.Sprintf("%d@%d ", r.Partition, r.Offset)
	header, err := wire.ParsePackedHeader(r.Value)
	if err != nil {
		return place + fmt.Sprintf("NOT SEALED %q", r.Value)
	}
	ciphertext := r.Value[wire.PackedHeaderSize:]
	return place + fmt.Sprintf("kid %x leaf %d n %d | % x…", header.Kid[:4], header.Leaf, header.NumRecords, ciphertext[:min(8, len(ciphertext))])
}

func pad(text string, width int) string {
	n := utf8.RuneCountInString(text)
	if n > width {
		return string([]rune(text)[:width-1]) + "…"
	}
	return text + strings.Repeat(" ", width-n)
}
