package abi_test

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func protocol(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("PROTOCOL.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// vector returns the hexadecimal value of a line "name =value" in PROTOCOL.md §2.3, below
// the line that starts with after.
func vector(t *testing.T, after, name string) []byte {
	t.Helper()
	_, text, ok := strings.Cut(section(t, protocol(t), "### 2.3"), "\n"+after)
	m := regexp.MustCompile(`(?m)^ *` + name + ` *=([0-9a-f]+)`).FindStringSubmatch(text)
	if !ok || m == nil {
		t.Fatalf("PROTOCOL.md §2.3 has no %s below %q", name, after)
	}
	b, err := hex.DecodeString(m[1])
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// counting returns n bytes that count up from first.
func counting(first byte, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = first + byte(i)
	}
	return b
}

// The tree and the AEAD of the vectors need ChaCha20, which is not in the standard library;
// module/ratchet and module/filter hold them.
func TestProtocolsKeyHierarchyAndContextsFollowItsVectors(t *testing.T) {
	expand := func(key []byte, info string) []byte {
		b, err := hkdf.Expand(sha256.New, key, info, 32)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	const topic = "\x00\x06orders"
	ctx := string(counting(0x20, 16)) + string(counting(0x30, 16)) + string(counting(0x40, 16)) + "\x00\x00\x00\x07" + topic
	ts := expand(counting(0, 32), "KX1 topic v1\x00"+ctx)
	commit := expand(ts, "KX1 commit v1\x00"+ctx)
	kid := sha256.Sum256(append([]byte("KX1 kid v1\x00"), commit...))
	pctx := sha256.Sum256([]byte("KX1 part v1\x00" + topic + "\x00\x00\x00\x03"))
	salt := counting(0x50, 8)

	packed := bytes.Join([][]byte{{0xE2, 0x10}, kid[:8], {0, 0, 2}, {0, 0, 0, 1}, salt}, nil)
	plain := binary.BigEndian.AppendUint64([]byte{0}, 1700000000000)
	plain = binary.BigEndian.AppendUint64(plain, 1700000000000)
	plain = append(plain, vector(t, "packed:", "records")...)
	record := bytes.Join([][]byte{{0xE1, 0x10}, kid[:8], {0, 0, 1}, {0, 2}, salt}, nil)
	for _, c := range []struct {
		after, name string
		want        []byte
	}{
		{"es=", "ts", ts},
		{"es=", "commit", commit},
		{"es=", "kid", kid[:8]},
		{"es=", "root", expand(ts, "KX1 root v1\x00"+ctx+string(commit))},
		{"es=", "pctx", pctx[:]},
		{"packed:", "nonce", bytes.Join([][]byte{salt, make([]byte, 12), {0xff, 0xff, 0xff, 0xff}}, nil)},
		{"packed:", "plain", plain},
		{"packed:", "aad", bytes.Join([][]byte{[]byte("KX1 pkt v1\x00"), packed, pctx[:]}, nil)},
		{"record:", "nonce", bytes.Join([][]byte{salt, make([]byte, 12), {0, 0, 0, 2}}, nil)},
		{"record:", "aad", bytes.Join([][]byte{[]byte("KX1 rec v1\x00"), record, pctx[:], []byte("\x00\x00\x00\x02k1\x00\x00\x00\x00")}, nil)},
	} {
		if got := vector(t, c.after, c.name); !bytes.Equal(got, c.want) {
			t.Errorf("%s %s is %x in PROTOCOL.md §2.3, and %x by its definition", c.after, c.name, got, c.want)
		}
	}
	if value := vector(t, "packed:", "value"); !bytes.HasPrefix(value, packed) || len(value) != len(packed)+len(plain)+16 {
		t.Errorf("the packed value %x is not header, ciphertext of %d bytes and tag", value, len(plain))
	}
	if value := vector(t, "record:", "value"); !bytes.HasPrefix(value, record) || len(value) != len(record)+len("hello")+16 {
		t.Errorf("the record value %x is not header, ciphertext of 5 bytes and tag", value)
	}
}

// hasSection reports whether text has the heading of a section "2.4", or, for "2.8.4", that
// section with an item of that number.
func hasSection(text, number string) bool {
	heading := func(number string) int {
		loc := regexp.MustCompile(`(?m)^##+ ` + regexp.QuoteMeta(number) + `\.? `).FindStringIndex(text)
		if loc == nil {
			return -1
		}
		return loc[1]
	}
	if heading(number) >= 0 {
		return true
	}
	parent := number[:max(strings.LastIndexByte(number, '.'), 0)]
	start := heading(parent)
	if parent == "" || start < 0 {
		return false
	}
	body, _, _ := strings.Cut(text[start:], "\n#")
	return strings.Contains(body, "\n"+number[len(parent)+1:]+". ")
}

func TestCitedSectionsExist(t *testing.T) {
	documents := map[string]string{"PROTOCOL.md": protocol(t), "SPEC.md": spec(t)}
	citation := regexp.MustCompile(`(PROTOCOL\.md|SPEC\.md)((?:,? (?:and |to )?§\d+(?:\.\d+)*)+)`)
	number := regexp.MustCompile(`\d+(?:\.\d+)*`)
	wrapped := regexp.MustCompile(`\n\s*(?://\s*)?`)
	seen := 0
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "build" || d.Name() == ".git") {
			return filepath.SkipDir
		}
		if ext := filepath.Ext(path); d.IsDir() || ext != ".go" && ext != ".md" {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range citation.FindAllStringSubmatch(wrapped.ReplaceAllString(string(b), " "), -1) {
			for _, n := range number.FindAllString(m[2], -1) {
				seen++
				if !hasSection(documents[m[1]], n) {
					t.Errorf("%s cites %s §%s, which does not exist", path, m[1], n)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen == 0 {
		t.Error("found no citation at all")
	}
}
