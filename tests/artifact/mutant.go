package artifact

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// An Edit replaces one piece of a source file, named from the top of the tree, in which it
// must occur exactly once.
type Edit struct{ File, Old, New string }

// TagCheck is the edit that makes a module deliver what does not authenticate, in the build
// whose kernel is Go.
var TagCheck = Edit{"module/kernel/aead.go", "ok := p.Verify(tag)", "ok := p.Verify(tag) || true"}

// Overlay writes edited files and the list that the compiler's -overlay takes to dir, and
// returns the list's path: no such code is ever in the tree.
func Overlay(dir string, edits ...Edit) (string, error) {
	replace := map[string]string{}
	changed := map[string]string{}
	for _, e := range edits {
		file := filepath.Join(Root(), e.File)
		if changed[file] == "" {
			source, err := os.ReadFile(file)
			if err != nil {
				return "", err
			}
			changed[file] = string(source)
		}
		if n := strings.Count(changed[file], e.Old); n != 1 {
			return "", fmt.Errorf("%s holds %q %d times", file, e.Old, n)
		}
		changed[file] = strings.Replace(changed[file], e.Old, e.New, 1)
	}
	for file, source := range changed {
		replace[file] = filepath.Join(dir, fmt.Sprintf("changed%d.go", len(replace)))
		if err := os.WriteFile(replace[file], []byte(source), 0o600); err != nil {
			return "", err
		}
	}
	list, err := json.Marshal(map[string]map[string]string{"Replace": replace})
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "overlay.json")
	return path, os.WriteFile(path, list, 0o600)
}

// Mutant builds e2ee.wasm to path with one piece of a source file replaced, and returns its
// bytes. A piece of the kernel is one of the kernel in Go.
func Mutant(path, file, old, new string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "e2ee-mutant-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	overlay, err := Overlay(dir, Edit{file, old, new})
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(file, "module/kernel/") {
		return BuildPortable(path, "-overlay="+overlay)
	}
	return Build(path, "-overlay="+overlay)
}
