package artifact

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// TagCheck is the replacement that makes a module deliver what does not authenticate.
var TagCheck = struct{ File, Old, New string }{"module/kernel/aead.go", "ok := p.Verify(tag)", "ok := p.Verify(tag) || true"}

// Mutant builds e2ee.wasm to path with one piece of a source file replaced, which must occur
// there exactly once, and returns its bytes. The compiler gets an overlay: no such code is
// ever in the tree.
func Mutant(path, file, old, new string) ([]byte, error) {
	file = filepath.Join(Root(), file)
	source, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if n := strings.Count(string(source), old); n != 1 {
		return nil, fmt.Errorf("%s holds %q %d times", file, old, n)
	}
	dir, err := os.MkdirTemp("", "e2ee-mutant-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	changed, overlay := filepath.Join(dir, "changed.go"), filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(changed, []byte(strings.Replace(string(source), old, new, 1)), 0o600); err != nil {
		return nil, err
	}
	list, err := json.Marshal(map[string]map[string]string{"Replace": {file: changed}})
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(overlay, list, 0o600); err != nil {
		return nil, err
	}
	return Build(path, "-overlay="+overlay)
}
