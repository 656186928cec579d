package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
	"github.com/wasm-e2ee/wasm-e2ee/host/private"
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
	resolved, err := private.Resolve(path)
	if err != nil {
		return nil, fmt.Errorf("state file %s: %w\nhint: create its directory, writable for this user only", path, err)
	}
	lock, err := private.Lock(resolved)
	if errors.Is(err, private.ErrBusy) {
		return nil, fmt.Errorf("state file %w\nhint: to change its credential, stop that sidecar first; two sidecars are two nodes with a state file each", err)
	}
	if err != nil {
		return nil, fmt.Errorf("state file %w\n%s", err, hintWritable(resolved))
	}
	s := &Store{path: resolved, lock: lock}
	for _, file := range []string{s.path, s.replayPath()} {
		if err := private.RemoveStale(file); err != nil {
			lock.Close()
			return nil, fmt.Errorf("state file %w\n%s", err, hintWritable(resolved))
		}
	}
	return s, nil
}

// Load returns the file's bytes, which are the caller's to wipe. A missing file gives an
// error that wraps fs.ErrNotExist; one that other users may read is refused.
func (s *Store) Load() ([]byte, error) {
	b, err := private.Read(s.path, maxState)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("state file %w\nhint: create it with `wasm-e2ee enroll`", err)
	}
	if err != nil {
		return nil, fmt.Errorf("state file %w", err)
	}
	return b, nil
}

// Save replaces the file's content by b and returns once it is on disk. On an error the old
// content stands and no other file is left.
func (s *Store) Save(b []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := private.Replace(s.path, b); err != nil {
		return fmt.Errorf("state file %s cannot be written: %w\n%s", s.path, err, hintWritable(s.path))
	}
	return nil
}

// replayPath is where the replay state is kept (PROTOCOL.md §2.8.6).
func (s *Store) replayPath() string { return s.path + ".replay" }

// Close releases the lock.
func (s *Store) Close() error { return s.lock.Close() }

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
