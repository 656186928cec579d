package records

import (
	"path/filepath"
	"testing"
)

var everything = Shape{Partitions: 3, Binary: true, Headers: true, NullHeaders: true, NullKeys: true,
	EmptyKeys: true, NullValues: true, EmptyValues: true, Timestamps: true}

func TestFilesKeepEveryRecord(t *testing.T) {
	sent := Generate(1, 500, everything, NewCanaries())
	next := map[int32]int64{}
	for i := range sent {
		sent[i].Offset = next[sent[i].Partition]
		next[sent[i].Partition]++
	}
	path := filepath.Join(t.TempDir(), "records")
	if err := WriteFile(path, sent); err != nil {
		t.Fatal(err)
	}
	got, err := ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := Compare(sent, got, Times{}, false); err != nil {
		t.Fatal(err)
	}
	if err := Same(sent, got); err != nil {
		t.Fatal(err)
	}
}

// A comparison that cannot fail proves nothing: each kind of damage is seen.
func TestEveryDifferenceIsSeen(t *testing.T) {
	fresh := func() []Record {
		all := Generate(2, 90, everything, NewCanaries())
		for i := range all {
			all[i].Offset = int64(i / 3)
		}
		return all
	}
	sent := fresh()
	damage := map[string]func(all []Record) []Record{
		"lost":              func(a []Record) []Record { return a[:len(a)-1] },
		"lost in between":   func(a []Record) []Record { return append(a[:40:40], a[41:]...) },
		"twice":             func(a []Record) []Record { return append(a, a[len(a)-1]) },
		"out of order":      func(a []Record) []Record { a[3], a[6] = a[6], a[3]; return a },
		"key":               func(a []Record) []Record { a[5].Key = append(a[5].Key, 'x'); return a },
		"value":             func(a []Record) []Record { a[5].Value = append(a[5].Value, 'x'); return a },
		"timestamp":         func(a []Record) []Record { a[5].Timestamp++; return a },
		"header":            func(a []Record) []Record { a[5].Headers = append(a[5].Headers, Header{Name: "x"}); return a },
		"offset":            func(a []Record) []Record { a[5].Offset++; return a },
		"another partition": func(a []Record) []Record { a[89].Partition = 7; return a },
		"empty for null": func(a []Record) []Record {
			for i := range a {
				if a[i].Value == nil {
					a[i].Value = []byte{}
				}
			}
			return a
		},
	}
	for name, harm := range damage {
		again := append([]Record(nil), sent...)
		if err := Compare(sent, harm(again), Times{}, false); err == nil {
			t.Errorf("%s: no difference seen", name)
		}
	}
}
