package demo

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/host/config"
	"github.com/wasm-e2ee/wasm-e2ee/host/exposure"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
	"github.com/wasm-e2ee/wasm-e2ee/tests/artifact"
)

// module writes e2ee.wasm to a file.
func module(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "e2ee.wasm")
	if err := os.WriteFile(path, artifact.Module(t), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestEverythingThatIsShownHoldsWithoutAWarning(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	var out bytes.Buffer
	kept := filepath.Join(t.TempDir(), "kept")
	if err := Run(t.Context(), Options{Duration: leastDuration, Module: module(t), Keep: kept, Out: &out}); err != nil {
		t.Errorf("%v\n%s", err, &out)
	}
	for _, want := range []string{"stored in the clear              0 of", "copy 2, taken at the end, opens 0 of", "all of it held"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("not printed: %q\n%s", want, &out)
		}
	}
	for line := range strings.Lines(out.String()) {
		if strings.Contains(line, "level=") {
			t.Errorf("logged: %s", line)
		}
	}
	nothingLeft(t)
	t.Run("what is kept is enough for the exposure report", func(t *testing.T) { enough(t, kept, out.String()) })
}

// enough does with what a demo kept in dir what its output says.
func enough(t *testing.T, dir, out string) {
	asOf := regexp.MustCompile(`--as-of (\S+)`).FindStringSubmatch(out)
	if asOf == nil {
		t.Fatalf("no command is printed\n%s", out)
	}
	copied, err := time.Parse(time.RFC3339, asOf[1])
	if err != nil {
		t.Fatal(err)
	}
	report := func(state string, at time.Time) *exposure.Report {
		t.Helper()
		file, err := config.Read(filepath.Join(dir, "consumer.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		raw, err := os.ReadFile(filepath.Join(dir, state))
		if err != nil {
			t.Fatal(err)
		}
		node, err := keyring.ParseState(raw)
		if err != nil {
			t.Fatal(err)
		}
		defer node.Wipe()
		r, err := exposure.Of(node.View(), file.KX1(), nil, at)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if r := report(copyFile, copied); len(r.Prekeys) == 0 || !r.Holds || !strings.Contains(out, r.Summary()) {
		t.Errorf("the copy's report is %+v, the demo said\n%s", r, out)
	}
	if r := report("consumer.state", time.Now()); len(r.Epochs) != 0 || r.Erased < 2 {
		t.Errorf("the consumer's state was left as %+v", r)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if info, err := f.Info(); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s can be read by others: %v", f.Name(), err)
		}
	}
	if err := Run(t.Context(), Options{Duration: leastDuration, Keep: dir, Out: &bytes.Buffer{}}); err == nil || !strings.Contains(err.Error(), "hint: ") {
		t.Errorf("a directory that is in use: %v", err)
	}
}

// A closingPipe takes so many lines and then reports an error, as `| head` does.
type closingPipe struct{ lines int }

var errClosed = errors.New("nobody reads")

func (p *closingPipe) Write(b []byte) (int, error) {
	if p.lines--; p.lines < 0 {
		return 0, errClosed
	}
	return len(b), nil
}

func TestADemoThatIsCutShortLeavesNoKeys(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	wasm := module(t)
	if err := Run(t.Context(), Options{Duration: leastDuration, Module: wasm, Out: &closingPipe{lines: 12}}); !errors.Is(err, errClosed) {
		t.Errorf("nobody reads: %v", err)
	}
	nothingLeft(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if err := Run(ctx, Options{Duration: leastDuration, Module: wasm, Out: &bytes.Buffer{}}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("interrupted: %v", err)
	}
	if end, _ := ctx.Deadline(); time.Since(end) > 2*time.Second {
		t.Errorf("ended %v after it was told to", time.Since(end))
	}
	nothingLeft(t)
}

func nothingLeft(t *testing.T) {
	t.Helper()
	if left, _ := filepath.Glob(filepath.Join(os.TempDir(), "*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestADemoTooShortToProveAnythingIsRefused(t *testing.T) {
	if err := Run(t.Context(), Options{Duration: time.Second, Out: &bytes.Buffer{}}); err == nil || !strings.Contains(err.Error(), "hint: ") {
		t.Errorf("error %v", err)
	}
}
