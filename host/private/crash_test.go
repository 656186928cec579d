package private

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// writerPath has this test binary be the process that is killed.
const writerPath = "WASM_E2EE_TEST_WRITER"

func TestMain(m *testing.M) {
	if path := os.Getenv(writerPath); path != "" {
		write(path)
	}
	os.Exit(m.Run())
}

// generation is a content that shows whether it is whole.
func generation(n uint64) []byte {
	return bytes.Repeat(binary.BigEndian.AppendUint64(nil, n), 8<<10)
}

// write replaces the file for ever, and says after each time which content is there.
func write(path string) {
	for n := uint64(1); ; n++ {
		err := RemoveStale(path)
		if err == nil {
			err = Replace(path, generation(n))
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(n)
	}
}

func TestKilledWriterLeavesTheOldOrTheNew(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	stale := 0
	for range 25 {
		path := filepath.Join(t.TempDir(), "state")
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), writerPath+"="+path)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		said := uint64(0)
		lines := bufio.NewScanner(out)
		for limit := 1 + random.Uint64N(8); said < limit && lines.Scan(); {
			fmt.Sscan(lines.Text(), &said)
		}
		time.Sleep(time.Duration(random.Int64N(int64(3 * time.Millisecond)))) // somewhere in the next write
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for lines.Scan() { // what it said before it died
			fmt.Sscan(lines.Text(), &said)
		}
		_ = cmd.Wait() // it was killed
		content, err := Read(path, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		held := binary.BigEndian.Uint64(content)
		if !bytes.Equal(content, generation(held)) {
			t.Fatal("the file is not whole")
		}
		if said == 0 || held != said && held != said+1 {
			t.Errorf("content %d after %d was said to be on disk", held, said)
		}
		if _, err := os.Stat(temporary(path)); err == nil {
			stale++
		}
		if err := RemoveStale(path); err != nil {
			t.Fatal(err)
		}
		if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
			t.Errorf("%d files after a start, %v", len(entries), err)
		}
	}
	t.Logf("%d of 25 died between creating and renaming", stale)
}
