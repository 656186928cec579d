package simd

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/chacha20poly1305"
)

// TestKernelInV8IsTheReadyMade compares every length to 4096 and some beyond with x/crypto and
// hash/crc32; testdata/check.js says what else it looks at.
func TestKernelInV8IsTheReadyMade(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("no V8 (hint: install Node)")
		}
		t.Skip("no V8 (hint: install Node)")
	}
	module := filepath.Join(t.TempDir(), "kernel.wasm")
	if err := os.WriteFile(module, bare(), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(node, "testdata/check.js", module,
		fmt.Sprint(atScratch), fmt.Sprint(atTable), fmt.Sprint(atKeys), fmt.Sprint(atAAD), fmt.Sprint(atBuffer))
	var table, stderr bytes.Buffer
	if err := binary.Write(&table, binary.LittleEndian, Table()); err != nil {
		t.Fatal(err)
	}
	cmd.Stdin, cmd.Stderr = &table, &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	pattern := make([]byte, 1<<20)
	for i := range pattern {
		pattern[i] = byte(i*31 + 7)
	}
	aead, err := chacha20poly1305.NewX(pattern[:32])
	if err != nil {
		t.Fatal(err)
	}
	castagnoli := crc32.MakeTable(crc32.Castagnoli)
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) != 4100 {
		t.Fatalf("%d lengths", len(lines))
	}
	for _, line := range lines {
		var n int
		if _, err := fmt.Sscan(line, &n); err != nil {
			t.Fatal(err)
		}
		sealed := aead.Seal(nil, pattern[32:56], pattern[:n], pattern[:70])
		want := fmt.Sprintf("%d %x %d", n, sha256.Sum256(sealed), crc32.Checksum(pattern[:n], castagnoli))
		if line != want {
			t.Errorf("V8 has %s, want %s", line, want)
		}
	}
}
