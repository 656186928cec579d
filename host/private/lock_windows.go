package private

import (
	"os"

	"golang.org/x/sys/windows"
)

// lockFile takes the exclusive lock on f or fails at once. It ends with the process.
func lockFile(f *os.File) error {
	return windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, new(windows.Overlapped))
}

// syncDir does nothing: Windows has no way to sync a directory.
func syncDir(string) error { return nil }
