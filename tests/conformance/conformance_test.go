package conformance

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/tests/artifact"
)

func TestTheModuleConforms(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	seen := 0
	err := Run(ctx, artifact.Module(t), func(name string, err error) {
		seen++
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	})
	if err != nil {
		t.Error(err)
	}
	if seen < 100 {
		t.Errorf("%d checks ran", seen)
	}
}

// The build whose kernel is Go is held to the same vectors.
func TestThePortableModuleConforms(t *testing.T) {
	module, err := artifact.BuildPortable(filepath.Join(t.TempDir(), "e2ee-portable.wasm"))
	if err != nil {
		t.Fatal(err)
	}
	vectors, err := vectorChecks()
	if err != nil {
		t.Fatal(err)
	}
	if err := run(t.Context(), module, vectors, func(name string, err error) {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}); err != nil {
		t.Error(err)
	}
}

func TestWhatIsNoModuleIsRefused(t *testing.T) {
	for name, wasm := range map[string][]byte{
		"nothing": nil, "text": []byte("hello"), "no exports": []byte("\x00asm\x01\x00\x00\x00"),
	} {
		if err := Run(context.Background(), wasm, func(string, error) {}); err == nil {
			t.Errorf("%s conforms", name)
		}
	}
}
