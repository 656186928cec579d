// Package private keeps files of secrets: readable by their owner alone, written by one
// process at a time, and only ever replaced as a whole, so that after a crash a file holds the
// old bytes or the new ones (abi/PROTOCOL.md §2.13). It does not know what is in them. Its
// errors begin with the file's path.
package private

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// ErrBusy says that another process has the lock.
var ErrBusy = errors.New("in use by another process")

// Lock takes the exclusive lock on the file at path, or fails at once. The file itself need not
// exist; its directory must, and must be writable. Closing what is returned releases the lock.
// The lock file stays: removing it would let a third process lock a new one while a second
// still waits on the old.
func Lock(path string) (*os.File, error) {
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("%s cannot be locked: %w", path, err)
	}
	if err := lockFile(lock); err != nil {
		lock.Close()
		return nil, fmt.Errorf("%s is %w: %w", path, ErrBusy, err)
	}
	return lock, nil
}

// Read returns the file's bytes, which are the caller's to wipe. One of more than max bytes, or
// that other users may read, is refused. A missing file gives fs.ErrNotExist.
func Read(path string, max int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file\nhint: name a file, not a directory or device", path)
	}
	if perm := info.Mode().Perm(); runtime.GOOS != "windows" && perm&0o077 != 0 {
		return nil, fmt.Errorf("%s has mode %04o: other users may read the secrets in it\nhint: chmod 600 %s, and if others could read it, have all of its keys replaced", path, perm, path)
	}
	if info.Size() > max {
		return nil, fmt.Errorf("%s has %d bytes, and can have %d at most\nhint: it is another file", path, info.Size(), max)
	}
	// Read into one array of the right size, so that no shorter copy stays behind.
	b := make([]byte, info.Size())
	if _, err := io.ReadFull(f, b); err != nil {
		clear(b)
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return b, nil
}

// Replace puts b into the file at path, of mode 0600, as a whole or not at all, and returns
// once it is on disk: written beside it, synced, renamed, and the directory synced. Only one
// call for a path at a time.
func Replace(path string, b []byte) (err error) {
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

// RemoveStale removes what a crash between write and rename left of a file: it holds secrets.
func RemoveStale(path string) error {
	if err := os.Remove(temporary(path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: stale temporary file: %w", path, err)
	}
	return nil
}

// temporary is one fixed name, so that what a crash left is found and removed at the next
// start.
func temporary(path string) string { return path + ".tmp" }

// Resolve follows symbolic links of the file, or of its directory while it does not exist, so
// that a rename replaces the file itself.
func Resolve(path string) (string, error) {
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
