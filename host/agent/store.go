package agent

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// maxState bounds what is read from a state file, in bytes: 2^20 live kids (PROTOCOL.md
// §2.15) of under 1 KiB each.
const maxState = 1 << 30

// A Store is one node's state file and the lock that makes this process its only writer.
// The file holds secrets, so that it is 0600 or refused, and it is only ever replaced as a
// whole: after a crash it holds the old bytes or the new ones (PROTOCOL.md §2.13).
type Store struct {
	path string // with symbolic links resolved, so that a rename replaces the file itself
	lock *os.File

	mu sync.Mutex // one Save at a time: they share the temporary file's name
}

// OpenStore locks the state file at path for this process. The file itself need not exist
// yet; its directory must, and must be writable. A second process gets an error that says
// so. Close releases the lock.
func OpenStore(path string) (*Store, error) {
	resolved, err := resolve(path)
	if err != nil {
		return nil, fmt.Errorf("state file %s: %w\nhint: create its directory, writable for this user only", path, err)
	}
	lock, err := os.OpenFile(resolved+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state file %s cannot be locked: %w\n%s", path, err, hintWritable(resolved))
	}
	if err := lockFile(lock); err != nil {
		lock.Close()
		return nil, fmt.Errorf("state file %s is in use by another process: %w\nhint: to renew its credential, stop that sidecar first; two sidecars are two nodes with a state file each", path, err)
	}
	s := &Store{path: resolved, lock: lock}
	// A crash between write and rename leaves secrets in the temporary file.
	for _, stale := range []string{temporary(s.path), temporary(s.replayPath())} {
		if err := os.Remove(stale); err != nil && !errors.Is(err, fs.ErrNotExist) {
			lock.Close()
			return nil, fmt.Errorf("state file %s: stale temporary file: %w\n%s", path, err, hintWritable(resolved))
		}
	}
	return s, nil
}

// Load returns the file's bytes, which are the caller's to wipe. A missing file gives an
// error that wraps fs.ErrNotExist; one that other users may read is refused.
func (s *Store) Load() ([]byte, error) {
	f, err := os.Open(s.path)
	if err != nil {
		return nil, fmt.Errorf("state file %s: %w\nhint: create it with `wasm-e2ee enroll`", s.path, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("state file %s: %w", s.path, err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("state file %s is not a regular file\nhint: name a file, not a directory or device", s.path)
	}
	if perm := info.Mode().Perm(); runtime.GOOS != "windows" && perm&0o077 != 0 {
		return nil, fmt.Errorf("state file %s has mode %04o: other users may read this node's secrets\nhint: chmod 600 %s, and enrol the node again if others could read it", s.path, perm, s.path)
	}
	if info.Size() > maxState {
		return nil, fmt.Errorf("state file %s has %d bytes, more than any state\nhint: name the node's state file", s.path, info.Size())
	}
	// Read into one array of the right size, so that no shorter copy stays behind.
	b := make([]byte, info.Size())
	if _, err := io.ReadFull(f, b); err != nil {
		clear(b)
		return nil, fmt.Errorf("state file %s: %w", s.path, err)
	}
	return b, nil
}

// Save replaces the file's content by b and returns once it is on disk: written beside it,
// synced, renamed, and the directory synced. On an error the old content stands and no
// other file is left.
func (s *Store) Save(b []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := replaceFile(s.path, b); err != nil {
		return fmt.Errorf("state file %s cannot be written: %w\n%s", s.path, err, hintWritable(s.path))
	}
	return nil
}

// replayPath is where the replay state is kept (PROTOCOL.md §2.8.6).
func (s *Store) replayPath() string { return s.path + ".replay" }

// Close releases the lock. The lock file stays: removing it would let a third process lock
// a new one while a second still waits on the old.
func (s *Store) Close() error { return s.lock.Close() }

// replaceFile puts b into the file at path, of mode 0600, as a whole or not at all, and
// returns once it is on disk. Only one call for a path at a time.
func replaceFile(path string, b []byte) (err error) {
	f, err := os.OpenFile(temporary(path), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(temporary(path))
		}
	}()
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	if err := os.Rename(temporary(path), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// temporary is one fixed name, so that what a crash left is found and removed at the next
// start.
func temporary(path string) string { return path + ".tmp" }

// resolve follows symbolic links of the file, or of its directory while it does not exist.
func resolve(path string) (string, error) {
	full, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		var dir string
		if dir, err = filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
			full = filepath.Join(dir, filepath.Base(path))
		}
	}
	if err != nil {
		return "", err
	}
	return filepath.Abs(full)
}

func hintWritable(path string) string {
	return fmt.Sprintf("hint: keys are erased by rewriting this file, so its directory %s must be writable for this user, with space left", filepath.Dir(path))
}

// LoadState reads the state in the file and wipes the bytes it was read from. Its error wraps
// fs.ErrNotExist where there is no file.
func (s *Store) LoadState() (*keyring.State, error) {
	b, err := s.Load()
	if err != nil {
		return nil, err
	}
	defer clear(b)
	state, err := keyring.ParseState(b)
	if err != nil {
		return nil, fmt.Errorf("state file %s: %w\nhint: enrol the node again; a state is not restored from a backup", s.path, err)
	}
	return state, nil
}

// SaveState writes a state that nobody else uses, and wipes the bytes it was written from.
func (s *Store) SaveState(state *keyring.State) error {
	b := state.Marshal()
	defer clear(b)
	return s.Save(b)
}
