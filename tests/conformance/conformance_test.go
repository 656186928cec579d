package conformance

import (
	"context"
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

func TestWhatIsNoModuleIsRefused(t *testing.T) {
	for name, wasm := range map[string][]byte{
		"nothing": nil, "text": []byte("hello"), "no exports": []byte("\x00asm\x01\x00\x00\x00"),
	} {
		if err := Run(context.Background(), wasm, func(string, error) {}); err == nil {
			t.Errorf("%s conforms", name)
		}
	}
}
