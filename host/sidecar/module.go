package sidecar

import (
	"fmt"
	"os"
	"path/filepath"
)

// ModulePath is where e2ee.wasm is: path, or, where that is empty, beside the running executable.
// It is a file of its own, and not part of the executable, so that whoever wants can compare it
// with the one that Envoy loads.
func ModulePath(path string) (string, error) {
	if path != "" {
		return path, nil
	}
	executable, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("module: %w", err)
	}
	return filepath.Join(filepath.Dir(executable), "e2ee.wasm"), nil
}

// FindModule reads e2ee.wasm from its ModulePath.
func FindModule(path string) ([]byte, error) {
	path, err := ModulePath(path)
	if err != nil {
		return nil, err
	}
	module, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("module: %w\nhint: `make build` puts e2ee.wasm beside the executable; or name it", err)
	}
	return module, nil
}

// CacheDir is where compiled code is kept: dir itself, or a folder of our own in the user's
// cache directory. Where there is none, the module is compiled at each start.
func CacheDir(dir string) string {
	if dir != "" {
		return dir
	}
	user, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(user, "wasm-e2ee")
}
