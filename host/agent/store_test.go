package agent

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func openStore(t *testing.T, path string) *Store {
	t.Helper()
	s, err := OpenStore(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestSavedStateIsPrivateAndAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	s := openStore(t, path)
	if _, err := s.Load(); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("loading a state that was never written: %v", err)
	}
	for _, want := range [][]byte{[]byte("first"), []byte("a longer second"), {}} {
		if err := s.Save(want); err != nil {
			t.Fatal(err)
		}
		got, err := s.Load()
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("loaded %q, %v; want %q", got, err, want)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 && runtime.GOOS != "windows" {
		t.Fatalf("state file: %v, %v", info.Mode(), err)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != "state" && e.Name() != "state.lock" {
			t.Errorf("left behind: %s", e.Name())
		}
	}
}

func TestReadableStateIsRefused(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no permission bits")
	}
	path := filepath.Join(t.TempDir(), "state")
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := openStore(t, path)
	for _, mode := range []fs.FileMode{0o640, 0o604, 0o620, 0o610} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Load(); err == nil || !strings.Contains(err.Error(), "\nhint: chmod 600") {
			t.Errorf("mode %04o: %v", mode, err)
		}
	}
}

func TestStaleTemporaryFileIsRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	if err := os.WriteFile(path+".tmp", []byte("secrets of a crashed process"), 0o600); err != nil {
		t.Fatal(err)
	}
	openStore(t, path)
	if _, err := os.Stat(path + ".tmp"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("temporary file: %v", err)
	}
}

func TestUnwritableStateIsAnErrorWithAHint(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "absent")
	if _, err := OpenStore(filepath.Join(dir, "state")); err == nil || !strings.Contains(err.Error(), "\nhint: ") {
		t.Fatalf("absent directory: %v", err)
	}

	// A directory in the temporary file's place stops even a test that runs as root.
	path := filepath.Join(t.TempDir(), "state")
	s := openStore(t, path)
	if err := s.Save([]byte("old")); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(path+".tmp/in-the-way", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := s.Save([]byte("new")); err == nil || !strings.Contains(err.Error(), "\nhint: ") {
		t.Fatalf("blocked write: %v", err)
	}
	if got, err := s.Load(); err != nil || string(got) != "old" {
		t.Fatalf("after a failed write: %q, %v", got, err)
	}
}

func TestSecondProcessOnAStateFileIsRefused(t *testing.T) {
	if path := os.Getenv("AGENT_TEST_STATE"); path != "" { // the second process
		if _, err := OpenStore(path); err != nil {
			os.Stdout.WriteString(err.Error())
			os.Exit(3)
		}
		os.Exit(0)
	}
	path := filepath.Join(t.TempDir(), "state")
	s := openStore(t, path)
	second := func() (string, int) {
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), "AGENT_TEST_STATE="+path)
		out, _ := cmd.Output()
		return string(out), cmd.ProcessState.ExitCode()
	}
	if out, code := second(); code != 3 || !strings.Contains(out, "in use by another process") || !strings.Contains(out, "\nhint: ") {
		t.Fatalf("while locked: code %d, %s", code, out)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if out, code := second(); code != 0 {
		t.Fatalf("after release: code %d, %s", code, out)
	}
}

func TestStateBehindASymbolicLinkIsReplacedInPlace(t *testing.T) {
	dir := t.TempDir()
	real, link := filepath.Join(dir, "real"), filepath.Join(dir, "link")
	if err := os.WriteFile(real, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(real, link); err != nil {
		t.Skip("no symbolic links here:", err)
	}
	s := openStore(t, link)
	if err := s.Save([]byte("new")); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(real); err != nil || string(got) != "new" {
		t.Fatalf("behind the link: %q, %v", got, err)
	}
}
