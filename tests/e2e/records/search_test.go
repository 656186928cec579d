package records

import (
	"bytes"
	"io"
	"testing"
)

func TestSearchFindsTextsAcrossWrites(t *testing.T) {
	data := []byte("..needle..needleneedle.pin.needl")
	for size := 1; size <= len(data); size++ {
		s := SearchFor("needle", "pin", "absent")
		for rest := data; len(rest) > 0; rest = rest[min(size, len(rest)):] {
			io.Copy(s, bytes.NewReader(rest[:min(size, len(rest))]))
		}
		if s.Hits[0] != 3 || s.Hits[1] != 1 || s.Hits[2] != 0 || s.Size != int64(len(data)) {
			t.Errorf("writes of %d B: %v of %v in %d B", size, s.Hits, s.Texts, s.Size)
		}
	}
}
