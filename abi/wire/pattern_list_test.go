package wire

import (
	"encoding/hex"
	"errors"
	"slices"
	"testing"
)

func TestListOfPatternsHasOneEncoding(t *testing.T) {
	list := []Pattern{{Name: "billing"}, {Prefix: true, Name: "a"}, {Prefix: true}}
	b := AppendPatterns(nil, list)
	if got, want := hex.EncodeToString(b), "0003"+"00"+"0007"+"62696c6c696e67"+"01"+"0001"+"61"+"01"+"0000"; got != want {
		t.Errorf("%s, by the text %s", got, want)
	}
	if got, err := ParsePatterns(b); err != nil || !slices.Equal(got, list) {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := ParsePatterns([]byte{0, 0}); err != nil || len(got) != 0 {
		t.Errorf("none: %v, %v", got, err)
	}
	for n := range b {
		if _, err := ParsePatterns(b[:n]); !errors.Is(err, ErrMalformed) {
			t.Errorf("cut at %d: %v", n, err)
		}
	}
	if _, err := ParsePatterns(append(b, 0)); !errors.Is(err, ErrMalformed) {
		t.Errorf("with more behind: %v", err)
	}
}
